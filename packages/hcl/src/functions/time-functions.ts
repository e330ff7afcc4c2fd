import { numberType, objectType, stringType } from "../cty/type.ts";
import { intValue, objectValue, stringValue, type Value } from "../cty/value.ts";
import { ArgumentError, FunctionError } from "../function.ts";
import {
  addNanos,
  formatOffset,
  formatTimestamp,
  localDate,
  parseDuration,
  parseTimestamp,
  TimeError,
  type Timestamp,
} from "../time/timestamp.ts";
import { any, type FunctionHost, type FunctionTable, fn, num, text } from "./support.ts";

const MONTHS = [
  "January",
  "February",
  "March",
  "April",
  "May",
  "June",
  "July",
  "August",
  "September",
  "October",
  "November",
  "December",
];
const WEEKDAYS = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const DAY_MS = 86_400_000;

function timestampArgument(index: number, given: string): Timestamp {
  try {
    return parseTimestamp(given);
  } catch (error) {
    throw error instanceof TimeError ? new ArgumentError(index, error.message) : error;
  }
}

const TOKEN = /''|'(?:[^']|'')*'?|([a-zA-Z])\1*|[^a-zA-Z']+/g;

function formatDate(format: string, time: Timestamp): string {
  let out = "";
  for (const [token] of format.matchAll(TOKEN)) {
    if (token === "''") out += "'";
    else if (token.startsWith("'")) {
      const closed = token.length > 1 && (token.slice(1).match(/'+$/)?.[0].length ?? 0) % 2 === 1;
      if (!closed) throw new ArgumentError(0, "unterminated literal '");
      out += token.slice(1, -1).replaceAll("''", "'");
    } else out += /^[a-zA-Z]/.test(token) ? dateVerb(token, time) : token;
  }
  return out;
}

function dateVerb(verb: string, time: Timestamp): string {
  const date = localDate(time);
  const hour = date.getUTCHours();
  const { length } = verb;
  const fail = (hint = ""): ArgumentError => {
    return new ArgumentError(0, `invalid date format verb ${JSON.stringify(verb)}${hint}`);
  };
  const number = (value: number, rule: string): string => {
    if (length > 2) throw fail(`: ${rule}`);
    return length === 1 ? String(value) : String(value).padStart(2, "0");
  };
  switch (verb.charAt(0)) {
    case "Y": {
      const year = date.getUTCFullYear();
      if (length === 2) return String(year % 100).padStart(2, "0");
      if (length === 4) return String(year).padStart(4, "0");
      throw fail(': year must either be "YY" or "YYYY"');
    }
    case "M": {
      const name = MONTHS[date.getUTCMonth()] ?? "";
      if (length === 3) return name.slice(0, 3);
      if (length === 4) return name;
      return number(date.getUTCMonth() + 1, 'month must be "M", "MM", "MMM", or "MMMM"');
    }
    case "D":
      return number(date.getUTCDate(), 'day of month must either be "D" or "DD"');
    case "E": {
      const name = WEEKDAYS[date.getUTCDay()] ?? "";
      if (length === 3) return name.slice(0, 3);
      if (length === 4) return name;
      throw fail(': day of week must either be "EEE" or "EEEE"');
    }
    case "h":
      return number(hour, '24-hour must either be "h" or "hh"');
    case "H":
      return number(hour % 12 || 12, '12-hour must either be "H" or "HH"');
    case "A":
    case "a": {
      if (length !== 2) throw fail(`: must be "${verb.charAt(0)}${verb.charAt(0)}"`);
      const half = hour < 12 ? "am" : "pm";
      return verb.startsWith("A") ? half.toUpperCase() : half;
    }
    case "m":
      return number(date.getUTCMinutes(), 'minute must either be "m" or "mm"');
    case "s":
      return number(date.getUTCSeconds(), 'second must either be "s" or "ss"');
    case "Z":
      return zoneVerb(length, time.offsetSeconds) ?? "";
    default:
      throw fail();
  }
}

function zoneVerb(length: number, offset: number): string | undefined {
  switch (length) {
    case 1:
      return formatOffset(offset, true, true);
    case 3:
      return offset === 0 ? "UTC" : formatOffset(offset, false, false);
    case 4:
      return formatOffset(offset, false, false);
    case 5:
      return formatOffset(offset, true, false);
    default:
      throw new ArgumentError(
        0,
        `invalid date format verb "${"Z".repeat(length)}": timezone must be Z, ZZZZ, or ZZZZZ`,
      );
  }
}

function unixTime(value: Value, index: number): Timestamp {
  const seconds = value.number.toSafeInteger();
  if (seconds === undefined) throw new ArgumentError(index, "unix timestamp must be an integer");
  return { seconds, nanos: 0, offsetSeconds: 0 };
}

function formatAny(args: readonly Value[]): string {
  const format = args[0]!.string;
  const given = args[1]!;
  if (given.type.kind === "number") {
    const time = unixTime(given, 1);
    return format === "X" ? String(time.seconds) : formatDate(format, time);
  }
  if (given.type.kind !== "string") {
    throw new ArgumentError(1, "must be a string timestamp or a unix timestamp number");
  }
  if (format !== "X") return formatDate(format, timestampArgument(1, given.string));
  try {
    return String(parseTimestamp(given.string).seconds);
  } catch (error) {
    throw error instanceof TimeError ? new ArgumentError(1, "timestamp string must be RFC3339") : error;
  }
}

/** Year and number of the ISO week. */
function isoWeek(date: Date): readonly [year: number, week: number] {
  const thursday = new Date(date.getTime() + (4 - (date.getUTCDay() || 7)) * DAY_MS);
  const year = thursday.getUTCFullYear();
  return [year, Math.floor((thursday.getTime() - Date.UTC(year, 0, 1)) / DAY_MS / 7) + 1];
}

const NUMBERS = [
  "year",
  "year_day",
  "day",
  "month",
  "weekday",
  "hour",
  "minute",
  "second",
  "iso_year",
  "iso_week",
];
const TEXTS = ["month_name", "weekday_name", "rfc3339"];
const unixType = objectType(
  new Map([
    ...NUMBERS.map((name) => [name, numberType] as const),
    ...TEXTS.map((name) => [name, stringType] as const),
  ]),
);

function parseUnix(args: readonly Value[]): Value {
  const time = unixTime(args[0]!, 0);
  const date = localDate(time);
  const [isoYear, week] = isoWeek(date);
  const year = date.getUTCFullYear();
  const yearStart = new Date(0);
  yearStart.setUTCFullYear(year, 0, 1);
  return objectValue(
    new Map([
      ["year", intValue(year)],
      ["year_day", intValue(Math.floor((date.getTime() - yearStart.getTime()) / DAY_MS) + 1)],
      ["day", intValue(date.getUTCDate())],
      ["month", intValue(date.getUTCMonth() + 1)],
      ["month_name", stringValue(MONTHS[date.getUTCMonth()] ?? "")],
      ["weekday", intValue(date.getUTCDay())],
      ["weekday_name", stringValue(WEEKDAYS[date.getUTCDay()] ?? "")],
      ["hour", intValue(date.getUTCHours())],
      ["minute", intValue(date.getUTCMinutes())],
      ["second", intValue(date.getUTCSeconds())],
      ["rfc3339", stringValue(formatTimestamp(time))],
      ["iso_year", intValue(isoYear)],
      ["iso_week", intValue(week)],
    ]),
  );
}

function timeAdd(args: readonly Value[]): Value {
  try {
    return stringValue(
      formatTimestamp(addNanos(parseTimestamp(args[0]!.string), parseDuration(args[1]!.string))),
    );
  } catch (error) {
    throw error instanceof TimeError ? new FunctionError(error.message) : error;
  }
}

/** Dates and times. */
export function timeFunctions(host: FunctionHost): FunctionTable {
  return {
    formatdate: fn(
      "Deprecated: use formattimestamp instead. Formats a timestamp given in RFC 3339 syntax into another timestamp in some other machine-oriented time syntax, as described in the format string.",
      [text("format"), text("time")],
      stringType,
      ([format, time]) => stringValue(formatDate(format!.string, timestampArgument(1, time!.string))),
    ),
    formattimestamp: fn(
      'Formats a timestamp string in RFC 3339 syntax or a unix timestamp integer into another timestamp in some other machine-oriented time syntax, as described in the format string. The special format string "X" returns the unix timestamp in seconds.',
      [text("format"), any("time")],
      stringType,
      (args) => stringValue(formatAny(args)),
    ),
    timeadd: fn(
      "Adds the duration represented by the given duration string to the given RFC 3339 timestamp string, returning another RFC 3339 timestamp.",
      [text("timestamp"), text("duration")],
      stringType,
      timeAdd,
    ),
    timestamp: fn("Returns a string representation of the current date and time.", [], stringType, () =>
      stringValue(
        formatTimestamp({ seconds: Math.floor(host.now().getTime() / 1000), nanos: 0, offsetSeconds: 0 }),
      ),
    ),
    unixtimestampparse: fn(
      "Given a unix timestamp integer, will parse and return an object representation of that date and time. A unix timestamp is the number of seconds elapsed since January 1, 1970 UTC.",
      [num("unix_timestamp")],
      unixType,
      parseUnix,
    ),
  };
}
