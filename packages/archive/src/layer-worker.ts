import { parentPort } from "node:worker_threads";
import { runLayerJob } from "./layer-job.ts";
import { type FromWorker, type ToWorker, toPlainError } from "./layer-message.ts";

const PROGRESS_EVERY_MS = 100;

let cancel: AbortController | undefined;

function post(message: FromWorker): void {
  parentPort?.postMessage(message);
}

async function run(message: ToWorker & { kind: "run" }): Promise<void> {
  const controller = new AbortController();
  cancel = controller;
  let last = 0;
  try {
    const result = await runLayerJob(message.job, {
      signal: controller.signal,
      onProgress: (bytes) => {
        const now = performance.now();
        if (now - last < PROGRESS_EVERY_MS) return;
        last = now;
        post({ kind: "progress", bytes });
      },
    });
    post({ kind: "done", result });
  } catch (error) {
    post({ kind: "failed", error: toPlainError(error) });
  }
}

parentPort?.on("message", (message: ToWorker) => {
  if (message.kind === "cancel") cancel?.abort();
  else void run(message);
});
