import { DisposableStore } from "@kiln/base";
import { type CacheExportMode, type CacheExportOptions, exportCache, type Remote } from "@kiln/solver";
import { CacheChains } from "@kiln/solver/remote-cache";
import type { CompressionOptions, ImmutableRef } from "@kiln/store";
import { type OpContext, type OpResult, withStatus } from "../op-context.ts";
import type { CacheSender } from "./cache-backend.ts";
import type { CacheBlobs } from "./cache-blobs.ts";
import { type CachedTrees, eachTree } from "./cache-exporter.ts";

/** How the results of a build become layers of a cache. `hold` gets a handle on each, to release. */
export function exportOptions(
  how: { readonly compression: CompressionOptions; readonly mode: CacheExportMode },
  hold: (ref: ImmutableRef) => void,
  ctx: OpContext,
): CacheExportOptions<OpResult> {
  const { compression, mode } = how;
  return {
    mode,
    compression,
    ctx,
    resolveRemotes: (result) => {
      if (result.ref !== undefined) hold(result.ref.clone());
      return remotesOf(result, compression, ctx);
    },
    release: (result) => result.ref?.release(),
  };
}

async function remotesOf(
  { ref }: OpResult,
  compression: CompressionOptions,
  ctx: OpContext,
): Promise<readonly Remote[]> {
  if (ref === undefined) return [];
  const remote = await ref.toRemote({ compression, ctx: { signal: ctx.signal, session: ctx.sessions } });
  if (remote === undefined || remote.descriptors.length === 0) return [];
  return [{ descriptors: remote.descriptors, provider: remote }];
}

/** Collects the cache of a build and hands it to a backend. */
export async function runExport(
  trees: CachedTrees,
  how: { readonly sender: CacheSender; readonly mode: CacheExportMode; readonly blobs: CacheBlobs },
  ctx: OpContext,
): Promise<ReadonlyMap<string, string>> {
  const { sender, mode, blobs } = how;
  // until everything is sent, nothing of it may be pruned
  await using held = new DisposableStore();
  const options = exportOptions(
    { compression: sender.compression, mode },
    (ref) => {
      held.use(ref);
    },
    ctx,
  );
  const cache = await withStatus(ctx.progress, "preparing build cache for export", async () => {
    const chains = new CacheChains();
    for (const [tree] of eachTree(trees)) await exportCache(tree.keys, chains, options);
    return await blobs.marshal(chains, ctx);
  });
  return await withStatus(ctx.progress, "sending cache export", () => sender.send(cache, ctx));
}
