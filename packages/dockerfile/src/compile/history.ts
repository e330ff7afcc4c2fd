import type { StageState } from "./stage-state.ts";

const COMMENT = "buildkit.dockerfile.v0";

/** Adds a line to a stage's history. */
export function addHistory(
  state: StageState,
  createdBy: string,
  options: { readonly isLayer?: boolean; readonly epochSeconds?: bigint | undefined } = {},
): void {
  state.image.history.push({
    created: options.epochSeconds === undefined ? undefined : timeOfEpoch(options.epochSeconds),
    createdBy,
    author: "",
    comment: COMMENT,
    emptyLayer: !options.isLayer,
  });
}

const MAX_SECONDS = 253_402_300_799n;
const MIN_SECONDS = -62_167_219_200n;

/** RFC 3339 in UTC; times that it can't express are cut to its limits. */
export function timeOfEpoch(seconds: bigint): string {
  const bounded = seconds > MAX_SECONDS ? MAX_SECONDS : seconds < MIN_SECONDS ? MIN_SECONDS : seconds;
  return new Date(Number(bounded) * 1000).toISOString().replace(".000Z", "Z");
}

/** `|2 A=1 B=2 /bin/sh -c …`: the arguments that a RUN sees, then its command. */
export function runHistory(args: readonly string[], state: StageState): string {
  const values = new Map<string, string>();
  for (const { key, value } of state.buildArgs) values.set(key, state.state.env.get(key) ?? value ?? "");
  const words = [...values].map(([key, value]) => `${key}=${value}`);
  return [...(words.length > 0 ? [`|${words.length}`, ...words] : []), ...args].join(" ");
}
