import { llbCaps } from "@kiln/api/caps";
import { BuildError } from "@kiln/base";

const KNOWN: ReadonlySet<string> = new Set(llbCaps.map((cap) => cap.id));

/** @throws BuildError `unimplemented` in BuildKit's words for a capability that isn't advertised. */
export function checkLlbCapability(id: string): void {
  if (KNOWN.has(id)) return;
  throw new BuildError("unimplemented", `unknown API capability ${id}`);
}
