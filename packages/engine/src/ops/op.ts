import type { ImmutableRef } from "@kiln/store";
import type { OpContext } from "../op-context.ts";

/** What one output of an op is: a file tree, or (without ref) the empty one. The holder releases it. */
export interface OpResult {
  readonly ref: ImmutableRef | undefined;
}

/** How the content of one input counts for the cache. */
export interface CacheMapDep {
  /** Digest that tells uses of the same input apart; absent when the whole of it is used. */
  readonly selector?: string;
  /** Digest of the content that is really used; absent when only the input's own keys count. */
  readonly contentKey?: (input: OpResult, ctx: OpContext) => Promise<string>;
  /** Work to do on the input before the op runs (unlazying). */
  readonly preprocess?: (input: OpResult, ctx: OpContext) => Promise<void>;
}

/** BuildKit's `CacheMap`: what makes two runs of an op the same. */
export interface OpCacheMap {
  readonly digest: string;
  readonly deps: readonly CacheMapDep[];
}

/** One op of a build graph, bound to a worker. */
export interface Op {
  /** Asked for index 0, 1, … until `done`. */
  cacheMap(index: number, ctx: OpContext): Promise<{ readonly cacheMap: OpCacheMap; readonly done: boolean }>;
  /** Runs it. Inputs are borrowed; outputs belong to the caller. */
  exec(inputs: readonly OpResult[], ctx: OpContext): Promise<readonly OpResult[]>;
  /** True when it takes one of the worker's `max-parallelism` places while it runs (source, exec, file). */
  readonly heavy: boolean;
}
