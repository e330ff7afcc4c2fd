import type { RemoteDescriptor } from "../cache/cache-source.ts";
import { CacheChains } from "./chains.ts";
import type { CacheConfig, CacheConfigLayer, CacheConfigRecord } from "./config.ts";
import { marshalChains } from "./marshal.ts";
import { readCacheConfig } from "./parse.ts";

/** Annotation with a layer's digest before compression. */
const UNCOMPRESSED = "containerd.io/uncompressed";
/** What BuildKit writes for chained results, whose time it doesn't keep. */
const NO_TIME = "0001-01-01T00:00:00Z";

/**
 * The records for an image's own config: only those whose layers the image has, with layer numbers that
 * are places in the image. `layers` are digests of the image's layers, compressed or not.
 *
 * @returns undefined when no result is made of the image's layers.
 */
export function inlineRecords(
  chains: CacheChains,
  layers: readonly string[],
): CacheConfigRecord[] | undefined {
  const { config, blobs } = marshalChains(chains);
  const places = new Map<string, Set<number>>();
  const descriptors = new Map<string, RemoteDescriptor>();
  const uncompressed = new Map<string, RemoteDescriptor[]>();
  for (const { descriptor } of blobs.values()) {
    const digest = descriptor.annotations?.[UNCOMPRESSED];
    if (digest === undefined) continue;
    uncompressed.set(digest, [...(uncompressed.get(digest) ?? []), descriptor]);
  }
  for (const [place, digest] of layers.entries()) {
    const exact = blobs.get(digest)?.descriptor;
    for (const descriptor of [...(exact ? [exact] : []), ...(uncompressed.get(digest) ?? [])]) {
      descriptors.set(descriptor.digest, descriptor);
      const at = places.get(descriptor.digest) ?? new Set();
      places.set(descriptor.digest, at.add(place));
    }
  }
  const own = new CacheChains();
  readCacheConfig(config, { descriptors, provider: undefined }, own);
  const marshaled = marshalChains(own).config;
  if (!marshaled.layers) return undefined;
  const all = marshaled.layers;
  return (marshaled.records ?? []).map((record) => placed(record, all, places));
}

function placed(
  record: CacheConfigRecord,
  layers: readonly CacheConfigLayer[],
  places: ReadonlyMap<string, ReadonlySet<number>>,
): CacheConfigRecord {
  const out: CacheConfigRecord = {};
  for (const { layer, createdAt } of record.layers ?? []) {
    const blobs = blobsOf(layers, layer);
    if (blobs.every((blob, i) => places.get(blob)?.has(i))) {
      out.layers = [...(out.layers ?? []), { layer: blobs.length - 1, createdAt }];
    } else {
      const chain = blobs.map((blob) => Math.max(...places.get(blob)!));
      out.chains = [...(out.chains ?? []), { layers: chain, createdAt: NO_TIME }];
    }
  }
  if (record.digest !== undefined) out.digest = record.digest;
  if (record.inputs !== undefined) out.inputs = record.inputs;
  return out;
}

function blobsOf(layers: readonly CacheConfigLayer[], top: number): string[] {
  const out: string[] = [];
  for (let index = top; index !== -1; index = layers[index]!.parent ?? 0) out.push(layers[index]!.blob!);
  return out.reverse();
}

/** The config that an image's inline records and layers amount to. */
export function inlineConfig(records: CacheConfigRecord[], layers: readonly string[]): CacheConfig {
  return { layers: layers.map((blob, i) => ({ blob, parent: i - 1 })), records };
}
