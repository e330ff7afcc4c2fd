import type { CachedResult } from "./cached-result.ts";
import type { OpState } from "./core/op-state.ts";
import { digestOfText } from "./digest.ts";
import { progressErrorText } from "./failure.ts";
import type { Job } from "./job.ts";
import { ProgressSource } from "./progress/progress-source.ts";
import { combineResolverCaches } from "./resolver-cache.ts";
import type { SolverOptions } from "./solver.ts";
import type { BuildOptions, Edge, InternalVertex, OpContext, OpRunner } from "./types.ts";

/** What {@link OpContexts} needs of the solver. */
export interface ContextHost<TOp, TResult> {
  readonly options: SolverOptions<TOp, TResult>;
  now(): number;
  build(
    op: OpState<TOp, TResult>,
    edge: Edge<TOp>,
    opts: BuildOptions<TResult>,
  ): Promise<CachedResult<TResult>>;
  jobsOf(op: OpState<TOp, TResult>): Job<TOp, TResult>[];
}

interface OpParts<TOp, TResult> {
  readonly source: ProgressSource;
  runner: OpRunner<TOp, TResult> | undefined;
  cleanups: (() => void | Promise<void>)[];
}

/** What the shell keeps per active vertex, and what it hands to runners. */
export class OpContexts<TOp, TResult> {
  readonly #host: ContextHost<TOp, TResult>;
  readonly #parts = new WeakMap<OpState<TOp, TResult>, OpParts<TOp, TResult>>();

  constructor(host: ContextHost<TOp, TResult>) {
    this.#host = host;
  }

  get options(): SolverOptions<TOp, TResult> {
    return this.#host.options;
  }

  sourceOf(op: OpState<TOp, TResult>): ProgressSource {
    return this.#partsOf(op).source;
  }

  /** The vertex's runner, made now if need be. */
  runnerOf(op: OpState<TOp, TResult>): OpRunner<TOp, TResult> {
    const parts = this.#partsOf(op);
    parts.runner ??= this.options.resolveOp(op.vertex, op.metadata);
    return parts.runner;
  }

  knownRunner(op: OpState<TOp, TResult>): OpRunner<TOp, TResult> | undefined {
    return this.#parts.get(op)?.runner;
  }

  takeCleanups(op: OpState<TOp, TResult>): (() => void | Promise<void>)[] {
    const parts = this.#partsOf(op);
    const { cleanups } = parts;
    parts.cleanups = [];
    return cleanups;
  }

  moveCleanups(from: OpState<TOp, TResult>, into: OpState<TOp, TResult>): void {
    this.#partsOf(into).cleanups.push(...this.takeCleanups(from));
  }

  /** For work on a vertex. */
  of(op: OpState<TOp, TResult>, signal: AbortSignal): OpContext<TOp, TResult> {
    const jobs = (): Job<TOp, TResult>[] => this.#host.jobsOf(op);
    return this.#make({
      signal,
      vertexDigest: op.vertex.digest,
      source: this.sourceOf(op),
      jobs,
      cleanup: (fn) => {
        if (op.deleted) void fn();
        else this.#partsOf(op).cleanups.push(fn);
      },
      cacheOption: (key, ancestors) => op.cacheOption(key, ancestors),
      build: (edge, opts) =>
        this.#host.build(op, edge, {
          ...opts,
          signal: opts.signal ? AbortSignal.any([opts.signal, signal]) : signal,
        }),
    });
  }

  /** For work of a job that belongs to no vertex of the graph. */
  ofJob(
    job: Job<TOp, TResult>,
    source: ProgressSource,
    at: { readonly signal: AbortSignal; readonly digest: string },
  ): OpContext<TOp, TResult> {
    return this.#make({
      signal: at.signal,
      vertexDigest: at.digest,
      source,
      jobs: () => [job],
      cleanup: (fn) => job.cleanup(fn),
      cacheOption: () => undefined,
      build: (edge, opts) =>
        job.build(edge, {
          ...opts,
          signal: opts.signal ? AbortSignal.any([opts.signal, at.signal]) : at.signal,
        }),
    });
  }

  #make(parts: ContextParts<TOp, TResult>): OpContext<TOp, TResult> {
    const { jobs } = parts;
    return {
      signal: parts.signal,
      vertexDigest: parts.vertexDigest,
      progress: parts.source,
      sessions: { ids: () => [...new Set(jobs().map((job) => job.sessionId))].filter((id) => id !== "") },
      resolverCache: combineResolverCaches(() => jobs().map((job) => job.resolverCache)),
      cleanup: parts.cleanup,
      jobValues: (key) =>
        jobs()
          .map((job) => job.getValue(key))
          .filter((value) => value !== undefined),
      cacheOption: (key, ancestors = false) => parts.cacheOption(key, ancestors),
      build: (edge, opts = {}) => parts.build(edge, opts),
      inVertex: (vertex, fn) => this.#inVertex(parts, vertex, fn),
    };
  }

  async #inVertex<T>(
    parts: ContextParts<TOp, TResult>,
    vertex: InternalVertex,
    fn: (ctx: OpContext<TOp, TResult>) => Promise<T>,
  ): Promise<T> {
    const digest = digestOfText(vertex.id ?? vertex.name);
    const source = new ProgressSource({
      digest,
      name: vertex.name,
      inputs: [],
      progressGroup: vertex.progressGroup,
      targets: () => parts.jobs().map((job) => job.progress),
      now: () => this.#host.now(),
    });
    return runInternal(source, () => fn(this.#make({ ...parts, source, vertexDigest: digest })));
  }

  #partsOf(op: OpState<TOp, TResult>): OpParts<TOp, TResult> {
    let parts = this.#parts.get(op);
    if (!parts) {
      const { vertex } = op;
      const source = new ProgressSource({
        digest: vertex.digest,
        name: vertex.name,
        inputs: vertex.inputs.map((edge) => edge.vertex.digest),
        progressGroup: vertex.options.progressGroup,
        targets: () => this.#host.jobsOf(op).map((job) => job.progress),
        now: () => this.#host.now(),
      });
      parts = { source, runner: undefined, cleanups: [] };
      this.#parts.set(op, parts);
    }
    return parts;
  }
}

interface ContextParts<TOp, TResult> {
  readonly signal: AbortSignal;
  readonly vertexDigest: string;
  readonly source: ProgressSource;
  readonly jobs: () => Job<TOp, TResult>[];
  readonly cleanup: (fn: () => void | Promise<void>) => void;
  readonly cacheOption: (key: unknown, ancestors: boolean) => unknown;
  readonly build: (edge: Edge<TOp>, opts: BuildOptions<TResult>) => Promise<CachedResult<TResult>>;
}

/** Runs something as a vertex, and says how it ended. */
export async function runInternal<T>(source: ProgressSource, fn: () => Promise<T>): Promise<T> {
  source.start(false);
  try {
    const out = await fn();
    source.complete(false);
    return out;
  } catch (error) {
    source.complete(false, progressErrorText(error));
    throw error;
  }
}
