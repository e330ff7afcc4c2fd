import { DisposableStore } from "@kiln/base";
import { exportCache } from "@kiln/solver";
import { CacheChains, inlineRecords } from "@kiln/solver/remote-cache";
import type { ImmutableRef } from "@kiln/store";
import type { InlineCache } from "../exporters/exporter.ts";
import { withStatus } from "../op-context.ts";
import { type CachedTrees, eachTree } from "./cache-exporter.ts";
import { exportOptions } from "./run-export.ts";

/** The records of images' own layers (`type=inline`), for their configs. Always in `min` mode. */
export function inlineCache(trees: CachedTrees): InlineCache {
  return (ref, layers, ctx) =>
    withStatus(ctx.progress, "preparing layers for inline cache", async () => {
      const tree = treeOf(trees, ref);
      if (tree === undefined || layers.digests.length === 0) return undefined;
      const chains = new CacheChains();
      await using held = new DisposableStore();
      const how = { compression: layers.compression, mode: "min" } as const;
      const hold = (one: ImmutableRef): void => {
        held.use(one);
      };
      await exportCache(tree.keys, chains, exportOptions(how, hold, ctx));
      const records = inlineRecords(chains, layers.digests);
      return records === undefined ? undefined : new TextEncoder().encode(JSON.stringify(records));
    });
}

function treeOf(
  trees: CachedTrees,
  ref: ImmutableRef | undefined,
): Parameters<typeof eachTree>[0]["ref"] | undefined {
  for (const [tree, own] of eachTree(trees)) if (own !== undefined && own.id === ref?.id) return tree;
  return undefined;
}
