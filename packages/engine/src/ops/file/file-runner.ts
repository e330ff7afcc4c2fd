import { Worker } from "node:worker_threads";
import { BuildError, createDeferred, type Deferred, type ErrorCode } from "@kiln/base";
import { entryPath } from "@kiln/sys";
import type { PlainAction } from "./file-action.ts";

/** What a thread is asked. */
export interface FileRequest {
  readonly id: number;
  readonly action: PlainAction;
}

/** What it answers. */
export interface FileReply {
  readonly id: number;
  readonly error?: { readonly code: ErrorCode; readonly message: string };
}

/** Threads at most: file actions are bound by the disk, not by cores. */
const MAX_THREADS = 2;
const THREAD_LIMITS = { maxYoungGenerationSizeMb: 3 };

interface Thread {
  readonly worker: Worker;
  readonly waiting: Map<number, Deferred<void>>;
}

/** Carries out file actions in a small pool of threads. */
export class FileRunner implements AsyncDisposable {
  readonly #threads: Thread[] = [];
  #next = 1;

  /** @throws BuildError with Go's words for what the file system refused. */
  run(action: PlainAction): Promise<void> {
    const thread = this.#pick();
    const id = this.#next++;
    const deferred = createDeferred<void>();
    thread.waiting.set(id, deferred);
    thread.worker.ref();
    thread.worker.postMessage({ id, action } satisfies FileRequest);
    return deferred.promise;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#threads.splice(0).map((thread) => thread.worker.terminate()));
  }

  #pick(): Thread {
    const idle = this.#threads.find((thread) => thread.waiting.size === 0);
    if (idle !== undefined) return idle;
    if (this.#threads.length < MAX_THREADS) return this.#start();
    return this.#threads.reduce((a, b) => (b.waiting.size < a.waiting.size ? b : a));
  }

  #start(): Thread {
    const worker = new Worker(entryPath(import.meta.url, "file-op-worker"), {
      resourceLimits: THREAD_LIMITS,
    });
    const thread: Thread = { worker, waiting: new Map() };
    const fail = (error: Error): void => {
      const at = this.#threads.indexOf(thread);
      if (at >= 0) this.#threads.splice(at, 1);
      for (const deferred of thread.waiting.values()) deferred.reject(error);
      thread.waiting.clear();
    };
    worker.on("message", (reply: FileReply) => {
      const deferred = thread.waiting.get(reply.id);
      thread.waiting.delete(reply.id);
      if (thread.waiting.size === 0) worker.unref();
      if (reply.error !== undefined) deferred?.reject(new BuildError(reply.error.code, reply.error.message));
      else deferred?.resolve();
    });
    worker.on("error", (error) => fail(error as Error));
    worker.on("exit", () => fail(new BuildError("internal", "file action thread ended")));
    this.#threads.push(thread);
    return thread;
  }
}
