import type { JobProgress, ProgressEvent } from "./job-progress.ts";
import type {
  LogProgress,
  ProgressGroup,
  ProgressWriter,
  StatusProgress,
  StatusUpdate,
  VertexProgress,
  WarningProgress,
  WarningUpdate,
} from "./status.ts";

/** Log output of one vertex that is kept for jobs that join later; the oldest goes first. */
const MAX_REPLAYED_LOG_BYTES = 2 << 20;

/** What a {@link ProgressSource} is made of. */
export interface ProgressSourceInit {
  readonly digest: string;
  readonly name: string;
  readonly inputs: readonly string[];
  readonly progressGroup?: ProgressGroup | undefined;
  /** The jobs to tell at this moment. */
  readonly targets: () => Iterable<JobProgress>;
  /** Milliseconds since the epoch. */
  readonly now: () => number;
}

/** Progress of one vertex, told to all jobs that need it. One that joins late is told everything. */
export class ProgressSource implements ProgressWriter {
  readonly #init: ProgressSourceInit;
  #vertex: VertexProgress;
  readonly #statuses = new Map<string, StatusProgress>();
  readonly #logs: LogProgress[] = [];
  #logBytes = 0;
  /** How many keep a vertex running that was done. */
  #resumed = 0;
  readonly #warnings: WarningProgress[] = [];

  constructor(init: ProgressSourceInit) {
    this.#init = init;
    const { digest, inputs, name, progressGroup } = init;
    this.#vertex = { digest, inputs, name, progressGroup, cached: false };
  }

  /** Tells a job all there is, unless it knows. */
  announce(job: JobProgress): void {
    if (!job.meets(this)) return;
    job.push({ kind: "vertex", value: this.#vertex });
    for (const value of this.#statuses.values()) job.push({ kind: "status", value });
    for (const value of this.#logs) job.push({ kind: "log", value });
    for (const value of this.#warnings) job.push({ kind: "warning", value });
  }

  /** The vertex begins (again); `cached` when its result is being taken from a cache. */
  start(cached: boolean): void {
    const { completedMs: _, error: __, ...rest } = this.#vertex;
    this.#setVertex({ ...rest, cached, startedMs: this.#init.now() });
  }

  /** The vertex is done; `error` is the text of what it failed with. */
  complete(cached: boolean, error?: string): void {
    this.#setVertex({ ...this.#vertex, cached, completedMs: this.#init.now(), error });
  }

  resume(): (error?: string) => void {
    const { startedMs, completedMs } = this.#vertex;
    if (this.#resumed === 0 && startedMs !== undefined && completedMs === undefined) return () => undefined;
    if (this.#resumed++ === 0) this.start(false);
    return (error) => {
      if (--this.#resumed === 0) this.complete(false, error);
    };
  }

  status(update: StatusUpdate): void {
    const value: StatusProgress = {
      id: update.id,
      vertex: this.#init.digest,
      name: update.name ?? "",
      current: update.current ?? 0,
      total: update.total ?? 0,
      timestampMs: this.#init.now(),
      startedMs: update.startedMs,
      completedMs: update.completedMs,
    };
    this.#tell({ kind: "status", value }, () => this.#statuses.set(value.id, value));
  }

  log(stream: 1 | 2, data: Uint8Array): void {
    const value: LogProgress = { vertex: this.#init.digest, stream, data, timestampMs: this.#init.now() };
    this.#tell({ kind: "log", value }, () => {
      this.#logs.push(value);
      this.#logBytes += data.length;
      while (this.#logBytes > MAX_REPLAYED_LOG_BYTES && this.#logs.length > 1) {
        this.#logBytes -= this.#logs.shift()!.data.length;
      }
    });
  }

  warning(update: WarningUpdate): void {
    const { level, vertex, ...rest } = update;
    const value: WarningProgress = { ...rest, level: level ?? 1, vertex: vertex ?? this.#init.digest };
    this.#tell({ kind: "warning", value }, () => this.#warnings.push(value));
  }

  #setVertex(value: VertexProgress): void {
    this.#tell({ kind: "vertex", value }, () => {
      this.#vertex = value;
    });
  }

  #tell(event: ProgressEvent, remember: () => void): void {
    const targets = [...this.#init.targets()];
    for (const job of targets) this.announce(job);
    remember();
    for (const job of targets) job.push(event);
  }
}
