import { randomUUID } from "node:crypto";
import { join } from "node:path";
import type { LayerPool } from "@kiln/archive";
import { isCanceled } from "@kiln/base";
import { layerTypeWithCompression, mediaTypes } from "@kiln/oci";
import type { CompressionOptions, ContentStore, Remote } from "@kiln/store";
import { type OpContext, withStatus } from "../../op-context.ts";

/** Annotation that BuildKit puts on rewritten layers; the value is the epoch. */
const REWRITTEN = "buildkit/rewritten-timestamp";

/** How layers are rewritten. */
export interface RewriteOptions {
  readonly content: ContentStore;
  readonly layers: LayerPool;
  /** Seconds; without it nothing is rewritten, with a warning. */
  readonly epoch: number | undefined;
  /** Layers of the base image, which stay as they are. */
  readonly baseDiffIds: readonly string[];
  readonly compression: CompressionOptions;
  readonly ctx: OpContext;
}

/** Gives the files of all layers but the base image's a modification time no later than the epoch. */
export async function rewriteLayers(remote: Remote, opts: RewriteOptions): Promise<Remote> {
  const { epoch, ctx } = opts;
  if (epoch === undefined) {
    ctx.progress.warning({
      short: "rewrite-timestamp is specified, but no source-date-epoch was found",
    });
    return remote;
  }
  const text = new Date(epoch * 1000)
    .toISOString()
    .replace("T", " ")
    .replace(/\.000Z$/, " +0000 UTC");
  return await withStatus(ctx.progress, `rewriting layers with source-date-epoch ${epoch} (${text})`, () =>
    rewriteAll(remote, epoch, opts),
  );
}

async function rewriteAll(remote: Remote, epoch: number, opts: RewriteOptions): Promise<Remote> {
  let fromBase = true;
  const plan = remote.layers.map((layer, at) => {
    fromBase &&= opts.baseDiffIds[at] === layer.diffId;
    return !fromBase;
  });
  const layers = await Promise.all(
    remote.descriptors.map(async (descriptor, at) => {
      const layer = remote.layers[at];
      if (plan[at] !== true || layer === undefined) return { descriptor, layer };
      try {
        return await rewriteOne(descriptor, layer, { ...opts, epoch });
      } catch (error) {
        if (isCanceled(error)) throw error;
        opts.ctx.progress.warning({
          short: `failed to rewrite layer ${at + 1}/${remote.descriptors.length} to match source-date-epoch ${epoch}`,
        });
        return { descriptor, layer };
      }
    }),
  );
  return {
    descriptors: layers.map((item) => item.descriptor),
    layers: layers.flatMap((item) => (item.layer === undefined ? [] : [item.layer])),
  };
}

type Layer = Remote["layers"][number];
type LayerDescriptor = Remote["descriptors"][number];

async function rewriteOne(
  descriptor: LayerDescriptor,
  layer: Layer,
  opts: RewriteOptions & { readonly epoch: number },
): Promise<{ descriptor: LayerDescriptor; layer: Layer }> {
  const { content, epoch, compression, ctx } = opts;
  const output = join(content.ingestDir, `rewrite-${randomUUID()}`);
  const made = await opts.layers.run(
    {
      kind: "convert",
      file: content.path(descriptor.digest),
      output,
      compression: {
        kind: compression.type,
        ...(compression.level === undefined ? {} : { level: compression.level }),
      },
      sourceDateEpoch: epoch,
    },
    { signal: ctx.signal },
  );
  await content.adopt(output, made);
  const kind = compression.type === "estargz" ? "gzip" : compression.type;
  return {
    descriptor: {
      ...descriptor,
      mediaType: layerTypeWithCompression(mediaTypes.ociLayer, kind),
      digest: made.digest,
      size: made.sizeBytes,
      annotations: { ...made.annotations, [REWRITTEN]: String(epoch) },
    },
    layer: { ...layer, diffId: made.diffId, lazy: false },
  };
}
