import { BuildError, isBuildError, mapLimited } from "@kiln/base";
import { annotationKeys, type Descriptor, parseDescriptor } from "@kiln/oci";
import {
  type CacheChains,
  type CacheConfig,
  type CacheConfigLayer,
  formatCacheConfig,
  formatNanoseconds,
  type MarshaledCache,
  nanosecondsOf,
  parseCacheConfig,
  readCacheConfig,
} from "@kiln/solver/remote-cache";
import { type OpContext, withStatus } from "../../op-context.ts";
import type { CacheReader, CacheSender } from "../cache-backend.ts";
import { asDescriptor, type CacheBlobs } from "../cache-blobs.ts";
import { type BlobReader, LayerProvider } from "../layer-provider.ts";

/** Bytes that can be read again, from anywhere. */
export interface ObjectBody {
  readonly sizeBytes: number;
  read(range: { readonly offset: number; readonly length: number }): AsyncIterable<Uint8Array>;
}

/** A place for blobs by digest and cache configs by name: what object stores have in common. */
export interface ObjectStore {
  /** Whether a blob is there; one that is may be marked as used. */
  has(desc: Descriptor, ctx: OpContext): Promise<boolean>;
  put(desc: Descriptor, body: ObjectBody, ctx: OpContext): Promise<void>;
  /** Bytes of a blob. @throws `not_found` */
  get(desc: Descriptor, signal: AbortSignal): AsyncIterable<Uint8Array>;
  /** Rejects with `not_found` for a blob that isn't there. */
  check(desc: Descriptor, signal: AbortSignal): Promise<void>;
  /** Writes a config under all names that the export has. */
  putConfig(bytes: Uint8Array, ctx: OpContext): Promise<void>;
  /** Configs that the import asks for; those that aren't there are left out. */
  configs(ctx: OpContext): Promise<readonly Uint8Array[]>;
}

/** Blobs that are always compressed with gzip: these formats have no attribute for it. */
const COMPRESSION = { type: "gzip" } as const;
const ZERO_TIME = "0001-01-01T00:00:00Z";

/** Writes a cache into an object store: layers, then the config with what importers must know of them. */
export function objectSender(
  open: (ctx: OpContext) => Promise<ObjectStore>,
  at: { readonly blobs: CacheBlobs; readonly parallelism: number },
): CacheSender {
  return {
    compression: COMPRESSION,
    send: async (cache, ctx) => {
      const store = await open(ctx);
      await mapLimited([...cache.blobs.values()], at.parallelism, async (blob) => {
        const desc = asDescriptor(blob.descriptor);
        if (await store.has(desc, ctx)) return;
        await withStatus(ctx.progress, `writing layer ${desc.digest}`, async () => {
          await at.blobs.ensure(blob, ctx);
          const body: ObjectBody = {
            sizeBytes: desc.size,
            read: (range) => at.blobs.content.read(desc.digest, range),
          };
          await store.put(desc, body, ctx);
        });
      });
      await store.putConfig(new TextEncoder().encode(formatCacheConfig(annotated(cache))), ctx);
      return new Map();
    },
  };
}

/** Field order is that of BuildKit's struct. */
function annotated({ config, blobs }: MarshaledCache): CacheConfig {
  if (config.layers === undefined) return config;
  const layers = config.layers.map((layer): CacheConfigLayer => {
    const descriptor = blobs.get(layer.blob ?? "")?.descriptor;
    const diffID = descriptor?.annotations?.[annotationKeys.uncompressed];
    if (descriptor === undefined || diffID === undefined)
      throw new Error(`layer ${layer.blob} without uncompressed annotation`);
    const createdAt = descriptor.annotations?.[annotationKeys.createdAt];
    return {
      ...layer,
      annotations: {
        mediaType: descriptor.mediaType,
        diffID,
        ...(descriptor.size === 0 ? {} : { size: descriptor.size }),
        createdAt: createdAt === undefined ? ZERO_TIME : formatNanoseconds(nanosecondsOf(createdAt)),
      },
    };
  });
  return { ...config, layers };
}

/** Reads a cache out of an object store. */
export function objectReader(open: (ctx: OpContext) => Promise<ObjectStore>): CacheReader {
  return {
    open: async (ctx) => {
      const store = await open(ctx);
      return {
        read: async (chains) => {
          const provider = new ObjectLayers(store);
          for (const bytes of await store.configs(ctx)) readObjectConfig(bytes, provider, chains);
        },
      };
    },
  };
}

/** Adds the records of a config whose layers say themselves what they are. */
export function readObjectConfig(bytes: Uint8Array, provider: LayerProvider, chains: CacheChains): void {
  const config = parseCacheConfig(new TextDecoder().decode(bytes));
  const descriptors = new Map<string, Descriptor>();
  for (const layer of config.layers ?? []) {
    const desc = layerDescriptor(layer);
    descriptors.set(desc.digest, desc);
  }
  readCacheConfig(config, { descriptors, provider }, chains);
}

function layerDescriptor({ blob, annotations }: CacheConfigLayer): Descriptor {
  if (annotations === undefined) throw invalidLayer("missing annotations");
  const { diffID = "", createdAt, mediaType, size } = annotations;
  if (diffID === "") throw invalidLayer("missing diffid");
  // nothing would bound the download
  if (size === undefined || size === 0) throw invalidLayer("missing size");
  return parseDescriptor(
    {
      mediaType,
      digest: blob,
      size,
      annotations: {
        [annotationKeys.uncompressed]: diffID,
        ...(createdAt === ZERO_TIME ? {} : { [annotationKeys.createdAt]: createdAt }),
      },
    },
    "layer of a cache",
  );
}

function invalidLayer(what: string): BuildError {
  return new BuildError("invalid_argument", `cache layer with ${what}`);
}

/** Layers in an object store, read with the credentials of the import. */
class ObjectLayers extends LayerProvider {
  readonly #store: ObjectStore;
  readonly #found = new Set<string>();

  constructor(store: ObjectStore) {
    super();
    this.#store = store;
  }

  fetch(desc: Descriptor, { signal }: BlobReader): AsyncIterable<Uint8Array> {
    return this.#store.get(desc, signal);
  }

  override async check(desc: Descriptor, { signal }: BlobReader): Promise<void> {
    if (this.#found.has(desc.digest)) return;
    await this.#store.check(desc, signal);
    this.#found.add(desc.digest);
  }
}

/** `undefined` instead of `not_found`. */
export async function orAbsent<T>(work: Promise<T>): Promise<T | undefined> {
  try {
    return await work;
  } catch (error) {
    if (isBuildError(error, "not_found")) return undefined;
    throw error;
  }
}

/** A document as a body that can be sent. */
export function bytesBody(bytes: Uint8Array): ObjectBody {
  return {
    sizeBytes: bytes.length,
    read: async function* ({ offset, length }) {
      yield bytes.subarray(offset, offset + length);
    },
  };
}
