import { BuildError } from "@kiln/base";
import { csvFields } from "@kiln/formats";
import { usageError } from "../command/flags.ts";

/** What happens to other targets when one fails, and when targets export. */
export type JobMode = "fail-fast" | "defer-error" | "defer-output";

/** `--jobs`: how many targets build at a time (0: all), and in which mode. */
export interface Jobs {
  readonly parallel: number;
  readonly mode: JobMode;
}

const MODES: readonly JobMode[] = ["fail-fast", "defer-error", "defer-output"];

/** Reads `N`, `[mode,]parallel=N` or a mode; of several values the last counts. */
export function parseJobs(text: string): Jobs {
  let parallel = 0;
  let mode: JobMode = "fail-fast";
  for (const field of text === "" ? [] : csvFields(text)) {
    const known = MODES.find((candidate) => candidate === field || `mode=${candidate}` === field);
    const count = /^(?:parallel=)?(\d{1,6})$/.exec(field)?.[1];
    if (known) mode = known;
    else if (count !== undefined) parallel = Number(count);
    else throw usageError(`invalid jobs value ${JSON.stringify(field)}`);
  }
  return { parallel, mode };
}

/** In `defer-output` all targets must be able to run at the same time. @throws BuildError when the limit forbids it. */
export function checkLimit(targets: number, { mode, parallel }: Jobs): void {
  if (mode !== "defer-output" || parallel === 0 || parallel >= targets) return;
  throw new BuildError(
    "invalid_argument",
    `jobs mode defer-output needs ${targets} targets at a time, but the limit is ${parallel}`,
  );
}
