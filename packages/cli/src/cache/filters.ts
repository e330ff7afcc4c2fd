/** `--filter` of `du` and `prune`, in the daemon's syntax. */
import { BuildError, errorMessage } from "@kiln/base";
import { parseDuration } from "@kiln/formats";
import { type FlagSpec, usageError } from "../command/flags.ts";

/** The flag. */
export const filterFlag: FlagSpec = {
  name: "filter",
  kind: "list",
  typeName: "filter",
  usage: "Provide filter values",
  check: (value) => {
    if (value !== "" && !value.includes("=")) throw usageError("bad format of filter (expected name=value)");
  },
};

/** What filters mean: an age in nanoseconds, and what a record must match. */
export interface CacheFilter {
  readonly keepDurationNs: bigint;
  readonly filter: readonly string[];
}

/** Reads filters. @throws BuildError in Buildx's words. */
export function readFilters(values: readonly string[]): CacheFilter {
  const byKey = new Map<string, Set<string>>();
  for (const value of values) {
    if (value === "") continue;
    const equals = value.indexOf("=");
    const key = (equals < 0 ? value : value.slice(0, equals)).trim().toLowerCase();
    const set = byKey.get(key) ?? new Set();
    if (equals >= 0) set.add(value.slice(equals + 1).trim());
    byKey.set(key, set);
  }
  if (byKey.has("until") && byKey.has("unused-for")) {
    throw usageError('conflicting filters "until" and "unused-for"');
  }
  const ageKey = byKey.has("unused-for") ? "unused-for" : "until";
  const parts: string[] = [];
  let keepDurationNs = 0n;
  for (const [key, set] of byKey) {
    const [value, ...more] = set;
    if (more.length > 0) throw usageError(`${JSON.stringify(key)} filter expects only one value`);
    if (key === ageKey) keepDurationNs = readAge(key, value ?? "");
    else if (value === undefined) parts.push(key);
    else if (key === "id") parts.push(`id~=${value}`);
    else parts.push(/[!~]$/.test(key) ? `${key}=${value}` : `${key}==${value}`);
  }
  return { keepDurationNs, filter: [parts.join(",")] };
}

function readAge(key: string, value: string): bigint {
  try {
    return parseDuration(value);
  } catch (error) {
    throw new BuildError(
      "invalid_argument",
      `${JSON.stringify(key)} filter expects a duration (e.g., '24h'): ${errorMessage(error)}`,
      { cause: error },
    );
  }
}
