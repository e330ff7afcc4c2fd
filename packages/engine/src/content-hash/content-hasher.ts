import { Worker } from "node:worker_threads";
import { BuildError, createDeferred, type Deferred, type ErrorCode } from "@kiln/base";
import { entryPath } from "@kiln/sys";
import type { ChecksumOptions } from "./checksum.ts";

/** What the worker thread is asked. `tree` names a directory tree: the id of an immutable ref. */
export type HashRequest =
  | {
      readonly kind: "checksum";
      readonly id: number;
      readonly tree: string;
      readonly root: string;
      readonly path: string;
      readonly options: ChecksumOptions;
    }
  | {
      readonly kind: "derive";
      readonly id: number;
      readonly tree: string;
      readonly from: string;
      readonly root: string;
      readonly changed: readonly string[];
    }
  | { readonly kind: "alias"; readonly id: number; readonly tree: string; readonly from: string }
  | { readonly kind: "forget"; readonly id: number; readonly tree: string };

/** What it answers. */
export interface HashReply {
  readonly id: number;
  readonly digest?: string;
  readonly error?: { readonly code: ErrorCode; readonly message: string };
}

type Unnumbered<T> = T extends HashRequest ? Omit<T, "id"> : never;

const THREAD_LIMITS = { maxYoungGenerationSizeMb: 3 };

/** Content digests of mounted trees, worked out in a thread and kept per tree. */
export class ContentHasher implements AsyncDisposable {
  #worker: Worker | undefined;
  #next = 1;
  readonly #waiting = new Map<number, Deferred<string>>();

  /**
   * The digest of `path` in the tree `tree`, whose files lie at `root` at least until this settles.
   * The same tree id must always mean the same contents.
   */
  checksum(tree: string, root: string, path: string, options: ChecksumOptions): Promise<string> {
    return this.#ask({ kind: "checksum", tree, root, path, options });
  }

  /**
   * Says that `tree` (at `root`) is `from` with the paths in `changed` added, modified or removed, so
   * that only those need to be read again. Both may be one name.
   */
  async derive(tree: string, from: string, root: string, changed: readonly string[]): Promise<void> {
    await this.#ask({ kind: "derive", tree, from, root, changed });
  }

  /** Says that `tree` has the contents of `from`, as they are now. */
  async alias(tree: string, from: string): Promise<void> {
    await this.#ask({ kind: "alias", tree, from });
  }

  /** Drops what is known of `tree`. */
  async forget(tree: string): Promise<void> {
    await this.#ask({ kind: "forget", tree });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#worker?.terminate();
    this.#worker = undefined;
  }

  #ask(request: Unnumbered<HashRequest>): Promise<string> {
    const id = this.#next++;
    const deferred = createDeferred<string>();
    this.#waiting.set(id, deferred);
    const worker = this.#start();
    if (this.#waiting.size === 1) worker.ref();
    worker.postMessage({ ...request, id });
    return deferred.promise;
  }

  #start(): Worker {
    if (this.#worker !== undefined) return this.#worker;
    const worker = new Worker(entryPath(import.meta.url, "content-hash-worker"), {
      resourceLimits: THREAD_LIMITS,
    });
    worker.on("message", (reply: HashReply) => this.#settle(reply));
    worker.on("error", (error) => this.#fail(worker, error as Error));
    worker.on("exit", () => this.#fail(worker, new BuildError("internal", "content hash thread ended")));
    this.#worker = worker;
    return worker;
  }

  #settle(reply: HashReply): void {
    const deferred = this.#waiting.get(reply.id);
    this.#waiting.delete(reply.id);
    if (this.#waiting.size === 0) this.#worker?.unref();
    if (reply.error !== undefined) deferred?.reject(new BuildError(reply.error.code, reply.error.message));
    else deferred?.resolve(reply.digest ?? "");
  }

  #fail(worker: Worker, error: Error): void {
    if (this.#worker === worker) this.#worker = undefined;
    for (const deferred of this.#waiting.values()) deferred.reject(error);
    this.#waiting.clear();
  }
}
