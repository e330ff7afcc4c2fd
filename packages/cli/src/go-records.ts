/** Records of a daemon as Go templates and JSON show them. */
import type {
  BuildHistoryEvent,
  BuildHistoryRecord,
  BuildResultInfo,
  Descriptor,
  UsageRecord,
} from "@kiln/api/control";
import type { BuildkitVersion, WorkerRecord } from "@kiln/api/worker";
import { timeOf } from "@kiln/client";
import { goJson, parseTemplate } from "@kiln/formats";
import type { TimeNs } from "@kiln/progress";

/** A record under its Go field names, with the JSON that Go writes for it. */
export interface GoRecord {
  readonly fields: object;
  readonly json: unknown;
}

const jsonOf = new WeakMap<object, unknown>();

/** Remembers the JSON of records, so that `{{json .}}` finds it. */
function register(record: GoRecord): object {
  jsonOf.set(record.fields, record.json);
  return record.fields;
}

/** Runs a `--format` template on a record or on a list of records. */
export function runFormat(format: string, records: GoRecord | readonly GoRecord[]): string {
  const data = Array.isArray(records) ? records.map(register) : register(records as GoRecord);
  const json = (value: unknown): string => goJson(toJson(value), { escapeHtml: false });
  return parseTemplate(format === "json" ? "{{json .}}" : format, { functions: { json } }).run(data);
}

function toJson(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(toJson);
  return typeof value === "object" && value !== null && jsonOf.has(value) ? jsonOf.get(value) : value;
}

/** A time as Go prints it: `2026-11-21 13:45:39.069087658 +0000 UTC`. */
export function goTime(time: TimeNs): string {
  const [date, clock] = rfc3339(time).slice(0, -1).split("T");
  return `${date} ${clock} +0000 UTC`;
}

/** A time as Go's JSON has it: RFC 3339 in UTC with the digits that are needed. */
export function rfc3339(time: TimeNs): string {
  const nanos = time % 1_000_000_000n;
  const whole = new Date(Number((time - nanos) / 1_000_000n)).toISOString().slice(0, 19);
  const fraction = nanos.toString().padStart(9, "0").replace(/0+$/, "");
  return fraction === "" ? `${whole}Z` : `${whole}.${fraction}Z`;
}

const ZERO_TIME = "0001-01-01T00:00:00Z";

/** A record of the build cache. */
export function usageRecord(record: UsageRecord): GoRecord {
  const created = timeOf(record.CreatedAt);
  const used = timeOf(record.LastUsedAt);
  const parents = record.Parents.length > 0 ? record.Parents : record.Parent === "" ? null : [record.Parent];
  return {
    fields: {
      ID: record.ID,
      Mutable: record.Mutable,
      InUse: record.InUse,
      Size: record.Size,
      CreatedAt: created === undefined ? "0001-01-01 00:00:00 +0000 UTC" : goTime(created),
      LastUsedAt: used === undefined ? null : goTime(used),
      UsageCount: record.UsageCount,
      Parents: parents ?? [],
      Description: record.Description,
      RecordType: record.RecordType,
      Shared: record.Shared,
    },
    json: {
      id: record.ID,
      mutable: record.Mutable,
      inUse: record.InUse,
      size: record.Size,
      createdAt: created === undefined ? ZERO_TIME : rfc3339(created),
      lastUsedAt: used === undefined ? null : rfc3339(used),
      usageCount: record.UsageCount,
      parents,
      description: record.Description,
      recordType: record.RecordType,
      shared: record.Shared,
    },
  };
}

/** Records of the build cache in the order in which tools print them: by size, then by id. */
export function sortUsage(records: readonly UsageRecord[]): UsageRecord[] {
  return [...records].sort((a, b) => (a.Size < b.Size ? -1 : a.Size > b.Size ? 1 : a.ID < b.ID ? -1 : 1));
}

/** A GC rule as JSON. */
export function gcPolicyJson(rule: WorkerRecord["GCPolicy"][number]): unknown {
  return {
    all: rule.all,
    filter: rule.filters.length > 0 ? rule.filters : null,
    keepDuration: rule.keepDuration,
    reservedSpace: rule.reservedSpace,
    maxUsedSpace: rule.maxUsedSpace,
    minFreeSpace: rule.minFreeSpace,
  };
}

/** A worker. */
export function workerRecord(worker: WorkerRecord): GoRecord {
  const platforms = worker.platforms.map((platform) => ({
    architecture: platform.Architecture,
    os: platform.OS,
    "os.version": platform.OSVersion || undefined,
    variant: platform.Variant || undefined,
  }));
  const version = versionRecord(worker.BuildkitVersion);
  return {
    fields: {
      ID: worker.ID,
      Labels: new Map(Object.entries(worker.Labels)),
      Platforms: worker.platforms.map(({ OS, Architecture, Variant, OSVersion }) => ({
        OS,
        Architecture,
        Variant,
        OSVersion,
      })),
      GCPolicy: worker.GCPolicy,
      BuildkitVersion: register(version),
      CDIDevices: worker.CDIDevices,
    },
    json: {
      id: worker.ID,
      labels: new Map(Object.entries(worker.Labels)),
      platforms,
      gcPolicy: worker.GCPolicy.length > 0 ? worker.GCPolicy.map(gcPolicyJson) : null,
      buildkitVersion: version.json,
      cdiDevices:
        worker.CDIDevices.length > 0
          ? worker.CDIDevices.map((device) => ({
              name: device.Name,
              autoAllow: device.AutoAllow,
              annotations: new Map(Object.entries(device.Annotations)),
              onDemand: device.OnDemand,
            }))
          : null,
    },
  };
}

/** A daemon's version. */
export function versionRecord(version: BuildkitVersion | undefined): GoRecord {
  const { package: name = "", version: number = "", revision = "", dockerfileVersion = "" } = version ?? {};
  return {
    fields: { Package: name, Version: number, Revision: revision, DockerfileVersion: dockerfileVersion },
    json: {
      package: name,
      version: number,
      revision,
      dockerfileVersion: dockerfileVersion || undefined,
    },
  };
}

/** An event of the build history, as its protobuf struct prints as JSON. */
export function historyEvent(event: BuildHistoryEvent): GoRecord {
  const record = event.record && historyRecord(event.record);
  return {
    fields: { Type: event.type, Record: record ? register(record) : null },
    json: { type: event.type || undefined, record: record?.json },
  };
}

/** A record of a build, likewise. */
export function historyRecord(record: BuildHistoryRecord): GoRecord {
  const text = (value: string): string | undefined => value || undefined;
  const time = (value: BuildHistoryRecord["CreatedAt"]): unknown =>
    value && { seconds: value.seconds || undefined, nanos: value.nanos || undefined };
  const json = {
    Ref: text(record.Ref),
    Frontend: text(record.Frontend),
    FrontendAttrs: mapOf(record.FrontendAttrs),
    Exporters:
      record.Exporters.length > 0
        ? record.Exporters.map(({ Type, Attrs }) => ({ Type: text(Type), Attrs: mapOf(Attrs) }))
        : undefined,
    error: record.error && { code: record.error.code || undefined, message: text(record.error.message) },
    CreatedAt: time(record.CreatedAt),
    CompletedAt: time(record.CompletedAt),
    logs: descriptorJson(record.logs),
    ExporterResponse: mapOf(record.ExporterResponse),
    Result: resultJson(record.Result),
    Results: mapOf(record.Results, resultJson),
    Generation: record.Generation || undefined,
    trace: descriptorJson(record.trace),
    pinned: record.pinned || undefined,
    numCachedSteps: record.numCachedSteps || undefined,
    numTotalSteps: record.numTotalSteps || undefined,
    numCompletedSteps: record.numCompletedSteps || undefined,
    externalError: descriptorJson(record.externalError),
    numWarnings: record.numWarnings || undefined,
  };
  const fields = {
    ...record,
    FrontendAttrs: new Map(Object.entries(record.FrontendAttrs)),
    ExporterResponse: new Map(Object.entries(record.ExporterResponse)),
    NumCachedSteps: record.numCachedSteps,
    NumTotalSteps: record.numTotalSteps,
    NumCompletedSteps: record.numCompletedSteps,
    NumWarnings: record.numWarnings,
    Pinned: record.pinned,
    Logs: record.logs,
    Trace: record.trace,
    Error: record.error,
  };
  return { fields, json };
}

function descriptorJson(descriptor: Descriptor | undefined): unknown {
  return (
    descriptor && {
      media_type: descriptor.mediaType || undefined,
      digest: descriptor.digest || undefined,
      size: descriptor.size || undefined,
      annotations: mapOf(descriptor.annotations),
    }
  );
}

function resultJson(result: BuildResultInfo | undefined): unknown {
  return (
    result && {
      ResultDeprecated: descriptorJson(result.ResultDeprecated),
      Attestations: result.Attestations.length > 0 ? result.Attestations.map(descriptorJson) : undefined,
      Results: mapOf(result.Results, descriptorJson),
    }
  );
}

function mapOf<T>(
  record: Readonly<Record<string, T>>,
  convert: (value: T) => unknown = (value) => value,
): unknown {
  const entries = Object.entries(record);
  return entries.length === 0 ? undefined : new Map(entries.map(([key, value]) => [key, convert(value)]));
}
