import type { SessionGroup } from "@kiln/solver";

/** A group of fixed sessions; empty ids don't count. */
export function groupOf(ids: readonly string[]): SessionGroup {
  const known = ids.filter((id) => id !== "");
  return { ids: () => known };
}
