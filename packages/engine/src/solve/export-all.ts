import { isCanceled } from "@kiln/base";
import { newId } from "@kiln/formats";
import type { Job } from "@kiln/solver";
import type { CachedTrees, CacheExports } from "../cache-backends/cache-exporter.ts";
import type { ExporterInstance, ExportOutcome, ExportSource } from "../exporters/exporter.ts";
import type { LlbOp, OpResult } from "../op-context.ts";
import { mapRefs, type ResultDescriptor } from "./build-results.ts";
import { platformWarnings } from "./platform-warnings.ts";

/** What is exported, and how. */
export interface ExportAllOptions {
  readonly job: Job<LlbOp, OpResult>;
  readonly trees: CachedTrees;
  readonly exporters: readonly ExporterInstance[];
  readonly caches: CacheExports;
  readonly compatibilityVersion: number;
  readonly buildRef: string;
  readonly frontendAttrs: ReadonlyMap<string, string>;
  /** Told of a cache export that failed with `ignore-error`. */
  readonly onIgnored: (error: unknown) => void;
  readonly signal: AbortSignal;
}

/** What came of it. `release` lets go of the artefacts in the content store. */
export interface ExportRun {
  readonly response: ReadonlyMap<string, string>;
  readonly cacheResponse: ReadonlyMap<string, string>;
  /** By output number. */
  readonly descriptors: ReadonlyMap<number, ResultDescriptor>;
  release(): void;
}

/**
 * Runs every exporter, each as a vertex of its own and all at once; then what is left of them (pushing) at
 * the same time as the cache exports, which by then find the layers made.
 */
export async function exportAll(opts: ExportAllOptions): Promise<ExportRun> {
  const outcomes: (ExportOutcome | undefined)[] = [];
  const release = (): void => {
    for (const outcome of outcomes.splice(0)) outcome?.release?.();
  };
  try {
    await exportFirstHalf(opts, outcomes);
    const cacheResponse = new Map<string, string>();
    await all([
      ...outcomes.map((outcome, at) => finalize(opts, outcome, at)),
      ...opts.caches.exports.map((_, at) => exportCache(opts, at, cacheResponse)),
    ]);
    const response = new Map<string, string>();
    const descriptors = new Map<number, ResultDescriptor>();
    for (const [at, outcome] of outcomes.entries()) {
      for (const [key, value] of outcome?.response ?? []) response.set(key, value);
      if (outcome?.descriptor !== undefined) descriptors.set(at, outcome.descriptor);
    }
    return { response, cacheResponse, descriptors, release };
  } catch (error) {
    release();
    throw error;
  }
}

async function exportFirstHalf(
  opts: ExportAllOptions,
  outcomes: (ExportOutcome | undefined)[],
): Promise<void> {
  const { job, trees } = opts;
  const source: ExportSource = mapRefs(trees, (tree) => tree.result.ref);
  const warnings = platformWarnings(source, opts.frontendAttrs);
  const inlineCache = opts.caches.inline?.(trees);
  await all(
    opts.exporters.map((exporter, at) =>
      job.inVertex(
        { name: exporter.name, id: vertexId(job, "export", at) },
        async (ctx) => {
          if (at === 0) for (const short of warnings) ctx.progress.warning({ short, level: 0 });
          outcomes[at] = await exporter.export(
            source,
            {
              buildRef: opts.buildRef,
              sessionId: job.sessionId,
              inlineCache,
              compatibilityVersion: opts.compatibilityVersion,
            },
            ctx,
          );
        },
        opts.signal,
      ),
    ),
  );
  if (opts.exporters.length === 0 && warnings.length > 0) {
    await job.inVertex(
      { name: "Verifying build result", id: newId() },
      async (ctx) => {
        for (const short of warnings) ctx.progress.warning({ short, level: 0 });
      },
      opts.signal,
    );
  }
}

async function finalize(
  opts: ExportAllOptions,
  outcome: ExportOutcome | undefined,
  at: number,
): Promise<void> {
  const exporter = opts.exporters[at];
  const work = outcome?.finalize;
  if (work === undefined || exporter === undefined) return;
  const { job } = opts;
  await job.inVertex({ name: exporter.name, id: vertexId(job, "export", at) }, work, opts.signal);
}

async function exportCache(opts: ExportAllOptions, at: number, response: Map<string, string>): Promise<void> {
  const { job, caches } = opts;
  const cache = caches.exports[at];
  if (cache === undefined) return;
  try {
    await job.inVertex(
      { name: cache.name, id: vertexId(job, "cache", at) },
      async (ctx) => {
        for (const [key, value] of await cache.run(opts.trees, ctx)) response.set(key, value);
      },
      opts.signal,
    );
  } catch (error) {
    if (!cache.ignoreError || isCanceled(error)) throw error;
    opts.onIgnored(error);
  }
}

function vertexId(job: Job<LlbOp, OpResult>, kind: "export" | "cache", at: number): string {
  return `${job.sessionId}-${kind}-${at}`;
}

async function all(work: readonly Promise<unknown>[]): Promise<void> {
  const failed = (await Promise.allSettled(work)).find((end) => end.status === "rejected");
  if (failed !== undefined) throw failed.reason;
}
