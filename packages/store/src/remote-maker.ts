import { join } from "node:path";
import { type CompressionKind, checkCompression } from "@kiln/archive";
import { BuildError, DisposableStore } from "@kiln/base";
import { newId } from "@kiln/formats";
import {
  annotationKeys,
  type Descriptor,
  type Digest,
  distributableType,
  dockerMediaType,
  layerCompression,
  layerTypeWithCompression,
  mediaTypes,
  ociMediaType,
} from "@kiln/oci";
import { localMount } from "@kiln/sys";
import type { BlobFetcher } from "./blob-fetcher.ts";
import { Flights } from "./flights.ts";
import { goTime } from "./go-time.ts";
import type { CacheRecord } from "./record.ts";
import type { CompressionOptions, LayerInfo, RefContext, Remote, RemoteOptions } from "./ref.ts";
import type { RefDeps } from "./ref-deps.ts";
import type { TreeExtractor } from "./tree-extractor.ts";

/** Gives the layers of records as blobs; makes and converts them when asked to. */
export class RemoteMaker {
  readonly #deps: RefDeps;
  readonly #blobs: BlobFetcher;
  readonly #trees: TreeExtractor;
  readonly #flights = new Flights();

  constructor(deps: RefDeps, blobs: BlobFetcher, trees: TreeExtractor) {
    this.#deps = deps;
    this.#blobs = blobs;
    this.#trees = trees;
  }

  /** See `ImmutableRef.toRemote`. The caller holds the record and has finalized it. */
  async make(record: CacheRecord, opts: RemoteOptions): Promise<Remote | undefined> {
    const { records } = this.#deps;
    checkCompression({ kind: opts.compression.type, ...levelOf(opts.compression) });
    const layers = records.layers(record);
    for (const layer of layers) this.#forgetLostBlob(layer);
    if (opts.createIfNeeded === false && layers.some((layer) => !layer.state.blob)) return undefined;
    const descriptors = await Promise.all(layers.map((layer) => this.#layer(layer, opts)));
    for (const layer of layers) records.nameChain(layer);
    records.nameChain(record);
    return this.#remote(layers, descriptors);
  }

  #remote(layers: readonly CacheRecord[], descriptors: readonly Descriptor[]): Remote {
    return { descriptors, layers: layers.map((layer, i) => this.#info(layer, descriptors[i] as Descriptor)) };
  }

  /** A blob that is gone for good is made anew from the tree, when there is one. */
  #forgetLostBlob(record: CacheRecord): void {
    const { blob, remotes, snapshot } = record.state;
    if (!blob || snapshot === undefined || this.#blobs.canHave(blob.digest, remotes)) return;
    this.#deps.records.update(record, { blob: undefined, blobChainId: undefined });
  }

  async #layer(record: CacheRecord, opts: RemoteOptions): Promise<Descriptor> {
    using _hold = this.#deps.records.hold(record);
    const { compression, ctx } = opts;
    if (!record.state.blob) {
      const key = `create-${record.id}`;
      await this.#flights.run(key, ctx, (shared) => this.#create(record, compression, shared));
    }
    const blob = record.state.blob as Descriptor;
    let desc = blob;
    if (compression.force && !isCompressed(blob, compression.type)) {
      desc = await this.#variant(record, compression, ctx);
    }
    return describe(record, desc, { ...opts, lazy: !this.#deps.content.has(desc.digest) });
  }

  async #variant(record: CacheRecord, compression: CompressionOptions, ctx: RefContext): Promise<Descriptor> {
    const { type } = compression;
    const known = record.state.variants.find((desc) => isCompressed(desc, type));
    if (known && this.#deps.content.has(known.digest)) return known;
    const blob = record.state.blob as Descriptor;
    return await this.#flights.run(`convert-${blob.digest}-${type}`, ctx, async (shared) => {
      using _hold = this.#deps.records.hold(record);
      await this.#blobs.ensure(record, blob, shared);
      return await this.#convert(record, blob, { compression, ctx: shared });
    });
  }

  async #convert(
    record: CacheRecord,
    blob: Descriptor,
    how: { readonly compression: CompressionOptions; readonly ctx: RefContext },
  ): Promise<Descriptor> {
    const { content, layers, records } = this.#deps;
    const { compression, ctx } = how;
    const output = join(content.ingestDir, newId());
    const made = await layers.run(
      {
        kind: "convert",
        file: content.path(blob.digest),
        output,
        compression: { kind: compression.type, ...levelOf(compression) },
      },
      { signal: ctx.signal, onProgress: progress(ctx, blob, "converting") },
    );
    // The table of contents of eStargz counts for the uncompressed bytes.
    const keepsBytes = compression.type !== "estargz";
    if (keepsBytes && record.state.diffId && made.diffId !== record.state.diffId) {
      throw new BuildError(
        "data_loss",
        `layer ${blob.digest} holds ${made.diffId}, not ${record.state.diffId}`,
      );
    }
    await content.adopt(output, made);
    content.setLabels(made.digest, { [annotationKeys.uncompressed]: made.diffId });
    const desc: Descriptor = {
      mediaType: typeFor(blob.mediaType, compression.type),
      digest: made.digest,
      size: made.sizeBytes,
      ...(blob.urls ? { urls: blob.urls } : {}),
      ...(made.annotations ? { annotations: made.annotations } : {}),
    };
    const others = record.state.variants.filter((variant) => compressionOf(variant) !== compression.type);
    records.update(record, { variants: [...others, desc], size: undefined });
    return desc;
  }

  /** Makes the blob of a layer from its tree and the one below. */
  async #create(record: CacheRecord, compression: CompressionOptions, ctx: RefContext): Promise<void> {
    const { content, layers, records, snapshotter } = this.#deps;
    if (record.state.blob) return;
    using _hold = records.hold(record);
    const [lowerId, upperId] =
      record.state.kind === "diff" ? record.state.parents : [record.state.parents[0] ?? "", record.id];
    const lower = lowerId ? records.get(lowerId) : undefined;
    const upper = upperId ? records.get(upperId) : undefined;
    for (const needed of [lower, upper]) if (needed) await this.#trees.extract(needed, ctx);
    await using mounted = new DisposableStore();
    const show = (tree: CacheRecord | undefined): string =>
      mounted.use(
        localMount(tree ? this.#trees.mounts(tree) : [EMPTY], {
          forReading: true,
          tmpDir: this.#deps.mountRoot,
        }),
      ).path;
    const own = upper?.state.snapshot && snapshotter.upperDir(upper.state.snapshot);
    const isOnLower =
      own && snapshotter.stat(upper.state.snapshot as string).parent === lower?.state.snapshot;
    const output = join(content.ingestDir, newId());
    const made = await layers.run(
      {
        kind: "diff",
        opts: {
          ...(lower ? { lowerDir: show(lower) } : {}),
          upperDir: isOnLower ? own : show(upper),
          ...(isOnLower ? { overlayUpperDir: own, overlayXattrPrefix: snapshotter.xattrPrefix } : {}),
        },
        output,
        compression: { kind: compression.type, ...levelOf(compression) },
      },
      { signal: ctx.signal, onProgress: progress(ctx, { digest: record.id, size: 0 }, "creating") },
    );
    await content.adopt(output, made);
    content.setLabels(made.digest, { [annotationKeys.uncompressed]: made.diffId });
    const blob: Descriptor = {
      mediaType: typeFor(mediaTypes.ociLayer, compression.type),
      digest: made.digest,
      size: made.sizeBytes,
      ...(made.annotations ? { annotations: made.annotations } : {}),
    };
    records.update(record, { blob, diffId: made.diffId, size: undefined });
  }

  #info(record: CacheRecord, desc: Descriptor): LayerInfo {
    const { state } = record;
    return {
      id: record.id,
      description: state.description,
      createdAt: state.createdAt,
      diffId: (desc.annotations?.[annotationKeys.uncompressed] ?? state.diffId) as Digest,
      lazy: !this.#deps.content.has(desc.digest),
      remotes: state.remotes,
    };
  }

  /** See `ImmutableRef.availableRemotes`. */
  available(record: CacheRecord): Remote[] {
    const layers = this.#deps.records.layers(record);
    if (layers.length === 0 || layers.some((layer) => !layer.state.blob)) return [];
    const main = layers.map((layer) => describe(layer, layer.state.blob as Descriptor, { lazy: false }));
    const remotes: Remote[] = [this.#remote(layers, main)];
    const kinds = new Set(layers.flatMap((layer) => layer.state.variants.map(compressionOf)));
    for (const kind of kinds) {
      const descriptors = layers.map((layer) => {
        const variant = layer.state.variants.find((desc) => compressionOf(desc) === kind);
        return describe(layer, variant ?? (layer.state.blob as Descriptor), { lazy: false });
      });
      remotes.push(this.#remote(layers, descriptors));
    }
    return remotes;
  }
}

const EMPTY = { type: "tmpfs", source: "tmpfs", options: ["ro", "size=4k"] } as const;

function levelOf(compression: CompressionOptions): { readonly level?: number } {
  return compression.level === undefined ? {} : { level: compression.level };
}

function compressionOf(desc: Descriptor): CompressionKind | undefined {
  if (desc.annotations?.[annotationKeys.stargzTocDigest] !== undefined) return "estargz";
  return layerCompression(desc.mediaType);
}

/** eStargz is gzip too. */
function isCompressed(desc: Descriptor, kind: CompressionKind): boolean {
  const has = compressionOf(desc);
  return has === kind || (has === "estargz" && kind === "gzip");
}

function typeFor(mediaType: string, kind: CompressionKind): string {
  return layerTypeWithCompression(ociMediaType(mediaType), kind === "estargz" ? "gzip" : kind);
}

function progress(
  ctx: RefContext,
  desc: { readonly digest: string; readonly size: number },
  action: "converting" | "creating",
): (bytes: number) => void {
  return (current) =>
    ctx.onProgress?.({ digest: desc.digest, action, current, total: desc.size, done: false });
}

/** The descriptor of a layer for the outside, with the annotations that BuildKit puts on it. */
function describe(
  record: CacheRecord,
  desc: Descriptor,
  how: {
    readonly lazy: boolean;
    readonly compression?: CompressionOptions;
    readonly preferNondistributable?: boolean;
  },
): Descriptor {
  const { state } = record;
  const keepsUrls = how.preferNondistributable === true && (desc.urls?.length ?? 0) > 0;
  let mediaType = keepsUrls ? desc.mediaType : distributableType(desc.mediaType);
  if (how.compression) {
    const needsOci = how.compression.type === "estargz";
    const oci = how.compression.ociTypes !== false || needsOci;
    mediaType = oci ? ociMediaType(mediaType) : dockerMediaType(mediaType);
  }
  const annotations: Record<string, string> = { ...desc.annotations };
  if (state.diffId) annotations[annotationKeys.uncompressed] ??= state.diffId;
  annotations[annotationKeys.createdAt] = goTime(state.createdAt);
  if (how.lazy) addSources(annotations, state.imageRefs);
  return {
    mediaType,
    digest: desc.digest,
    size: desc.size,
    ...(keepsUrls ? { urls: desc.urls } : {}),
    annotations,
  };
}

/** Says in which repositories a layer that isn't here can be found, for mounting it from one to another. */
function addSources(annotations: Record<string, string>, imageRefs: readonly string[]): void {
  for (const ref of imageRefs) {
    const match = /^([^/]+)\/([^@]+?)(?::[^:/@]+)?(?:@.*)?$/.exec(ref);
    if (!match) continue;
    const key = `${annotationKeys.distributionSourcePrefix}${(match[1] as string).replace(/:\d+$/, "")}`;
    const repositories = new Set((annotations[key] ?? "").split(",").filter((name) => name !== ""));
    annotations[key] = [...repositories.add(match[2] as string)].join(",");
  }
}
