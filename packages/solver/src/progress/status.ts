/** A box in which UIs draw several vertices as one. */
export interface ProgressGroup {
  readonly id: string;
  readonly name: string;
  readonly weak?: boolean | undefined;
}

/** State of a vertex. All times are milliseconds since the epoch. */
export interface VertexProgress {
  readonly digest: string;
  readonly inputs: readonly string[];
  readonly name: string;
  readonly cached: boolean;
  readonly startedMs?: number | undefined;
  readonly completedMs?: number | undefined;
  readonly error?: string | undefined;
  readonly progressGroup?: ProgressGroup | undefined;
}

/** State of one transfer or action inside a vertex. */
export interface StatusProgress {
  readonly id: string;
  readonly vertex: string;
  /** The action: `downloading`, `extracting`, `done` … */
  readonly name: string;
  readonly current: number;
  readonly total: number;
  readonly timestampMs: number;
  readonly startedMs?: number | undefined;
  readonly completedMs?: number | undefined;
}

/** Output of a vertex. */
export interface LogProgress {
  readonly vertex: string;
  /** 1 is stdout, 2 stderr. */
  readonly stream: number;
  readonly data: Uint8Array;
  readonly timestampMs: number;
}

/** A place in a user's file. Lines from 1, characters from 0. */
export interface WarningRange {
  readonly start: { readonly line: number; readonly character: number };
  readonly end: { readonly line: number; readonly character: number };
}

/** What a user is warned of. */
export interface WarningProgress {
  readonly vertex: string;
  readonly level: number;
  readonly short: string;
  readonly detail?: readonly string[] | undefined;
  readonly url?: string | undefined;
  /** File that `ranges` point into; opaque to the solver. */
  readonly sourceInfo?: unknown;
  readonly ranges?: readonly WarningRange[] | undefined;
}

/** What happened in a job since the last batch. */
export interface SolveStatus {
  readonly vertexes: readonly VertexProgress[];
  readonly statuses: readonly StatusProgress[];
  readonly logs: readonly LogProgress[];
  readonly warnings: readonly WarningProgress[];
}

/** A status as its writer gives it; vertex and timestamp are filled in. */
export interface StatusUpdate {
  readonly id: string;
  readonly name?: string | undefined;
  readonly current?: number | undefined;
  readonly total?: number | undefined;
  readonly startedMs?: number | undefined;
  readonly completedMs?: number | undefined;
}

/** A warning as its writer gives it; `level` is 1 unless given. */
export type WarningUpdate = Omit<WarningProgress, "vertex" | "level"> & {
  readonly level?: number | undefined;
  /** Another vertex than the writer's own. */
  readonly vertex?: string | undefined;
};

/** Reports on one vertex to every job that needs it. */
export interface ProgressWriter {
  /**
   * Shows the vertex as running (again) until what is returned is called, once; nothing changes for one that
   * runs anyway.
   */
  resume(): (error?: string) => void;
  status(update: StatusUpdate): void;
  log(stream: 1 | 2, data: Uint8Array): void;
  warning(update: WarningUpdate): void;
}
