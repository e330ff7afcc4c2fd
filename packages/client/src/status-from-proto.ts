import type { StatusResponse, Vertex, VertexStatus, VertexWarning } from "@kiln/api/control";
import type { Range, SourceInfo } from "@kiln/api/pb";
import type {
  SolveStatus,
  SourceFile,
  SourceRange,
  TimeNs,
  VertexStatusUpdate,
  VertexUpdate,
  VertexWarning as Warning,
} from "@kiln/progress";

type Timestamp = { readonly seconds: bigint; readonly nanos: number };

/** One message of a status stream in the form that displays take. */
export function statusFromProto(response: StatusResponse): SolveStatus {
  return {
    vertexes: response.vertexes.map(vertexOf),
    statuses: response.statuses.map(statusOf),
    logs: response.logs.map((log) => ({
      vertex: log.vertex,
      stream: Number(log.stream),
      data: log.msg,
      timestamp: timeOf(log.timestamp) ?? 0n,
    })),
    warnings: response.warnings.map(warningOf),
  };
}

/** Nanoseconds of a protobuf timestamp. */
export function timeOf(time: Timestamp | undefined): TimeNs | undefined {
  return time === undefined ? undefined : time.seconds * 1_000_000_000n + BigInt(time.nanos);
}

/** Ranges in the form that excerpts take. */
export function rangesFromProto(ranges: readonly Range[]): SourceRange[] {
  const at = (position: Range["start"]): SourceRange["start"] => ({
    line: position?.line ?? 0,
    character: position?.character ?? 0,
  });
  return ranges.map((range) => ({ start: at(range.start), end: at(range.end) }));
}

/** A source file in the form that excerpts take. */
export function sourceFromProto(info: SourceInfo): SourceFile {
  return { filename: info.filename, data: info.data, language: info.language };
}

function vertexOf(vertex: Vertex): VertexUpdate {
  const started = timeOf(vertex.started);
  const completed = timeOf(vertex.completed);
  const group = vertex.progressGroup;
  return {
    digest: vertex.digest,
    inputs: vertex.inputs,
    name: vertex.name,
    cached: vertex.cached,
    error: vertex.error,
    ...(started === undefined ? {} : { started }),
    ...(completed === undefined ? {} : { completed }),
    ...(group === undefined ? {} : { progressGroup: { id: group.id, name: group.name, weak: group.weak } }),
  };
}

function statusOf(status: VertexStatus): VertexStatusUpdate {
  const started = timeOf(status.started);
  const completed = timeOf(status.completed);
  return {
    id: status.ID,
    vertex: status.vertex,
    name: status.name,
    total: status.total,
    current: status.current,
    timestamp: timeOf(status.timestamp) ?? 0n,
    ...(started === undefined ? {} : { started }),
    ...(completed === undefined ? {} : { completed }),
  };
}

function warningOf(warning: VertexWarning): Warning {
  return {
    vertex: warning.vertex,
    level: Number(warning.level),
    short: warning.short,
    detail: warning.detail,
    url: warning.url,
    ranges: rangesFromProto(warning.ranges),
    ...(warning.info === undefined ? {} : { source: sourceFromProto(warning.info) }),
  };
}
