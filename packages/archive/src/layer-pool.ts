import { entryPath } from "@kiln/sys";
import type { LayerJob, LayerJobContext, LayerJobResults } from "./layer-job.ts";
import { ThreadPool } from "./thread-pool.ts";

/** Threads that unpack, compare and compress layers, so that the event loop stays free. */
export class LayerPool implements AsyncDisposable {
  readonly #threads: ThreadPool<LayerJob>;

  /** `threads`: at most this many; see {@link ThreadPool}. */
  constructor(threads?: number) {
    this.#threads = new ThreadPool(entryPath(import.meta.url, "layer-worker"), threads);
  }

  /** How many jobs could start right now. */
  get free(): number {
    return this.#threads.free;
  }

  /** Does a job on a free thread. @throws what `runLayerJob` throws, the reason of `signal` */
  run<J extends LayerJob>(job: J, ctx: LayerJobContext): Promise<LayerJobResults[J["kind"]]> {
    return this.#threads.run<LayerJobResults[J["kind"]]>(job, ctx);
  }

  /** Ends the threads; jobs that run fail. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#threads[Symbol.asyncDispose]();
  }
}
