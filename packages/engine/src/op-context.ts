import type { SessionGroup } from "@kiln/session";

/** A unit of work shown below a step: a layer being pulled, a file being sent. */
export interface StatusUpdate {
  /** Unique within the step, e.g. a layer's digest or `transferring context:`. */
  readonly id: string;
  /** What is being done: `downloading`, `extracting`, `done` …; the id when absent. */
  readonly action?: string;
  readonly current?: number;
  readonly total?: number;
  /** Milliseconds since the epoch. */
  readonly startedAt?: number;
  readonly completedAt?: number;
}

/** A warning that belongs to a step; fields as in BuildKit's `VertexWarning`. */
export interface StepWarning {
  readonly level: number;
  readonly short: string;
  readonly detail?: readonly string[];
  readonly url?: string;
}

/** Where a step tells what it does; every job that needs the step hears it. */
export interface Progress {
  status(update: StatusUpdate): void;
  /** `stream`: 1 is stdout, 2 is stderr. */
  log(stream: 1 | 2, data: Uint8Array): void;
  warn(warning: StepWarning): void;
}

/** What everything gets that works on behalf of builds. */
export interface OpContext {
  readonly signal: AbortSignal;
  /** Clients of the builds that need this work, as of the moment of asking. */
  readonly sessions: SessionGroup;
  readonly progress: Progress;
}

/** Reports `id` as started, runs `work`, and reports its end, whatever that is. */
export async function withStatus<T>(progress: Progress, id: string, work: () => Promise<T>): Promise<T> {
  const startedAt = Date.now();
  progress.status({ id, startedAt });
  try {
    return await work();
  } finally {
    progress.status({ id, startedAt, completedAt: Date.now() });
  }
}
