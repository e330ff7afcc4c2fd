/** A point in time: nanoseconds since the epoch, as precise as the wire has it. */
export type TimeNs = bigint;

/** Several vertices that are shown as one. */
export interface ProgressGroup {
  readonly id: string;
  readonly name: string;
  /** A weak member alone doesn't make the group visible. */
  readonly weak: boolean;
}

/** One step of a build, as one status message describes it. Later messages of one digest replace earlier ones. */
export interface VertexUpdate {
  readonly digest: string;
  readonly inputs: readonly string[];
  readonly name: string;
  readonly started?: TimeNs;
  readonly completed?: TimeNs;
  readonly cached: boolean;
  /** Empty: no error. */
  readonly error: string;
  readonly progressGroup?: ProgressGroup;
}

/** One line of progress below a vertex, such as the download of a layer. */
export interface VertexStatusUpdate {
  readonly id: string;
  readonly vertex: string;
  readonly name: string;
  /** Bytes; 0 where unknown. */
  readonly total: bigint;
  /** Bytes. */
  readonly current: bigint;
  readonly timestamp: TimeNs;
  readonly started?: TimeNs;
  readonly completed?: TimeNs;
}

/** A piece of a step's output: any bytes, split anywhere. */
export interface VertexLog {
  readonly vertex: string;
  /** 1: standard output, 2: standard error. */
  readonly stream: number;
  readonly data: Uint8Array;
  readonly timestamp: TimeNs;
}

/** A position in a file; lines count from 1, columns from 0. */
export interface SourcePosition {
  readonly line: number;
  readonly character: number;
}

/** From `start` to `end`, both included. */
export interface SourceRange {
  readonly start: SourcePosition;
  readonly end: SourcePosition;
}

/** A file that a message points into. */
export interface SourceFile {
  readonly filename: string;
  readonly data: Uint8Array;
  readonly language: string;
}

/** A warning of a frontend or a source. */
export interface VertexWarning {
  readonly vertex: string;
  readonly level: number;
  readonly short: Uint8Array;
  readonly detail: readonly Uint8Array[];
  readonly url: string;
  readonly source?: SourceFile;
  readonly ranges: readonly SourceRange[];
}

/** One message of a build's status stream. */
export interface SolveStatus {
  readonly vertexes: readonly VertexUpdate[];
  readonly statuses: readonly VertexStatusUpdate[];
  readonly logs: readonly VertexLog[];
  readonly warnings: readonly VertexWarning[];
}

/** A status message with only some of its lists. */
export function solveStatus(parts: Partial<SolveStatus>): SolveStatus {
  return { vertexes: [], statuses: [], logs: [], warnings: [], ...parts };
}

/** Nanoseconds of a clock that counts milliseconds. */
export function timeNsFromMs(ms: number): TimeNs {
  return BigInt(Math.round(ms * 1e6));
}

/** Seconds between two times. */
export function secondsBetween(from: TimeNs, to: TimeNs): number {
  return Number(to - from) / 1e9;
}
