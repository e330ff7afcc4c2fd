import { parseDuration, parseDurationMs } from "@kiln/formats";
import type { FlagSpec, FlagValues } from "../command/flags.ts";

/** `--timeout` of the commands that ask builders for their status. */
export const timeoutFlag: FlagSpec = {
  name: "timeout",
  kind: "string",
  typeName: "duration",
  defaultValue: "20s",
  usage: "Override the default timeout for loading builder status",
  check: (value) => parseDuration(value),
};

/** A signal that also aborts after `--timeout`; 0 is no limit. */
export function withTimeout(flags: FlagValues, signal: AbortSignal): AbortSignal {
  const timeoutMs = parseDurationMs(flags.string("timeout"));
  return timeoutMs > 0 ? AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)]) : signal;
}
