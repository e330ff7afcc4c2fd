import { timestampMs } from "@bufbuild/protobuf/wkt";
import type { BuildHistoryRecord } from "@kiln/api/control";
import { BuildError, isBuildError } from "@kiln/base";
import { csvFields, parseDurationMs } from "@kiln/formats";
import { parseFilters } from "@kiln/store";

type Matches = (record: BuildHistoryRecord) => boolean;

/** Comparisons by length, as `>=` contains `>`. */
const COMPARISONS = [">=", "<=", ">", "<"] as const;

/**
 * Reads the filters of a `ListenBuildHistory` request (upstream `history/filter.go`): one of them must
 * match, and all of its comma-separated parts.
 *
 * @throws BuildError `invalid_argument`
 */
export function historyFilter(filters: readonly string[], nowMs: number): Matches {
  if (filters.length === 0) return () => true;
  const alternatives = filters.map((text) => oneFilter(text, nowMs));
  return (record) => alternatives.some((matches) => matches(record));
}

function oneFilter(text: string, nowMs: number): Matches {
  const parts: Matches[] = [];
  const rest: string[] = [];
  for (const field of csvFields(text)) {
    const part = comparison(field, nowMs);
    if (part === undefined) rest.push(field);
    else parts.push(part);
  }
  if (rest.length > 0) parts.push(fieldFilter(rest.join(","), text));
  return (record) => parts.every((matches) => matches(record));
}

function fieldFilter(text: string, whole: string): Matches {
  try {
    const filter = parseFilters([text]);
    return (record) => filter((path) => fieldOf(record, path[0] ?? ""));
  } catch (error) {
    if (!isBuildError(error)) throw error;
    throw new BuildError("invalid_argument", `failed to parse history filters ${whole}: ${error.message}`, {
      cause: error,
    });
  }
}

function comparison(field: string, nowMs: number): Matches | undefined {
  const operator = COMPARISONS.find((one) => field.includes(one));
  if (operator === undefined) return undefined;
  const at = field.indexOf(operator);
  const key = field.slice(0, at);
  const value = field.slice(at + operator.length);
  const read = VALUES[key];
  if (read === undefined) return undefined;
  const wanted = key === "duration" ? durationMs(value) : pointInTime(value, nowMs);
  return (record) => compare(operator, read(record), wanted);
}

const VALUES: Readonly<Record<string, ((record: BuildHistoryRecord) => number) | undefined>> = {
  startedAt: (record) => seconds(createdMs(record)),
  completedAt: (record) => seconds(record.CompletedAt === undefined ? 0 : timestampMs(record.CompletedAt)),
  duration: (record) =>
    record.CompletedAt === undefined ? 0 : timestampMs(record.CompletedAt) - createdMs(record),
};

/** When a build was started, in milliseconds since the epoch. */
export function createdMs(record: BuildHistoryRecord): number {
  return record.CreatedAt === undefined ? 0 : timestampMs(record.CreatedAt);
}

function compare(operator: (typeof COMPARISONS)[number], value: number, wanted: number): boolean {
  switch (operator) {
    case ">=":
      return value >= wanted;
    case "<=":
      return value <= wanted;
    case ">":
      return value > wanted;
    case "<":
      return value < wanted;
  }
}

function seconds(ms: number): number {
  return Math.floor(ms / 1000);
}

function durationMs(text: string): number {
  try {
    return parseDurationMs(text);
  } catch (error) {
    throw new BuildError("invalid_argument", `invalid duration ${text}`, { cause: error });
  }
}

/** A duration before now, or a time as RFC 3339 has it; in seconds. */
function pointInTime(text: string, nowMs: number): number {
  try {
    return seconds(nowMs - parseDurationMs(text));
  } catch {
    const ms = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$/.test(text)
      ? Date.parse(text)
      : Number.NaN;
    if (Number.isNaN(ms)) throw new BuildError("invalid_argument", `invalid time ${text}`);
    return seconds(ms);
  }
}

function fieldOf(record: BuildHistoryRecord, field: string): string | undefined {
  switch (field) {
    case "ref":
      return record.Ref === "" ? undefined : record.Ref;
    case "status":
      return statusOf(record);
    case "repository":
      return record.FrontendAttrs["vcs:source"] ?? remoteOf(record.FrontendAttrs["context"]);
    default:
      return undefined;
  }
}

function statusOf(record: BuildHistoryRecord): string {
  if (record.CompletedAt === undefined) return "running";
  if (record.error === undefined) return "completed";
  return record.error.message.includes("context canceled") ? "canceled" : "error";
}

/** The remote of a git context: its URL without the fragment. */
function remoteOf(context: string | undefined): string | undefined {
  if (context === undefined || !/^(https?|ssh|git):\/\/|^[\w.-]+@[\w.-]+:/.test(context)) return undefined;
  return context.replace(/[#?].*$/s, "");
}
