/** Finds build records on the nodes of a builder. */
import { BuildHistoryEventType, type BuildHistoryRecord } from "@kiln/api/control";
import { BuildError } from "@kiln/base";
import { type BuildkitClient, timeOf } from "@kiln/client";
import type { Builder, BuilderNode, BuilderRegistry } from "@kiln/driver";
import { formatCsvFields, parseDuration } from "@kiln/formats";
import type { TimeNs } from "@kiln/progress";
import { openRegistry } from "../builders/open-registry.ts";
import type { CommandContext } from "../command/command.ts";
import { usageError } from "../command/flags.ts";
import { buildName } from "./build-name.ts";

const RECORD_LIMIT = 50;

/** A record and where it is. */
export interface FoundRecord {
  readonly record: BuildHistoryRecord;
  readonly node: BuilderNode;
  readonly client: BuildkitClient;
  readonly name: string;
  /** The daemon's time, to measure builds that run. */
  readonly nowNs: TimeNs | undefined;
}

/** The nodes of a command's builder, booted. */
export interface HistoryNodes extends AsyncDisposable {
  readonly registry: BuilderRegistry;
  readonly builder: Builder;
  readonly clients: readonly { readonly node: BuilderNode; readonly client: BuildkitClient }[];
}

/** Connects to all nodes of the command's builder. */
export async function openNodes(ctx: CommandContext): Promise<HistoryNodes> {
  const registry = openRegistry(ctx);
  const builder = registry.find(ctx.flags.string("builder"));
  const clients = await Promise.all(
    builder.nodes.map(async (node) => ({ node, client: await node.driver.boot({ signal: ctx.signal }) })),
  );
  return {
    registry,
    builder,
    clients,
    async [Symbol.asyncDispose]() {
      await Promise.all(builder.nodes.map((node) => node.close()));
    },
  };
}

/**
 * Records, the newest first. `reference` is empty for all, a name, or `^n` for the n-th newest.
 */
export async function queryRecords(
  nodes: HistoryNodes,
  reference: string,
  opts: {
    readonly filters?: readonly string[];
    /** Leaves out builds that run. */
    readonly completedOnly?: boolean;
    readonly signal: AbortSignal;
  },
): Promise<FoundRecord[]> {
  const offset = /^\^(.*)$/.exec(reference)?.[1];
  if (offset !== undefined && !/^\d{1,6}$/.test(offset))
    throw usageError(`invalid offset ${JSON.stringify(reference)}`);
  const ref = offset === undefined ? (reference.split("/").at(-1) as string) : "";
  const filters = (opts.filters ?? []).map(readFilter);
  const perNode = await Promise.all(
    nodes.clients.map(async ({ node, client }) => {
      const found: FoundRecord[] = [];
      let nowNs: TimeNs | undefined;
      const request = {
        Ref: ref,
        EarlyExit: true,
        Limit: RECORD_LIMIT,
        Filter: filters.length > 0 ? [formatCsvFields(filters.map(({ text }) => text))] : [],
      };
      const events = client.history(request, {
        signal: opts.signal,
        onHeaders: (metadata) => {
          nowNs = parseTime(metadata.get("buildkit-current-timestamp"));
        },
      });
      for await (const { type, record } of events) {
        if (type === BuildHistoryEventType.DELETED || record === undefined) continue;
        if (opts.completedOnly && type !== BuildHistoryEventType.COMPLETE) continue;
        if (!filters.every(({ matches }) => matches(record))) continue;
        const place = nodes.registry.store.localState.read({
          builder: node.builder,
          node: node.name,
          id: record.Ref,
        });
        found.push({ record, node, client, name: buildName(record.FrontendAttrs, place), nowNs });
      }
      return found;
    }),
  );
  const all = perNode.flat().sort((a, b) => compareTimes(createdAt(b), createdAt(a)));
  if (offset === undefined) return all;
  const at = Number(offset);
  if (at >= all.length && at > 0) {
    throw new BuildError("not_found", `no completed build found with offset ${at - all.length}`);
  }
  return all.slice(at, at + 1);
}

/** The one record that a reference means. */
export async function findRecord(
  nodes: HistoryNodes,
  reference: string,
  signal: AbortSignal,
  opts: { readonly completedOnly?: boolean } = {},
): Promise<FoundRecord> {
  const [first] = await queryRecords(nodes, reference, { ...opts, signal });
  if (first) return first;
  throw new BuildError(
    "not_found",
    reference === "" ? "no records found" : `no record found for ref ${JSON.stringify(reference)}`,
  );
}

/** When a build began. */
export function createdAt({ record }: FoundRecord): TimeNs {
  return timeOf(record.CreatedAt) ?? 0n;
}

/** How long a build ran, or has been running; undefined when the daemon didn't tell its time. */
export function durationNs(found: FoundRecord): bigint | undefined {
  const end = timeOf(found.record.CompletedAt) ?? found.nowNs;
  return end === undefined ? undefined : end - createdAt(found);
}

/** `12.3s`, `3m  4s`. */
export function durationText(ns: bigint): string {
  const seconds = Number(ns) / 1e9;
  if (seconds < 60) return `${seconds.toFixed(1)}s`;
  return `${Math.trunc(seconds / 60)}m ${String(Math.trunc(seconds) % 60).padStart(2)}s`;
}

function parseTime(text: string | undefined): TimeNs | undefined {
  const match = /^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)$/.exec(text ?? "");
  if (!match) return undefined;
  const ms = Date.parse(`${match[1]}${match[3]}`);
  return BigInt(ms) * 1_000_000n + BigInt((match[2] ?? "").padEnd(9, "0"));
}

function compareTimes(a: TimeNs, b: TimeNs): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

interface Filter {
  /** The filter as the daemon takes it. */
  readonly text: string;
  /** For daemons that don't filter. */
  readonly matches: (record: BuildHistoryRecord) => boolean;
}

function readFilter(filter: string): Filter {
  const separator = ["!=", "=", "<=", "<", ">=", ">"].find((candidate) => filter.includes(candidate));
  if (separator === undefined) throw usageError(`invalid filter ${JSON.stringify(filter)}`);
  // "<=" and ">=" contain "=", which stands before them in the order above.
  const used =
    separator === "=" && /[<>]=/.test(filter) ? (/[<>]=/.exec(filter) as RegExpExecArray)[0] : separator;
  const at = filter.indexOf(used);
  const [key, value] = [filter.slice(0, at), filter.slice(at + used.length)];
  if (key === "ref" || key === "repository" || key === "status") {
    if (used !== "=" && used !== "!=") {
      throw usageError(`invalid separator for ${JSON.stringify(filter)}, expected = or !=`);
    }
    const operator = used === "!=" ? "!=" : key === "status" ? "==" : "~=";
    return {
      text: `${key}${operator}${value}`,
      matches: (record) => matchesValue(record, { key, operator, value }),
    };
  }
  if (key === "startedAt" || key === "completedAt" || key === "duration") {
    if (used === "=" || used === "!=") {
      throw usageError(`invalid separator for ${JSON.stringify(filter)}, expected <=, <, >= or >`);
    }
    const limit = readLimit(key, value);
    return { text: `${key}${used}${value}`, matches: (record) => matchesTime(record, { key, used, limit }) };
  }
  throw usageError(`unsupported filter ${JSON.stringify(filter)}`);
}

function matchesValue(
  record: BuildHistoryRecord,
  filter: { readonly key: string; readonly operator: string; readonly value: string },
): boolean {
  const actual = {
    ref: record.Ref,
    repository: record.FrontendAttrs["vcs:source"] ?? record.FrontendAttrs.context?.split("#")[0] ?? "",
    status: statusOf(record),
  }[filter.key] as string;
  if (filter.operator === "!=") return actual !== filter.value;
  return filter.operator === "==" ? actual === filter.value : actual.includes(filter.value);
}

/** `running`, `completed`, `error` or `canceled`. */
export function statusOf(record: BuildHistoryRecord): string {
  if (record.CompletedAt === undefined) return "running";
  if (record.error === undefined) return "completed";
  return record.error.message.includes("context canceled") ? "canceled" : "error";
}

function readLimit(key: string, value: string): bigint {
  try {
    const duration = parseDuration(value);
    return key === "duration" ? duration : BigInt(Date.now()) * 1_000_000n - duration;
  } catch {
    const time = key === "duration" ? undefined : parseTime(value);
    if (time !== undefined) return time;
    throw usageError(`invalid ${key === "duration" ? "duration" : "time"} ${value}`);
  }
}

function matchesTime(
  record: BuildHistoryRecord,
  filter: { readonly key: string; readonly used: string; readonly limit: bigint },
): boolean {
  const started = timeOf(record.CreatedAt) ?? 0n;
  const completed = timeOf(record.CompletedAt);
  const actual =
    filter.key === "startedAt"
      ? started
      : filter.key === "completedAt"
        ? (completed ?? 0n)
        : (completed ?? started) - started;
  switch (filter.used) {
    case ">=":
      return actual >= filter.limit;
    case "<=":
      return actual <= filter.limit;
    case ">":
      return actual > filter.limit;
    default:
      return actual < filter.limit;
  }
}
