import { BuildError, createDeferred, type Deferred, isCanceled, withSignal, wrapError } from "@kiln/base";
import type { CacheKey } from "./cache/cache-key.ts";
import type { CacheSource, PendingCacheSource } from "./cache/cache-source.ts";
import type { CachedResult } from "./cached-result.ts";
import { deleteOp } from "./core/commit.ts";
import { type Command, Core, type Outcome } from "./core/core.ts";
import type { Holder, OpState } from "./core/op-state.ts";
import { digestOfText } from "./digest.ts";
import { canceledError, progressErrorText } from "./failure.ts";
import { Job, type JobHost, type RanVertex } from "./job.ts";
import { apartName, loadGraph } from "./load-graph.ts";
import { OpContexts, runInternal } from "./op-contexts.ts";
import { PendingSources } from "./pending-sources.ts";
import { ProgressSource } from "./progress/progress-source.ts";
import { runTask, type TaskCommand } from "./run-task.ts";
import { randomId, systemTimers, type Timers } from "./timers.ts";
import type {
  BuildOptions,
  Edge,
  Failure,
  InternalVertex,
  OpContext,
  OpRunner,
  ResultHooks,
  Vertex,
} from "./types.ts";

/** How long the status of a discarded job can still be asked for. */
const DISCARDED_JOB_MS = 10_000;
/** How long {@link Solver.get} waits for a job to appear. */
const JOB_WAIT_MS = 6_000;
/** Edges looked at between two looks at the clock. */
const SLICE_STEPS = 100;
/** How long the process is kept from other work at a time. */
const MAX_TURN_MS = 10;

/** What a solver is made of. */
export interface SolverOptions<TOp, TResult> {
  /** Makes the runner of a vertex when the first work of it is asked for; what it throws fails the vertex. */
  readonly resolveOp: (vertex: Vertex<TOp>, metadata: unknown) => OpRunner<TOp, TResult>;
  /** The local cache, into which everything is saved. */
  readonly cache: CacheSource<TResult>;
  readonly results: ResultHooks<TResult>;
  /** Adds to an error what clients want to know of the vertex; the error as it is when absent. */
  readonly describeFailure?: ((error: unknown, failure: Failure<TOp, TResult>) => unknown) | undefined;
  readonly mergeMetadata?: ((a: unknown, b: unknown) => unknown) | undefined;
  /** Told of what goes wrong without failing a build: caches that don't answer, releases that throw. */
  readonly onWarning?: ((error: unknown, what: string) => void) | undefined;
  readonly timers?: Timers | undefined;
  readonly newId?: (() => string) | undefined;
  /** Permutes the order in which edges are looked at, for tests. */
  readonly pick?: ((n: number) => number) | undefined;
}

interface OpenRequest<TResult> {
  readonly deferred: Deferred<Outcome<TResult>>;
  readonly holder: object;
}

/**
 * A graph of everything that is being solved, shared by all jobs. It runs the commands of the {@link Core}
 * and tells it how they ended.
 */
export class Solver<TOp, TResult> implements JobHost<TOp, TResult> {
  readonly options: SolverOptions<TOp, TResult>;
  readonly core: Core<TOp, TResult>;
  readonly contexts: OpContexts<TOp, TResult>;
  readonly #timers: Timers;
  readonly #jobs = new Map<string, Job<TOp, TResult>>();
  readonly #actives = new Map<string, OpState<TOp, TResult>>();
  readonly #requests = new Map<number, OpenRequest<TResult>>();
  readonly #tasks = new Map<number, AbortController>();
  readonly #running = new Map<number, Promise<void>>();
  readonly #pending: PendingSources<TOp, TResult>;
  readonly #newId: () => string;
  #jobAdded: Deferred<void> = createDeferred();
  #lastRequest = 0;
  #lastJob = 0;
  #pumping = false;
  #turnStartMs: number | undefined;

  constructor(options: SolverOptions<TOp, TResult>) {
    this.options = options;
    this.#timers = options.timers ?? systemTimers;
    this.#newId = options.newId ?? randomId;
    let lastNs = 0n;
    this.core = new Core({
      main: options.cache,
      results: options.results,
      now: () => {
        const ns = BigInt(Math.round(this.#timers.now() * 1000)) * 1000n;
        lastNs = ns > lastNs ? ns : lastNs + 1n; // the newest result of a key must be known as such
        return lastNs;
      },
      newId: this.#newId,
      pick: options.pick,
    });
    this.#pending = new PendingSources(this.core, () => this.#pump());
    this.contexts = new OpContexts({
      options,
      now: () => this.now(),
      build: (op, edge, opts) => this.#buildFor(op, edge, opts),
      jobsOf: (op) => this.jobsOf(op),
    });
  }

  /** @throws already_exists when there is a job of that id, discarded less than 10 seconds ago or not. */
  createJob(id: string, opts: { readonly sessionId?: string } = {}): Job<TOp, TResult> {
    if (this.#jobs.has(id)) throw new BuildError("already_exists", `job ID ${id} exists`);
    const job = new Job<TOp, TResult>(this, {
      id,
      uniqueId: this.#newId(),
      serial: ++this.#lastJob,
      sessionId: opts.sessionId ?? "",
    });
    this.#jobs.set(id, job);
    this.#jobAdded.resolve();
    this.#jobAdded = createDeferred();
    return job;
  }

  /**
   * The job of that id, waiting up to 6 seconds for it to be made.
   *
   * @throws not_found when it isn't.
   */
  async get(id: string, signal?: AbortSignal): Promise<Job<TOp, TResult>> {
    const timeUp = createDeferred<void>();
    using _timer = this.#timers.after(JOB_WAIT_MS, () => timeUp.resolve());
    let late = false;
    void timeUp.promise.then(() => {
      late = true;
    });
    for (;;) {
      const job = this.#jobs.get(id);
      if (job) return job;
      if (late) throw new BuildError("not_found", `no such job ${id}`);
      const next = Promise.race([this.#jobAdded.promise, timeUp.promise]);
      await (signal ? withSignal(next, signal) : next);
    }
  }

  /** Number of active vertices and running tasks; both are 0 when all jobs are discarded and settled. */
  get load(): { readonly vertices: number; readonly tasks: number } {
    return { vertices: this.#actives.size, tasks: this.core.tasks.size };
  }

  // --- for jobs

  now(): number {
    return this.#timers.now();
  }

  build(
    job: Job<TOp, TResult>,
    edge: Edge<TOp>,
    opts: BuildOptions<TResult>,
  ): Promise<CachedResult<TResult>> {
    return this.#solve(job, edge, { ...opts, signal: anySignal(opts.signal, job.signal) });
  }

  async inVertex<T>(
    job: Job<TOp, TResult>,
    vertex: InternalVertex,
    fn: (ctx: OpContext<TOp, TResult>) => Promise<T>,
    signal: AbortSignal,
  ): Promise<T> {
    const source = this.internalSource(vertex, () => [job]);
    return runInternal(source, () =>
      fn(this.contexts.ofJob(job, source, { signal, digest: internalDigest(vertex) })),
    );
  }

  /** Progress of a vertex that is no vertex of the graph. */
  internalSource(vertex: InternalVertex, jobs: () => Iterable<Job<TOp, TResult>>): ProgressSource {
    return new ProgressSource({
      digest: internalDigest(vertex),
      name: vertex.name,
      inputs: [],
      progressGroup: vertex.progressGroup,
      targets: () => [...jobs()].map((job) => job.progress),
      now: () => this.now(),
    });
  }

  discard(job: Job<TOp, TResult>): void {
    for (const [id, request] of this.#requests) {
      if (request.holder !== job) continue;
      this.core.withdraw(id);
      this.#requests.delete(id);
      request.deferred.resolve({ kind: "failed", error: canceledError() });
    }
    job.progress.close();
    this.#letGo(job);
    this.#cleanUp(job.cleanups);
    this.#timers.after(DISCARDED_JOB_MS, () => this.#jobs.delete(job.id));
    this.#pump();
  }

  runners(_job: Job<TOp, TResult>, edge: Edge<TOp>): RanVertex<TOp, TResult>[] {
    const { digest } = edge.vertex;
    const first = this.#actives.get(apartName(digest)) ?? this.#actives.get(digest);
    if (!first) return [];
    const seen = new Set<OpState<TOp, TResult>>([first]);
    const out = [...seen];
    for (const op of out) {
      for (const input of op.inputs) {
        if (seen.has(input.op)) continue;
        seen.add(input.op);
        out.push(input.op);
      }
    }
    return out.reverse().map((op) => ({ vertex: op.vertex, runner: this.contexts.knownRunner(op) }));
  }

  /** The jobs that need a vertex: its own, then those of the vertices that build it; in order of making. */
  jobsOf(op: OpState<TOp, TResult>): Job<TOp, TResult>[] {
    const own: Job<TOp, TResult>[] = [];
    const others = new Set<Job<TOp, TResult>>();
    const waiting: Holder<TOp, TResult>[] = [...op.holders];
    const seen = new Set(waiting);
    for (let holder = waiting.pop(); holder !== undefined; holder = waiting.pop()) {
      if (isJob(holder)) {
        if (op.holders.has(holder)) own.push(holder);
        else others.add(holder);
        continue;
      }
      for (const next of holder.op?.holders ?? []) {
        if (seen.has(next)) continue;
        seen.add(next);
        waiting.push(next);
      }
    }
    const bySerial = (a: Job<TOp, TResult>, b: Job<TOp, TResult>): number => a.serial - b.serial;
    return [...own.sort(bySerial), ...[...others].sort(bySerial)];
  }

  // --- solving

  async #buildFor(
    op: OpState<TOp, TResult>,
    edge: Edge<TOp>,
    opts: BuildOptions<TResult>,
  ): Promise<CachedResult<TResult>> {
    const sources = [...op.sources.slice(1), ...(opts.cacheSources ?? [])];
    const built = await this.#solve(op, edge, { ...opts, cacheSources: sources });
    op.builtKeys.push(...built.keys.slice(0, 1)); // each key exports all there is
    return built;
  }

  async #solve(
    holder: Holder<TOp, TResult>,
    edge: Edge<TOp>,
    opts: BuildOptions<TResult>,
  ): Promise<CachedResult<TResult>> {
    opts.signal?.throwIfAborted();
    if (holder.op?.deleted) throw canceledError();
    if (!Number.isSafeInteger(edge.index) || edge.index < 0) {
      throw new BuildError("invalid_argument", `invalid output index ${edge.index} of ${edge.vertex.digest}`);
    }
    const op = this.#load(holder, edge.vertex, opts.cacheSources ?? []);
    if (holder.op && needs(op, holder.op)) {
      throw new BuildError(
        "invalid_argument",
        `vertex ${holder.op.vertex.digest} can't be built from itself`,
      );
    }
    const id = ++this.#lastRequest;
    const deferred = createDeferred<Outcome<TResult>>();
    this.#requests.set(id, { deferred, holder });
    this.core.request(id, op.edge(edge.index));
    this.#pump();
    const outcome = await this.#outcome(id, deferred, opts.signal);
    if (outcome.kind === "failed") throw outcome.error;
    return this.#cachedResult(outcome.result, outcome.keys);
  }

  async #outcome(
    id: number,
    deferred: Deferred<Outcome<TResult>>,
    signal: AbortSignal | undefined,
  ): Promise<Outcome<TResult>> {
    if (!signal) return deferred.promise;
    const onAbort = (): void => {
      const request = this.#requests.get(id);
      if (!request) return;
      this.#requests.delete(id);
      if (request.holder instanceof Job) request.holder.departures++;
      deferred.resolve({ kind: "failed", error: signal.reason });
      this.core.withdraw(id);
      this.#pump();
    };
    signal.addEventListener("abort", onAbort, { once: true });
    try {
      return await deferred.promise;
    } finally {
      signal.removeEventListener("abort", onAbort);
    }
  }

  #cachedResult(result: TResult, keys: readonly CacheKey<TResult>[]): CachedResult<TResult> {
    let held = true;
    const release = (): void => {
      if (!held) return;
      held = false;
      this.#release(result);
    };
    return { result, keys, release, [Symbol.dispose]: release };
  }

  #load(
    holder: Holder<TOp, TResult>,
    vertex: Vertex<TOp>,
    given: readonly (CacheSource<TResult> | PendingCacheSource<TResult>)[],
  ): OpState<TOp, TResult> {
    const loader = {
      core: this.core,
      actives: this.#actives,
      mergeMetadata: this.options.mergeMetadata,
      onHeld: (op: OpState<TOp, TResult>) => this.#announce(op),
    };
    try {
      return loadGraph(loader, vertex, { holder, ...this.#pending.sort(given) });
    } finally {
      this.#pump();
    }
  }

  #announce(op: OpState<TOp, TResult>): void {
    const source = this.contexts.sourceOf(op);
    for (const job of this.jobsOf(op)) source.announce(job.progress);
  }

  #letGo(holder: Holder<TOp, TResult>): void {
    const waiting: Holder<TOp, TResult>[] = [holder];
    for (let next = waiting.pop(); next !== undefined; next = waiting.pop()) {
      for (const op of next.held) {
        op.holders.delete(next);
        if (op.holders.size > 0 || op.deleted) continue;
        if (this.#actives.get(op.name) === op) this.#actives.delete(op.name);
        deleteOp(this.core, op);
        this.#cleanUp(this.contexts.takeCleanups(op));
        waiting.push(op);
      }
      next.held.clear();
    }
  }

  // --- running commands

  #pump(): void {
    if (this.#pumping) return;
    if (this.#turnStartMs === undefined) this.#beginTurn();
    this.#pumping = true;
    try {
      for (let more = true; more; ) {
        // work that follows from this turn without any waiting counts as part of it
        if (this.now() - this.#turnStartMs! > MAX_TURN_MS) return;
        more = this.core.run(SLICE_STEPS);
        const commands = this.core.take();
        for (const command of commands) this.#execute(command);
        more ||= commands.length > 0;
      }
    } finally {
      this.#pumping = false;
    }
  }

  /** A turn lasts until timers get theirs; what it has left undone is done in the next. */
  #beginTurn(): void {
    this.#turnStartMs = this.now();
    this.#timers.after(0, () => {
      this.#turnStartMs = undefined;
      if (this.core.busy) this.#pump();
    });
  }

  #execute(command: Command<TOp, TResult>): void {
    switch (command.kind) {
      case "abort":
        this.#tasks.get(command.task)?.abort(canceledError());
        return;
      case "release":
        this.#release(command.result);
        return;
      case "settled": {
        const request = this.#requests.get(command.request);
        this.#requests.delete(command.request);
        if (request) request.deferred.resolve(command.outcome);
        else if (command.outcome.kind === "complete") this.#release(command.outcome.result);
        return;
      }
      case "merged": {
        const source = this.contexts.sourceOf(command.into);
        for (const job of this.jobsOf(command.from)) source.announce(job.progress);
        this.contexts.moveCleanups(command.from, command.into);
        return;
      }
      case "warning":
        this.#warn(command.op, command.error, command.what);
        return;
      default:
        this.#runTask(command);
        return;
    }
  }

  #runTask(command: TaskCommand<TOp, TResult>): void {
    const abort = new AbortController();
    this.#tasks.set(command.task, abort);
    const needed = this.jobsOf(command.op).map((job) => ({ job, departures: job.departures }));
    const work = runTask(this.contexts, command, abort.signal).then((end) => {
      this.#tasks.delete(command.task);
      this.#running.delete(command.task);
      // what fails because one client has left is done again for those that stay
      const left = needed.some(({ job, departures }) => job.departures !== departures);
      this.core.taskEnded(command.task, end.kind === "failed" && left ? { ...end, retry: true } : end);
      this.#pump();
    });
    this.#running.set(command.task, work);
  }

  /** Stops all work and waits until each task has cleaned up. For the end of a process: jobs must be over. */
  async stop(): Promise<void> {
    while (this.#running.size > 0) {
      for (const task of this.#tasks.values()) task.abort(canceledError());
      await Promise.all(this.#running.values());
    }
  }

  #warn(op: OpState<TOp, TResult>, error: unknown, what: string): void {
    const wrapped = wrapError(error, what);
    this.options.onWarning?.(wrapped, what);
    const short = progressErrorText(wrapped);
    if (!isCanceled(error)) this.contexts.sourceOf(op).warning({ short });
  }

  #release(result: TResult): void {
    this.#cleanUp([() => this.options.results.release(result)], "failed to release result");
  }

  #cleanUp(fns: Iterable<() => void | Promise<void>>, what = "failed to clean up"): void {
    for (const fn of fns) {
      void (async () => fn())().catch((error: unknown) => this.options.onWarning?.(error, what));
    }
  }
}

/** Digest under which an internal vertex reports. */
export function internalDigest(vertex: InternalVertex): string {
  return digestOfText(vertex.id ?? vertex.name);
}

/** Whether `first` is made from `builder`, or from a vertex that is just building `builder`. */
function needs<TOp, TResult>(first: OpState<TOp, TResult>, builder: OpState<TOp, TResult>): boolean {
  const builders = new Set([builder]);
  for (const op of builders) for (const holder of op.holders) if (holder.op) builders.add(holder.op);
  const seen = new Set([first]);
  for (const op of seen) {
    if (builders.has(op)) return true;
    for (const input of op.inputs) seen.add(input.op);
  }
  return false;
}

function isJob<TOp, TResult>(holder: Holder<TOp, TResult>): holder is Job<TOp, TResult> {
  return holder instanceof Job;
}

function anySignal(a: AbortSignal | undefined, b: AbortSignal): AbortSignal {
  return a ? AbortSignal.any([a, b]) : b;
}
