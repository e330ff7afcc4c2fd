import { create } from "@bufbuild/protobuf";
import { type Timestamp, timestampFromMs } from "@bufbuild/protobuf/wkt";
import {
  type StatusResponse,
  StatusResponseSchema,
  VertexLogSchema,
  VertexSchema,
  VertexStatusSchema,
  VertexWarningSchema,
} from "@kiln/api/control";
import { ProgressGroupSchema, RangeSchema, type SourceInfo } from "@kiln/api/pb";
import type { SolveStatus, StatusProgress, VertexProgress, WarningProgress } from "@kiln/solver";

/** Log bytes in one message; what is over goes into another (buildkit.md §2.1). */
const MAX_LOG_BYTES = 1 << 20;

function time(ms: number | undefined): Timestamp | undefined {
  if (ms === undefined) return undefined;
  const stamp = timestampFromMs(Math.floor(ms));
  // the solver's clock is finer than a millisecond
  stamp.nanos += Math.round((ms - Math.floor(ms)) * 1e6);
  return stamp;
}

/** A batch of progress as messages. */
export function statusResponses(status: SolveStatus): StatusResponse[] {
  const encoder = new TextEncoder();
  const first = create(StatusResponseSchema, {
    vertexes: status.vertexes.map(vertexMessage),
    statuses: status.statuses.map(statusMessage),
    warnings: status.warnings.map((warning) => warningMessage(warning, encoder)),
  });
  const messages = [first];
  let at = first;
  let bytes = 0;
  for (const log of status.logs) {
    if (bytes > 0 && bytes + log.data.length > MAX_LOG_BYTES) {
      at = create(StatusResponseSchema);
      messages.push(at);
      bytes = 0;
    }
    bytes += log.data.length;
    at.logs.push(
      create(VertexLogSchema, {
        vertex: log.vertex,
        stream: BigInt(log.stream),
        msg: log.data,
        ...optional("timestamp", time(log.timestampMs)),
      }),
    );
  }
  return messages;
}

function vertexMessage(vertex: VertexProgress) {
  const group = vertex.progressGroup;
  return create(VertexSchema, {
    digest: vertex.digest,
    inputs: [...vertex.inputs],
    name: vertex.name,
    cached: vertex.cached,
    error: vertex.error ?? "",
    ...optional("started", time(vertex.startedMs)),
    ...optional("completed", time(vertex.completedMs)),
    ...(group === undefined
      ? {}
      : {
          progressGroup: create(ProgressGroupSchema, {
            id: group.id,
            name: group.name,
            weak: group.weak ?? false,
          }),
        }),
  });
}

function statusMessage(status: StatusProgress) {
  return create(VertexStatusSchema, {
    ID: status.id,
    vertex: status.vertex,
    name: status.name,
    current: BigInt(Math.floor(status.current)),
    total: BigInt(Math.floor(status.total)),
    ...optional("timestamp", time(status.timestampMs)),
    ...optional("started", time(status.startedMs)),
    ...optional("completed", time(status.completedMs)),
  });
}

function warningMessage(warning: WarningProgress, encoder: TextEncoder) {
  return create(VertexWarningSchema, {
    vertex: warning.vertex,
    level: BigInt(warning.level),
    short: encoder.encode(warning.short),
    detail: (warning.detail ?? []).map((line) => encoder.encode(line)),
    url: warning.url ?? "",
    ...(warning.sourceInfo === undefined ? {} : { info: warning.sourceInfo as SourceInfo }),
    ranges: (warning.ranges ?? []).map((range) => create(RangeSchema, range)),
  });
}

function optional<K extends string, V>(key: K, value: V | undefined): { [P in K]?: V } {
  return (value === undefined ? {} : { [key]: value }) as { [P in K]?: V };
}
