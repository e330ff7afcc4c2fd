import { quoteGo } from "@kiln/formats";
import type { LinuxResources } from "@kiln/llb";
import { cut, trimSpace } from "../base/go-text.ts";
import { Problem } from "../base/problem.ts";

const MAX_INT64 = 2n ** 63n - 1n;
const MAX_UINT64 = 2n ** 64n - 1n;
/** Highest number of a CPU or memory node. */
const MAX_CPU = 8192;

/** Limits of steps; undefined when there are none. Throws a problem for a bad one. */
export function parseLinuxResources(opts: ReadonlyMap<string, string>): LinuxResources | undefined {
  const resources: LinuxResources = {
    memory: positive(opts, "memory", "int"),
    memorySwap: swap(opts),
    cpuShares: positive(opts, "cpushares", "uint"),
    cpuPeriod: positive(opts, "cpuperiod", "uint"),
    cpuQuota: positive(opts, "cpuquota", "int"),
    cpusetCpus: cpuset(opts, "cpusetcpus"),
    cpusetMems: cpuset(opts, "cpusetmems"),
  };
  return Object.values(resources).some((value) => value !== undefined) ? resources : undefined;
}

function number(key: string, text: string, kind: "int" | "uint"): bigint {
  const name = kind === "int" ? "ParseInt" : "ParseUint";
  const fail = (what: string): Problem =>
    new Problem(`invalid ${key} value: ${text}: strconv.${name}: parsing ${quoteGo(text)}: ${what}`);
  if (!(kind === "int" ? /^[+-]?[0-9]{1,30}$/ : /^[0-9]{1,30}$/).test(text)) throw fail("invalid syntax");
  const value = BigInt(text.replace("+", ""));
  const max = kind === "int" ? MAX_INT64 : MAX_UINT64;
  if (value > max || value < -MAX_INT64 - 1n) throw fail("value out of range");
  return value;
}

function positive(opts: ReadonlyMap<string, string>, key: string, kind: "int" | "uint"): bigint | undefined {
  const text = opts.get(key) ?? "";
  if (text === "") return undefined;
  const value = number(key, text, kind);
  if (value <= 0n) throw new Problem(`invalid ${key} value: ${text}: must be > 0`);
  return value;
}

function swap(opts: ReadonlyMap<string, string>): bigint | undefined {
  const text = opts.get("memswap") ?? "";
  if (text === "") return undefined;
  const value = number("memswap", text, "int");
  if (value < -1n || value === 0n) {
    throw new Problem(`invalid memswap value: ${text}: must be -1 (unlimited) or > 0`);
  }
  return value;
}

function cpuset(opts: ReadonlyMap<string, string>, key: string): string | undefined {
  const text = opts.get(key) ?? "";
  if (text === "") return undefined;
  for (const raw of text.split(",")) {
    const part = trimSpace(raw);
    const problem = part === "" ? undefined : cpusetProblem(part);
    if (problem !== undefined) throw new Problem(`invalid ${key} value: ${text}: ${problem}`);
  }
  return text;
}

function cpusetProblem(part: string): string | undefined {
  const [low, high, isRange] = cut(part, "-");
  const kind = isRange ? "range" : "element";
  const first = index(low);
  const last = isRange ? index(high) : first;
  if (first === undefined || last === undefined || last < first) {
    return `invalid cpuset ${kind} ${quoteGo(part)}`;
  }
  return last > MAX_CPU ? `cpuset ${kind} ${quoteGo(part)} exceeds maximum ${MAX_CPU}` : undefined;
}

function index(text: string): number | undefined {
  const trimmed = trimSpace(text);
  return /^\+?[0-9]{1,15}$/.test(trimmed) ? Number(trimmed) : undefined;
}
