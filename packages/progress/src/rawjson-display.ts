import { goJson } from "@kiln/formats";
import type { Display, ProgressOutput } from "./display.ts";
import type { SolveStatus, SourceFile, SourceRange, TimeNs } from "./status.ts";

/** Makes a display that prints every status message as one line of JSON, for programs. */
export function createRawJsonDisplay(output: ProgressOutput): Display {
  return {
    update: (status) => output.write(`${statusJson(status)}\n`),
    refresh: () => undefined,
    done: () => undefined,
  };
}

/** One status message as BuildKit's clients write it: keys in their order, empty ones left out. */
export function statusJson(status: SolveStatus): string {
  return goJson({
    vertexes: listOf(status.vertexes, (vertex) => ({
      digest: vertex.digest || undefined,
      inputs: vertex.inputs.length > 0 ? [...vertex.inputs] : undefined,
      name: vertex.name || undefined,
      started: timeJson(vertex.started),
      completed: timeJson(vertex.completed),
      cached: vertex.cached || undefined,
      error: vertex.error || undefined,
      progressGroup: vertex.progressGroup && {
        id: vertex.progressGroup.id || undefined,
        name: vertex.progressGroup.name || undefined,
        weak: vertex.progressGroup.weak || undefined,
      },
    })),
    statuses: listOf(status.statuses, (item) => ({
      id: item.id,
      vertex: item.vertex || undefined,
      name: item.name || undefined,
      total: item.total || undefined,
      current: item.current,
      timestamp: timeJson(item.timestamp),
      started: timeJson(item.started),
      completed: timeJson(item.completed),
    })),
    logs: listOf(status.logs, (log) => ({
      vertex: log.vertex || undefined,
      stream: log.stream || undefined,
      data: log.data,
      timestamp: timeJson(log.timestamp),
    })),
    warnings: listOf(status.warnings, warningJson),
  });
}

/** One warning, as in `rawjson` progress and in a metadata file. */
export function warningJson(warning: SolveStatus["warnings"][number]): unknown {
  return {
    vertex: warning.vertex || undefined,
    level: warning.level || undefined,
    short: warning.short.length > 0 ? warning.short : undefined,
    detail: warning.detail.length > 0 ? warning.detail : undefined,
    url: warning.url || undefined,
    sourceInfo: warning.source && sourceJson(warning.source),
    range: warning.ranges.length > 0 ? warning.ranges.map(rangeJson) : undefined,
  };
}

function sourceJson(source: SourceFile): unknown {
  return {
    filename: source.filename || undefined,
    data: source.data.length > 0 ? source.data : undefined,
    language: source.language || undefined,
  };
}

function rangeJson(range: SourceRange): unknown {
  const position = ({ line, character }: SourceRange["start"]): unknown => ({
    line: line || undefined,
    character: character || undefined,
  });
  return { start: position(range.start), end: position(range.end) };
}

function listOf<T>(items: readonly T[], fn: (item: T) => unknown): unknown {
  return items.length > 0 ? items.map(fn) : undefined;
}

/** RFC 3339 in UTC with as many digits of the second as are needed. */
function timeJson(time: TimeNs | undefined): string | undefined {
  if (time === undefined) return undefined;
  const nanos = ((time % 1_000_000_000n) + 1_000_000_000n) % 1_000_000_000n;
  const seconds = (time - nanos) / 1_000_000_000n;
  const whole = new Date(Number(seconds) * 1000).toISOString().slice(0, 19);
  const fraction = nanos.toString().padStart(9, "0").replace(/0+$/, "");
  return fraction === "" ? `${whole}Z` : `${whole}.${fraction}Z`;
}
