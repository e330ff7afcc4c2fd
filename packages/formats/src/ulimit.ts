import { BuildError } from "@kiln/base";

/** A resource limit; -1 is unlimited. */
export interface Ulimit {
  readonly name: string;
  readonly soft: bigint;
  readonly hard: bigint;
}

/** Names that a ulimit may have, with Linux's resource numbers. */
export const ulimitResources: ReadonlyMap<string, number> = new Map([
  ["core", 4],
  ["cpu", 0],
  ["data", 2],
  ["fsize", 1],
  ["locks", 10],
  ["memlock", 8],
  ["msgqueue", 12],
  ["nice", 13],
  ["nofile", 7],
  ["nproc", 6],
  ["rss", 5],
  ["rtprio", 14],
  ["rttime", 15],
  ["sigpending", 11],
  ["stack", 3],
]);

/** Reads `nofile=1024:2048` (go-units' `ParseUlimit`); without the second number both are the same. */
export function parseUlimit(text: string): Ulimit {
  const equals = text.indexOf("=");
  if (equals < 0) throw invalid(`invalid ulimit argument: ${text}`);
  const name = text.slice(0, equals);
  const limits = text.slice(equals + 1);
  if (!ulimitResources.has(name)) throw invalid(`invalid ulimit type: ${name}`);
  const values = limits.split(":");
  if (values.length > 2) {
    throw invalid(`too many limit value arguments - ${limits}, can only have up to two, \`soft[:hard]\``);
  }
  const given = values[1] === undefined ? undefined : parseInt64(values[1]);
  const soft = parseInt64(values[0]!);
  const hard = given ?? soft;
  const order = "ulimit soft limit must be less than or equal to hard limit";
  if (hard !== -1n && soft === -1n) throw invalid(`${order}: soft: -1 (unlimited), hard: ${hard}`);
  if (hard !== -1n && soft > hard) throw invalid(`${order}: ${soft} > ${hard}`);
  return { name, soft, hard };
}

/** `nofile=1024:2048`. */
export function formatUlimit(limit: Ulimit): string {
  return `${limit.name}=${limit.soft}:${limit.hard}`;
}

function parseInt64(text: string): bigint {
  const quoted = JSON.stringify(text);
  if (!/^[+-]?\d{1,30}$/.test(text)) throw invalid(`strconv.ParseInt: parsing ${quoted}: invalid syntax`);
  const value = BigInt(text.replace(/^\+/, ""));
  if (value !== BigInt.asIntN(64, value)) {
    throw invalid(`strconv.ParseInt: parsing ${quoted}: value out of range`);
  }
  return value;
}

function invalid(message: string): BuildError {
  return new BuildError("invalid_argument", message);
}
