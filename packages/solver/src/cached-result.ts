import type { CacheKey } from "./cache/cache-key.ts";

/** The value of an edge. The holder calls `release` once it is done with `result`; again does nothing. */
export interface CachedResult<TResult> extends Disposable {
  readonly result: TResult;
  /** Where a cache export of it starts. */
  readonly keys: readonly CacheKey<TResult>[];
  release(): void;
}
