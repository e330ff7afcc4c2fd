import { availableParallelism } from "node:os";
import { Worker } from "node:worker_threads";
import { BuildError, createDeferred, type Deferred, Semaphore } from "@kiln/base";
import type { LayerJobContext } from "./layer-job.ts";
import { type FromWorker, fromPlainError, type ToWorker } from "./thread-message.ts";

const MIN_THREADS = 4;
const MAX_THREADS = 8;
/** Garbage is mostly buffers, and those don't count here: collecting often keeps few of them. */
const THREAD_LIMITS = { maxYoungGenerationSizeMb: 3 };
/** A thread that has had nothing to do for this long ends. */
const IDLE_MS = 60_000;

interface Running {
  readonly deferred: Deferred<unknown>;
  readonly onProgress: ((bytes: number) => void) | undefined;
}

interface Thread {
  readonly worker: Worker;
  running: Running | undefined;
  idleTimer: NodeJS.Timeout | undefined;
}

/**
 * Threads that run one program made with {@link serveJobs}, a job at a time each. They start when first
 * needed and don't keep the process alive while idle.
 */
export class ThreadPool<Job> implements AsyncDisposable {
  readonly #entry: string;
  readonly #permits: Semaphore;
  readonly #idle: Thread[] = [];
  readonly #all = new Set<Thread>();
  #closed = false;
  #free: number;

  /** `entry`: file of the program. `threads`: at most this many; by default one for each processor, at least 4 (some only wait) and at most 8. */
  constructor(
    entry: string,
    threads: number = Math.min(MAX_THREADS, Math.max(MIN_THREADS, availableParallelism())),
  ) {
    this.#entry = entry;
    this.#permits = new Semaphore(threads);
    this.#free = threads;
  }

  /** How many jobs could start right now. */
  get free(): number {
    return this.#free;
  }

  /** Does a job on a free thread. @throws what the job throws as a `BuildError`, the reason of `signal` */
  async run<R>(job: Job, ctx: LayerJobContext): Promise<R> {
    using _permit = await this.#permits.acquire(ctx.signal);
    if (this.#closed) throw new BuildError("unavailable", "thread pool is closed");
    const thread = this.#idle.pop() ?? this.#start();
    clearTimeout(thread.idleTimer);
    const deferred = createDeferred<unknown>();
    thread.running = { deferred, onProgress: ctx.onProgress };
    thread.worker.ref();
    this.#free--;
    const onAbort = (): void => this.#post(thread, { kind: "cancel" });
    ctx.signal.addEventListener("abort", onAbort, { once: true });
    try {
      this.#post(thread, { kind: "run", job });
      if (ctx.signal.aborted) onAbort();
      return (await deferred.promise) as R;
    } catch (error) {
      ctx.signal.throwIfAborted();
      throw error;
    } finally {
      ctx.signal.removeEventListener("abort", onAbort);
      thread.running = undefined;
      this.#free++;
      if (this.#all.has(thread)) {
        thread.worker.unref();
        this.#idle.push(thread);
        thread.idleTimer = setTimeout(() => this.#retire(thread), IDLE_MS).unref();
      }
    }
  }

  #post(thread: Thread, message: ToWorker): void {
    thread.worker.postMessage(message);
  }

  #retire(thread: Thread): void {
    const at = this.#idle.indexOf(thread);
    if (at < 0) return;
    this.#idle.splice(at, 1);
    void thread.worker.terminate();
  }

  #start(): Thread {
    const worker = new Worker(this.#entry, { trackUnmanagedFds: false, resourceLimits: THREAD_LIMITS });
    const thread: Thread = { worker, running: undefined, idleTimer: undefined };
    this.#all.add(thread);
    worker.on("message", (message: FromWorker) => {
      const running = thread.running;
      if (!running) return;
      if (message.kind === "progress") running.onProgress?.(message.bytes);
      else if (message.kind === "done") running.deferred.resolve(message.result);
      else running.deferred.reject(fromPlainError(message.error));
    });
    const onEnd = (reason: unknown): void => {
      this.#all.delete(thread);
      clearTimeout(thread.idleTimer);
      const at = this.#idle.indexOf(thread);
      if (at >= 0) this.#idle.splice(at, 1);
      thread.running?.deferred.reject(new BuildError("internal", "worker thread ended", { cause: reason }));
    };
    worker.once("error", onEnd);
    worker.once("exit", onEnd);
    return thread;
  }

  /** Ends the threads; jobs that run fail. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    await Promise.all([...this.#all].map((thread) => thread.worker.terminate()));
  }
}
