import { BuildError } from "@kiln/base";

const UNIT_NS: ReadonlyMap<string, bigint> = new Map([
  ["ns", 1n],
  ["us", 1_000n],
  ["µs", 1_000n],
  ["μs", 1_000n],
  ["ms", 1_000_000n],
  ["s", 1_000_000_000n],
  ["m", 60_000_000_000n],
  ["h", 3_600_000_000_000n],
]);
const SECOND = 1_000_000_000n;
const MAX_INT64 = 2n ** 63n - 1n;
const MAX_LENGTH = 1024;

/**
 * Nanoseconds of a Go duration (`1h30m`, `-1.5s`, `0`); Go's `time.ParseDuration`.
 *
 * Throws `invalid_argument` with Go's text.
 */
export function parseDuration(text: string): bigint {
  const bad = (): BuildError => invalid(`time: invalid duration ${quoteBytes(text)}`);
  const negative = text.startsWith("-");
  let rest = /^[+-]/.test(text) ? text.slice(1) : text;
  if (rest === "0") return 0n;
  if (rest === "" || rest.length > MAX_LENGTH) throw bad();
  let total = 0n;
  while (rest !== "") {
    const number = /^(\d*)(?:\.(\d*))?/.exec(rest)!;
    const whole = number[1] ?? "";
    const fraction = number[2] ?? "";
    if (whole === "" && fraction === "") throw bad();
    rest = rest.slice(number[0].length);
    const unit = /^[^0-9.]+/.exec(rest)?.[0];
    if (unit === undefined) throw invalid(`time: missing unit in duration ${quoteBytes(text)}`);
    const ns = UNIT_NS.get(unit);
    if (ns === undefined)
      throw invalid(`time: unknown unit ${quoteBytes(unit)} in duration ${quoteBytes(text)}`);
    rest = rest.slice(unit.length);
    total += BigInt(whole === "" ? "0" : whole) * ns;
    if (fraction !== "") total += (BigInt(fraction) * ns) / 10n ** BigInt(fraction.length);
    if (total > MAX_INT64 + 1n) throw bad();
  }
  if (negative) return -total;
  if (total > MAX_INT64) throw bad();
  return total;
}

/** {@link parseDuration} in milliseconds, fractions kept. */
export function parseDurationMs(text: string): number {
  return Number(parseDuration(text)) / 1e6;
}

/** `1h0m5.5s`, `250ms`, `0s`; Go's `Duration.String`. Takes nanoseconds. */
export function formatDuration(ns: bigint | number): string {
  const value = BigInt(ns);
  if (value === 0n) return "0s";
  const sign = value < 0n ? "-" : "";
  const abs = value < 0n ? -value : value;
  if (abs < SECOND) {
    if (abs < 1_000n) return `${sign}${abs}ns`;
    if (abs < 1_000_000n) return `${sign}${withFraction(abs, 3)}µs`;
    return `${sign}${withFraction(abs, 6)}ms`;
  }
  const minutes = abs / (60n * SECOND);
  const seconds = withFraction(abs % (60n * SECOND), 9);
  const hours = minutes / 60n;
  if (hours > 0n) return `${sign}${hours}h${minutes % 60n}m${seconds}s`;
  return minutes > 0n ? `${sign}${minutes}m${seconds}s` : `${sign}${seconds}s`;
}

function withFraction(value: bigint, digits: number): string {
  const scale = 10n ** BigInt(digits);
  const fraction = (value % scale).toString().padStart(digits, "0").replace(/0+$/, "");
  return `${value / scale}${fraction === "" ? "" : `.${fraction}`}`;
}

/** `About a minute`, `3 weeks`; go-units' `HumanDuration`. */
export function humanDuration(durationMs: number): string {
  const seconds = Math.trunc(durationMs / 1000);
  if (seconds < 1) return "Less than a second";
  if (seconds === 1) return "1 second";
  if (seconds < 60) return `${seconds} seconds`;
  const minutes = Math.trunc(durationMs / 60_000);
  if (minutes === 1) return "About a minute";
  if (minutes < 60) return `${minutes} minutes`;
  const hours = Math.trunc(durationMs / 3_600_000 + 0.5);
  if (hours === 1) return "About an hour";
  if (hours < 48) return `${hours} hours`;
  if (hours < 24 * 7 * 2) return `${Math.trunc(hours / 24)} days`;
  if (hours < 24 * 30 * 2) return `${Math.trunc(hours / 24 / 7)} weeks`;
  if (hours < 24 * 365 * 2) return `${Math.trunc(hours / 24 / 30)} months`;
  return `${Math.trunc(Math.trunc(durationMs / 3_600_000) / 24 / 365)} years`;
}

/** The time package's own quoting: every byte that isn't printable ASCII as `\\xNN`. */
function quoteBytes(text: string): string {
  let out = "";
  for (const byte of new TextEncoder().encode(text)) {
    const c = String.fromCharCode(byte);
    if (c === '"' || c === "\\") out += `\\${c}`;
    else out += byte < 0x20 || byte >= 0x80 ? `\\x${byte.toString(16).padStart(2, "0")}` : c;
  }
  return `"${out}"`;
}

function invalid(message: string): BuildError {
  return new BuildError("invalid_argument", message);
}
