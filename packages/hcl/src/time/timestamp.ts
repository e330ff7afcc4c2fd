/** A moment, with the offset from UTC in which it is told. */
export interface Timestamp {
  readonly seconds: number;
  readonly nanos: number;
  readonly offsetSeconds: number;
}

/** A text that isn't a timestamp or duration. */
export class TimeError extends Error {}

const PREFIX = "not a valid RFC3339 timestamp";
const DAYS = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];

function daysIn(month: number, year: number): number {
  const leap = year % 4 === 0 && (year % 100 !== 0 || year % 400 === 0);
  return month === 2 && leap ? 29 : (DAYS[month - 1] ?? 31);
}

/** Reads the parts of a timestamp one after the other. */
class Reader {
  #rest: string;

  constructor(text: string) {
    this.#rest = text;
  }

  get rest(): string {
    return this.#rest;
  }

  fail(what: string, found = this.#rest): TimeError {
    if (found === "") return new TimeError(`${PREFIX}: end of string before ${what}`);
    if (what === "hour" && found.includes(":")) {
      return new TimeError(`${PREFIX}: hour must be between 0 and 23 inclusive`);
    }
    if ((what === "hour" || what === "minute") && found.length !== 2) {
      return new TimeError(`${PREFIX}: ${what} must have exactly two digits`);
    }
    return new TimeError(`${PREFIX}: cannot use ${JSON.stringify(found)} as ${what}`);
  }

  number(what: string, digits: number, max: number): number {
    const text = this.#rest.slice(0, digits);
    if (!/^\d+$/.test(text) || text.length < digits) throw this.fail(what);
    this.#rest = this.#rest.slice(digits);
    const value = Number(text);
    if (value > max || (value === 0 && (what === "month" || what === "day of month"))) throw this.fail(what);
    return value;
  }

  literal(char: string): void {
    if (this.#rest.startsWith(char)) {
      this.#rest = this.#rest.slice(char.length);
      return;
    }
    if (char === "T") throw new TimeError(`${PREFIX}: missing required time introducer 'T'`);
    if (this.#rest === "")
      throw new TimeError(`${PREFIX}: end of string where ${JSON.stringify(char)} is expected`);
    throw new TimeError(
      `${PREFIX}: found ${JSON.stringify(this.#rest)} where ${JSON.stringify(char)} is expected`,
    );
  }

  take(pattern: RegExp): string {
    const match = pattern.exec(this.#rest);
    if (match === null) return "";
    this.#rest = this.#rest.slice(match[0].length);
    return match[0];
  }
}

/** Parses RFC 3339, strictly. */
export function parseTimestamp(text: string): Timestamp {
  const reader = new Reader(text);
  const year = reader.number("year", 4, 9999);
  reader.literal("-");
  const month = reader.number("month", 2, 12);
  reader.literal("-");
  const day = reader.number("day of month", 2, 31);
  reader.literal("T");
  const hour = reader.number("hour", 2, 23);
  reader.literal(":");
  const minute = reader.number("minute", 2, 59);
  reader.literal(":");
  const second = reader.number("second", 2, 59);
  const fraction = reader.take(/^\.\d+/).slice(1, 10);
  const zone = reader.take(/^(?:Z|[+-]\d\d:\d\d)/);
  if (zone === "") throw reader.fail("UTC offset");
  if (reader.rest !== "") throw reader.fail("timestamp segment");
  if (day > daysIn(month, year)) throw new TimeError(`${PREFIX}: day out of range`);
  const offsetHours = Number(zone.slice(1, 3) || "0");
  const offsetMinutes = Number(zone.slice(4, 6) || "0");
  if (offsetHours > 23 || offsetMinutes > 59) throw reader.fail("UTC offset", zone);
  const offsetSeconds = (zone.startsWith("-") ? -1 : 1) * (offsetHours * 60 + offsetMinutes) * 60;
  const date = new Date(0);
  date.setUTCFullYear(year, month - 1, day);
  date.setUTCHours(hour, minute, second, 0);
  return {
    seconds: date.getTime() / 1000 - offsetSeconds,
    nanos: Number(fraction.padEnd(9, "0")),
    offsetSeconds,
  };
}

/** The calendar fields of a moment as its offset shows them; read with `getUTC…`. */
export function localDate(time: Timestamp): Date {
  const date = new Date((time.seconds + time.offsetSeconds) * 1000);
  if (Number.isNaN(date.getTime())) throw new TimeError("timestamp out of range");
  return date;
}

/** `+07:00`; `Z` for UTC when `zulu`. */
export function formatOffset(seconds: number, colon: boolean, zulu: boolean): string {
  if (seconds === 0 && zulu) return "Z";
  const minutes = Math.abs(seconds) / 60;
  const two = (n: number): string => String(Math.floor(n)).padStart(2, "0");
  return `${seconds < 0 ? "-" : "+"}${two(minutes / 60)}${colon ? ":" : ""}${two(minutes % 60)}`;
}

/** RFC 3339 without fractions of a second. */
export function formatTimestamp(time: Timestamp): string {
  const date = localDate(time);
  const year = date.getUTCFullYear();
  const two = (n: number): string => String(n).padStart(2, "0");
  const day = `${year < 0 ? "-" : ""}${String(Math.abs(year)).padStart(4, "0")}-${two(date.getUTCMonth() + 1)}-${two(date.getUTCDate())}`;
  const clock = `${two(date.getUTCHours())}:${two(date.getUTCMinutes())}:${two(date.getUTCSeconds())}`;
  return `${day}T${clock}${formatOffset(time.offsetSeconds, true, true)}`;
}

const UNITS = new Map([
  ["ns", 1n],
  ["us", 1000n],
  ["µs", 1000n],
  ["μs", 1000n],
  ["ms", 1000_000n],
  ["s", 1000_000_000n],
  ["m", 60n * 1000_000_000n],
  ["h", 3600n * 1000_000_000n],
]);

/** Nanoseconds of a Go duration such as `-1h30m`. */
export function parseDuration(text: string): bigint {
  const invalid = new TimeError(`time: invalid duration ${JSON.stringify(text)}`);
  const negative = text.startsWith("-");
  let rest = text.replace(/^[+-]/, "");
  if (rest === "0") return 0n;
  if (rest === "") throw invalid;
  let total = 0n;
  while (rest !== "") {
    const match = /^(\d*)(?:\.(\d*))?/.exec(rest);
    const [whole = "", fraction = ""] = [match?.[1], match?.[2]];
    if (match === null || (whole === "" && fraction === "")) throw invalid;
    rest = rest.slice(match[0].length);
    const unitText = /^[^.\d]*/.exec(rest)?.[0] ?? "";
    if (unitText === "") throw new TimeError(`time: missing unit in duration ${JSON.stringify(text)}`);
    const unit = UNITS.get(unitText);
    if (unit === undefined) {
      throw new TimeError(
        `time: unknown unit ${JSON.stringify(unitText)} in duration ${JSON.stringify(text)}`,
      );
    }
    rest = rest.slice(unitText.length);
    const digits = fraction.slice(0, 18);
    total += BigInt(whole || "0") * unit + (BigInt(digits || "0") * unit) / 10n ** BigInt(digits.length);
    if (total > 2n ** 63n - 1n) throw invalid;
  }
  return negative ? -total : total;
}

/** The moment `nanos` nanoseconds later. */
export function addNanos(time: Timestamp, nanos: bigint): Timestamp {
  const sum = BigInt(time.seconds) * 1000_000_000n + BigInt(time.nanos) + nanos;
  const rest = ((sum % 1000_000_000n) + 1000_000_000n) % 1000_000_000n;
  return { ...time, seconds: Number((sum - rest) / 1000_000_000n), nanos: Number(rest) };
}
