import type { Remote, RemoteDescriptor } from "../cache/cache-source.ts";
import { type CacheChains, type ChainRecord, recordIds } from "./chains.ts";
import {
  type CacheConfig,
  type CacheConfigLayer,
  type CacheConfigRecord,
  formatNanoseconds,
} from "./config.ts";

/** A blob that a cache config names. */
export interface CacheBlob {
  readonly descriptor: RemoteDescriptor;
  /** That of the {@link Remote} it came with. */
  readonly provider: unknown;
}

/** A cache, ready to be stored. */
export interface MarshaledCache {
  readonly config: CacheConfig;
  /** The blobs it needs, by digest. */
  readonly blobs: ReadonlyMap<string, CacheBlob>;
}

/** Options of {@link marshalChains}. */
export interface MarshalOptions {
  /** Says which blobs can't be had any more; results that need one are left out. */
  readonly isMissing?: ((descriptor: RemoteDescriptor, provider: unknown) => boolean) | undefined;
}

interface Layer {
  readonly blob: string;
  readonly parent: Layer | undefined;
  readonly above: Map<string, Layer>;
}

/**
 * Writes chains as a cache config: of each record the newest result, layers shared, everything in an order
 * that depends on nothing but what is in it.
 */
export function marshalChains(chains: CacheChains, opts: MarshalOptions = {}): MarshaledCache {
  const layers = new LayerTree(opts);
  const tops = new Map<ChainRecord, { layer: Layer; createdAtNs: bigint }>();
  for (const record of chains.records) {
    const best = record.bestResult;
    const layer = best && layers.add(best.remote);
    if (layer) tops.set(record, { layer, createdAtNs: best.createdAtNs });
  }
  const layerIndex = layers.order();
  const records = sortRecords(chains);
  const recordIndex = new Map(records.map((record, i) => [record, i]));
  const config: CacheConfig = {};
  if (layerIndex.size > 0)
    config.layers = [...layerIndex.keys()].map((layer) => configLayer(layer, layerIndex));
  if (records.length > 0) {
    config.records = records.map((record) => {
      const out: CacheConfigRecord = {};
      const top = tops.get(record);
      if (top) {
        out.layers = [{ layer: layerIndex.get(top.layer)!, createdAt: formatNanoseconds(top.createdAtNs) }];
      }
      out.digest = record.digest;
      if (record.inputs.length > 0)
        out.inputs = record.inputs.map((links) => configLinks(links, recordIndex));
      return out;
    });
  }
  return { config, blobs: layers.blobs };
}

function configLayer(layer: Layer, index: ReadonlyMap<Layer, number>): CacheConfigLayer {
  const parent = layer.parent ? index.get(layer.parent)! : -1;
  return parent === 0 ? { blob: layer.blob } : { blob: layer.blob, parent };
}

function configLinks(
  links: ReadonlyMap<ChainRecord, ReadonlySet<string>>,
  index: ReadonlyMap<ChainRecord, number>,
): { selector?: string; link: number }[] {
  return [...links]
    .flatMap(([record, selectors]) =>
      [...selectors].map((selector) => ({ selector, link: index.get(record)! })),
    )
    .sort((a, b) => a.link - b.link || compareText(a.selector, b.selector))
    .map(({ selector, link }) => (selector === "" ? { link } : { selector, link }));
}

class LayerTree {
  readonly blobs = new Map<string, CacheBlob>();
  readonly #bottom = new Map<string, Layer>();
  readonly #all: Layer[] = [];
  readonly #opts: MarshalOptions;

  constructor(opts: MarshalOptions) {
    this.#opts = opts;
  }

  /** The topmost layer of `remote`, unless it has none or one of them is missing. */
  add(remote: Remote): Layer | undefined {
    const { descriptors, provider } = remote;
    if (descriptors.some((descriptor) => this.#opts.isMissing?.(descriptor, provider))) return undefined;
    let top: Layer | undefined;
    for (const descriptor of descriptors) {
      const beside = top ? top.above : this.#bottom;
      let layer = beside.get(descriptor.digest);
      if (!layer) {
        layer = { blob: descriptor.digest, parent: top, above: new Map() };
        beside.set(descriptor.digest, layer);
        this.#all.push(layer);
      }
      this.blobs.set(descriptor.digest, { descriptor: withOciType(descriptor), provider });
      top = layer;
    }
    return top;
  }

  /** All layers with their places, by blob and then by what lies below. */
  order(): Map<Layer, number> {
    const sorted = [...this.#all].sort(compareLayers);
    return new Map(sorted.map((layer, i) => [layer, i]));
  }
}

function compareLayers(a: Layer, b: Layer): number {
  let left: Layer | undefined = a;
  let right: Layer | undefined = b;
  while (left !== right) {
    if (!left) return -1;
    if (!right) return 1;
    const byBlob = compareText(left.blob, right.blob);
    if (byBlob !== 0) return byBlob;
    left = left.parent;
    right = right.parent;
  }
  return 0;
}

const OCI_TYPES: ReadonlyMap<string, string> = new Map([
  ["application/vnd.docker.image.rootfs.diff.tar", "application/vnd.oci.image.layer.v1.tar"],
  ["application/vnd.docker.image.rootfs.diff.tar.gzip", "application/vnd.oci.image.layer.v1.tar+gzip"],
  ["application/vnd.docker.image.rootfs.diff.tar.zstd", "application/vnd.oci.image.layer.v1.tar+zstd"],
  [
    "application/vnd.docker.image.rootfs.foreign.diff.tar",
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
  ],
  [
    "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
  ],
]);

function withOciType(descriptor: RemoteDescriptor): RemoteDescriptor {
  const mediaType = OCI_TYPES.get(descriptor.mediaType);
  return mediaType === undefined ? descriptor : { ...descriptor, mediaType };
}

interface SortedRecord {
  readonly record: ChainRecord;
  readonly id: string;
  /** Per input, in order: selector and digest of each link. */
  readonly links: readonly (readonly { readonly selector: string; readonly digest: string }[])[];
}

function sortRecords(chains: CacheChains): ChainRecord[] {
  const ids = recordIds(chains);
  const items: SortedRecord[] = [...chains.records].map((record) => ({
    record,
    id: ids.get(record)!,
    links: record.inputs.map((links) =>
      [...links]
        .flatMap(([input, selectors]) =>
          [...selectors].map((selector) => ({ selector, digest: input.digest, id: ids.get(input)! })),
        )
        .sort(
          (a, b) =>
            compareText(a.digest, b.digest) || compareText(a.selector, b.selector) || compareText(a.id, b.id),
        ),
    ),
  }));
  return items.sort(compareRecords).map((item) => item.record);
}

function compareRecords(a: SortedRecord, b: SortedRecord): number {
  const first = compareText(a.record.digest, b.record.digest) || a.links.length - b.links.length;
  if (first !== 0) return first;
  for (const [i, left] of a.links.entries()) {
    const right = b.links[i]!;
    if (left.length !== right.length) return left.length - right.length;
    for (const [j, link] of left.entries()) {
      const other = right[j]!;
      const byLink = compareText(link.selector, other.selector) || compareText(link.digest, other.digest);
      if (byLink !== 0) return byLink;
    }
  }
  return compareText(a.id, b.id);
}

function compareText(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
