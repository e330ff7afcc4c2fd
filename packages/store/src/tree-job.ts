import { type LayerJobContext, ThreadPool } from "@kiln/archive";
import { entryPath, removeTree } from "@kiln/sys";
import { copyTree, treeUsage } from "./tree-copy.ts";
import { type MergeTarget, mergeDiffs, type TreeDiff } from "./tree-merge.ts";

/** Work on a tree of files that a thread does. */
export type TreeJob =
  | { readonly kind: "copy"; readonly from: string; readonly to: string }
  | { readonly kind: "remove"; readonly path: string }
  | { readonly kind: "usage"; readonly path: string }
  | { readonly kind: "merge"; readonly target: MergeTarget; readonly diffs: readonly TreeDiff[] };

/** Does one job in this thread. */
export async function runTreeJob(job: TreeJob, _ctx: LayerJobContext): Promise<unknown> {
  switch (job.kind) {
    case "copy":
      return copyTree(job.from, job.to);
    case "remove":
      return removeTree(job.path);
    case "usage":
      return treeUsage(job.path);
    case "merge":
      return mergeDiffs(job.target, job.diffs);
  }
}

/** Threads for {@link TreeJob}s. */
export class TreePool implements AsyncDisposable {
  readonly #threads = new ThreadPool<TreeJob>(entryPath(import.meta.url, "tree-worker"), 2);
  readonly #never = new AbortController().signal;

  /** Does a job; it can't be cancelled. */
  run<R = void>(job: TreeJob): Promise<R> {
    return this.#threads.run<R>(job, { signal: this.#never });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#threads[Symbol.asyncDispose]();
  }
}
