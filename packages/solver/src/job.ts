import type { CachedResult } from "./cached-result.ts";
import type { Holder, OpState } from "./core/op-state.ts";
import { canceledError } from "./failure.ts";
import { JobProgress } from "./progress/job-progress.ts";
import type { SolveStatus } from "./progress/status.ts";
import { JobResolverCache } from "./resolver-cache.ts";
import type { BuildOptions, Edge, InternalVertex, OpContext, OpRunner, Vertex } from "./types.ts";

/** What a job needs of its solver. */
export interface JobHost<TOp, TResult> {
  build(job: Job<TOp, TResult>, edge: Edge<TOp>, opts: BuildOptions<TResult>): Promise<CachedResult<TResult>>;
  inVertex<T>(
    job: Job<TOp, TResult>,
    vertex: InternalVertex,
    fn: (ctx: OpContext<TOp, TResult>) => Promise<T>,
    signal: AbortSignal,
  ): Promise<T>;
  discard(job: Job<TOp, TResult>): void;
  runners(job: Job<TOp, TResult>, edge: Edge<TOp>): RanVertex<TOp, TResult>[];
  now(): number;
}

/** A vertex with the runner that it was given, if any work of it was asked for. */
export interface RanVertex<TOp, TResult> {
  readonly vertex: Vertex<TOp>;
  readonly runner: OpRunner<TOp, TResult> | undefined;
}

/** What a {@link Job} is made of. */
export interface JobInit {
  readonly id: string;
  readonly uniqueId: string;
  readonly serial: number;
  readonly sessionId: string;
}

/**
 * One client request. It keeps what it has loaded active until it is discarded; its status can be read
 * until 10 seconds after that.
 */
export class Job<TOp, TResult> implements Holder<TOp, TResult> {
  readonly id: string;
  /** Random; unlike `id` not of the client's choosing. */
  readonly uniqueId: string;
  /** Jobs are numbered in the order of their making. */
  readonly serial: number;
  readonly startedMs: number;
  /** `""` for none. */
  sessionId: string;
  readonly resolverCache = new JobResolverCache();
  readonly held = new Set<OpState<TOp, TResult>>();
  readonly progress = new JobProgress();
  /** How often the job has given something up: a build, or everything. */
  departures = 0;
  readonly cleanups: (() => void | Promise<void>)[] = [];
  readonly #host: JobHost<TOp, TResult>;
  readonly #values = new Map<string, unknown>();
  readonly #end = new AbortController();
  #completedMs: number | undefined;

  constructor(host: JobHost<TOp, TResult>, init: JobInit) {
    this.#host = host;
    this.id = init.id;
    this.uniqueId = init.uniqueId;
    this.serial = init.serial;
    this.sessionId = init.sessionId;
    this.startedMs = host.now();
  }

  /** Aborts when the job is discarded. */
  get signal(): AbortSignal {
    return this.#end.signal;
  }

  /**
   * Solves an edge. The caller releases the result.
   *
   * @throws what the failing vertex threw, see {@link failedVertex}; the reason of `opts.signal`.
   */
  build(edge: Edge<TOp>, opts: BuildOptions<TResult> = {}): Promise<CachedResult<TResult>> {
    return this.#host.build(this, edge, opts);
  }

  /** All progress from the job's first moment; ends when the job does. */
  status(signal: AbortSignal): AsyncGenerator<SolveStatus> {
    return this.progress.read(signal, () => this.#host.now());
  }

  /** Runs `fn` as a vertex of its own that is no vertex of the graph: "[internal] load …", exporters. */
  inVertex<T>(
    vertex: InternalVertex,
    fn: (ctx: OpContext<TOp, TResult>) => Promise<T>,
    signal?: AbortSignal,
  ): Promise<T> {
    const both = signal ? AbortSignal.any([signal, this.signal]) : this.signal;
    return this.#host.inVertex(this, vertex, fn, both);
  }

  /** The vertices that an edge was solved with, inputs first. */
  runners(edge: Edge<TOp>): RanVertex<TOp, TResult>[] {
    return this.#host.runners(this, edge);
  }

  setValue(key: string, value: unknown): void {
    this.#values.set(key, value);
  }

  getValue(key: string): unknown {
    return this.#values.get(key);
  }

  /** Runs `fn` when the job is discarded. */
  cleanup(fn: () => void | Promise<void>): void {
    this.cleanups.push(fn);
  }

  /** The moment of the first call. */
  completedMs(): number {
    this.#completedMs ??= this.#host.now();
    return this.#completedMs;
  }

  /** Ends the progress, so that readers of the status finish; the job stays. */
  closeProgress(): void {
    this.progress.close();
  }

  /** Cancels open builds and lets go of everything. Again does nothing. */
  discard(): void {
    if (this.signal.aborted) return;
    this.departures++;
    this.#host.discard(this);
    this.#end.abort(canceledError());
  }

  [Symbol.dispose](): void {
    this.discard();
  }
}
