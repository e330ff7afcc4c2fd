import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { parentPort } from "node:worker_threads";
import type { LayerJobContext } from "./layer-job.ts";
import { type FromWorker, type ToWorker, toPlainError } from "./thread-message.ts";

const PROGRESS_EVERY_MS = 100;
/** A thread that waits for its next job with more than this in buffers that nobody needs any more frees them. */
const MAX_IDLE_BUFFER_BYTES = 8 << 20;

let collect: (() => void) | undefined;

/** Buffers are garbage that the collector comes for late: they lie outside of what it watches. */
function freeBuffers(): void {
  if (process.memoryUsage().arrayBuffers < MAX_IDLE_BUFFER_BYTES) return;
  if (!collect) {
    setFlagsFromString("--expose-gc");
    collect = runInNewContext("gc") as () => void;
  }
  collect();
}

/** Makes this thread a worker of a `ThreadPool`: every job that comes is passed to `run`. */
export function serveJobs<Job>(run: (job: Job, ctx: LayerJobContext) => Promise<unknown>): void {
  let cancel: AbortController | undefined;
  const post = (message: FromWorker): void => parentPort?.postMessage(message);
  const start = async (job: Job): Promise<void> => {
    const controller = new AbortController();
    cancel = controller;
    let last = 0;
    const onProgress = (bytes: number): void => {
      const now = performance.now();
      if (now - last < PROGRESS_EVERY_MS) return;
      last = now;
      post({ kind: "progress", bytes });
    };
    try {
      post({ kind: "done", result: await run(job, { signal: controller.signal, onProgress }) });
    } catch (error) {
      post({ kind: "failed", error: toPlainError(error) });
    }
    setImmediate(freeBuffers);
  };
  parentPort?.on("message", (message: ToWorker) => {
    if (message.kind === "cancel") cancel?.abort();
    else void start(message.job as Job);
  });
}
