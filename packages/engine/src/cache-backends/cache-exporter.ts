import type { CachedResult } from "@kiln/solver";
import type { ImmutableRef } from "@kiln/store";
import type { InlineCache } from "../exporters/exporter.ts";
import type { OpContext, OpResult } from "../op-context.ts";
import type { BuildResult } from "../solve/build-results.ts";

/** A build's trees with the cache keys that they were found under. */
export type CachedTrees = BuildResult<CachedResult<OpResult>>;

/** One `--cache-to` of one build. */
export interface CacheExport {
  /** Name of its vertex, e.g. `exporting cache to registry`. */
  readonly name: string;
  /** A failure is only a warning. */
  readonly ignoreError: boolean;
  /** @returns keys for `ExporterResponse` (those with the prefix `cache.` count). */
  run(trees: CachedTrees, ctx: OpContext): Promise<ReadonlyMap<string, string>>;
}

/** The cache exports of one request. */
export interface CacheExports {
  readonly exports: readonly CacheExport[];
  /** Gives the records that go into exported images, when that was asked for. */
  readonly inline: ((trees: CachedTrees) => InlineCache) | undefined;
}

/** One entry of `CacheOptions.Exports`. */
export interface CacheExportEntry {
  readonly type: string;
  readonly attrs: ReadonlyMap<string, string>;
}

/** @throws BuildError `invalid_argument` for an unknown type, duplicates, or attributes it can't take. */
export type ResolveCacheExports = (entries: readonly CacheExportEntry[], sessionId: string) => CacheExports;

/** Called for each tree of a result with the ref behind it. */
export function* eachTree(
  trees: CachedTrees,
): Iterable<readonly [CachedResult<OpResult>, ImmutableRef | undefined]> {
  if (trees.ref !== undefined) yield [trees.ref, trees.ref.result.ref];
  for (const tree of trees.refs?.values() ?? []) if (tree !== undefined) yield [tree, tree.result.ref];
}
