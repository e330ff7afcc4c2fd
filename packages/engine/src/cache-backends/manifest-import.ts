import { BuildError } from "@kiln/base";
import {
  annotationKeys,
  type Descriptor,
  detectManifestType,
  isIndexType,
  isManifestType,
  MAX_MANIFEST_BYTES,
  mediaTypes,
  parseManifestDocument,
} from "@kiln/oci";
import {
  type CacheChains,
  inlineConfig,
  parseCacheConfig,
  parseInlineRecords,
  readCacheConfig,
} from "@kiln/solver/remote-cache";
import { type OpContext, withStatus } from "../op-context.ts";
import { verified } from "../sources/image/image-origin.ts";
import { DESCRIPTION_ANNOTATION } from "./imported-results.ts";
import type { LayerProvider } from "./layer-provider.ts";

/** Largest cache config or image config that is read. Bytes. */
const MAX_CONFIG_BYTES = 32 << 20;
/** Most manifests of one image that are looked at for inline caches. */
const MAX_MANIFESTS = 256;
const MAX_INDEX_DEPTH = 4;

/**
 * Reads a cache by its manifest: a cache manifest or index, or else an image whose configs have inline
 * caches, of all its platforms.
 */
export async function importManifest(
  top: Descriptor,
  from: { readonly provider: LayerProvider; readonly chains: CacheChains; readonly ctx: OpContext },
): Promise<void> {
  const { provider, chains, ctx } = from;
  const bytes = await readDocument(provider, top, MAX_MANIFEST_BYTES, ctx);
  const type = detectManifestType(bytes);
  await withStatus(ctx.progress, `inferred cache manifest type: ${type}`, () => Promise.resolve());
  const doc = parseManifestDocument(bytes, top.mediaType);
  const all = doc.kind === "index" ? doc.index.manifests : [doc.manifest.config, ...doc.manifest.layers];
  const config = all.find((entry) => entry.mediaType === mediaTypes.cacheConfig);
  if (config === undefined) {
    await new InlineImport(from).read(bytes, top.mediaType, 0);
    return;
  }
  const text = await readText(provider, config, ctx);
  const layers = all.filter((entry) => entry.mediaType !== mediaTypes.cacheConfig);
  const descriptors = new Map(layers.map((layer) => [layer.digest, layer]));
  readCacheConfig(parseCacheConfig(text), { descriptors, provider }, chains);
}

class InlineImport {
  readonly #from: {
    readonly provider: LayerProvider;
    readonly chains: CacheChains;
    readonly ctx: OpContext;
  };
  readonly #seen = new Set<string>();

  constructor(from: {
    readonly provider: LayerProvider;
    readonly chains: CacheChains;
    readonly ctx: OpContext;
  }) {
    this.#from = from;
  }

  async read(bytes: Uint8Array, mediaType: string, depth: number): Promise<void> {
    const doc = parseManifestDocument(bytes, mediaType);
    if (doc.kind === "manifest") {
      await this.#image(doc.manifest);
      return;
    }
    if (depth >= MAX_INDEX_DEPTH)
      throw new BuildError("invalid_argument", "image index of a cache is nested too deeply");
    for (const entry of doc.index.manifests) {
      if (entry.annotations?.[annotationKeys.referenceType] !== undefined) continue;
      if (!isManifestType(entry.mediaType) && !isIndexType(entry.mediaType)) continue;
      if (this.#seen.has(entry.digest)) continue;
      this.#seen.add(entry.digest);
      if (this.#seen.size > MAX_MANIFESTS)
        throw new BuildError("invalid_argument", `image of a cache has more than ${MAX_MANIFESTS} manifests`);
      const { provider, ctx } = this.#from;
      const child = await readDocument(provider, entry, MAX_MANIFEST_BYTES, ctx);
      await this.read(child, entry.mediaType, depth + 1);
    }
  }

  async #image(manifest: {
    readonly config: Descriptor;
    readonly layers: readonly Descriptor[];
  }): Promise<void> {
    const { provider, chains, ctx } = this.#from;
    if (manifest.layers.length === 0) return;
    const image = parseImage(await readText(provider, manifest.config, ctx));
    if (image.cache === undefined || image.diffIds.length !== manifest.layers.length) return;
    const records = parseInlineRecords(image.cache);
    const descriptors = new Map<string, Descriptor>();
    for (const [i, layer] of manifest.layers.entries()) {
      const { created, createdBy } = image.history[i] ?? { created: "", createdBy: "" };
      descriptors.set(layer.digest, {
        ...layer,
        annotations: {
          ...layer.annotations,
          ...(created === "" ? {} : { [annotationKeys.createdAt]: created }),
          ...(createdBy === "" ? {} : { [DESCRIPTION_ANNOTATION]: createdBy }),
          [annotationKeys.uncompressed]: image.diffIds[i] as string,
        },
      });
    }
    const digests = manifest.layers.map((layer) => layer.digest);
    readCacheConfig(inlineConfig(records, digests), { descriptors, provider }, chains);
  }
}

interface CachedImage {
  /** JSON of the records. */
  readonly cache: string | undefined;
  readonly diffIds: readonly string[];
  /** Of the layers, without what made none. */
  readonly history: readonly { readonly created: string; readonly createdBy: string }[];
}

function parseImage(text: string): CachedImage {
  const config = asObject(JSON.parse(text));
  const diffIds = asList(asObject(config.rootfs).diff_ids).map(asText);
  const cache = asText(config["moby.buildkit.cache.v0"]);
  const history = asList(config.history)
    .map(asObject)
    .filter((entry) => entry.empty_layer !== true)
    .map((entry) => ({ created: asText(entry.created), createdBy: asText(entry.created_by) }));
  return {
    cache: cache === "" ? undefined : Buffer.from(cache, "base64").toString("utf8"),
    diffIds,
    history,
  };
}

function asObject(value: unknown): Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : {};
}

function asList(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : [];
}

function asText(value: unknown): string {
  return typeof value === "string" ? value : "";
}

async function readText(provider: LayerProvider, desc: Descriptor, ctx: OpContext): Promise<string> {
  const bytes = await readDocument(provider, desc, MAX_CONFIG_BYTES, ctx);
  return new TextDecoder().decode(bytes);
}

/** A whole document, verified. */
async function readDocument(
  provider: LayerProvider,
  desc: Descriptor,
  maxBytes: number,
  ctx: OpContext,
): Promise<Uint8Array> {
  if (desc.size > maxBytes) {
    throw new BuildError(
      "resource_exhausted",
      `blob ${desc.digest} is too large (${desc.size} > ${maxBytes})`,
    );
  }
  const chunks: Uint8Array[] = [];
  const source = provider.fetch(desc, { ids: ctx.sessions.ids(), signal: ctx.signal });
  for await (const chunk of verified(desc, source)) chunks.push(chunk);
  return Buffer.concat(chunks);
}
