import type { BakeFile } from "../host.ts";
import { readBake, readDefinition } from "../read.ts";
import { memoryHost } from "./memory-host.ts";

/** The value of a variable that no message may show. */
export const HIDDEN_VALUE = "hidden-7f3a";

/** Longest that a small definition may take. */
const MAX_MS = 5_000;

/**
 * Reads a definition in all ways: whatever it says, the answer is a result or a failure with a message, in time, and
 * nothing that it does reaches what all objects share. Throws for anything else.
 */
export function checkDefinition(files: readonly BakeFile[]): void {
  const start = performance.now();
  const host = memoryHost({
    files: Object.fromEntries(files.map(({ name, data }) => [name, new TextDecoder().decode(data)])),
    env: { A: "1", v: "2", TOKEN: HIDDEN_VALUE },
  });
  const read = readBake(files, host, { targets: ["*"], set: ["*.args.X=1"] });
  if (read.ok) JSON.parse(read.value.print());
  else if (read.failure.message === "") throw new Error("a failure without a message");
  else if (read.failure.message.includes(HIDDEN_VALUE))
    throw new Error(`shows a value: ${read.failure.message}`);
  const listed = readDefinition(files, host);
  if (listed.ok) for (const what of ["targets", "variables"]) listed.value.list(what);
  if (Object.keys(Object.prototype).length > 0 || "polluted" in {})
    throw new Error("all objects were changed");
  const ms = performance.now() - start;
  if (ms > MAX_MS) throw new Error(`took ${ms.toFixed(0)} ms`);
}
