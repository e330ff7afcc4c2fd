import { BuildError } from "@kiln/base";
import {
  annotationKeys,
  type Descriptor,
  type Digest,
  digestProblem,
  isIndexType,
  isManifestType,
  MAX_MANIFEST_BYTES,
  type Manifest,
  mediaTypes,
  onlyPlatform,
  type Platform,
  parseManifestDocument,
  sortByPlatform,
} from "@kiln/oci";
import type { ContentStore } from "@kiln/store";
import { invalid } from "../source-attrs.ts";
import type { DocumentLeases } from "./document-leases.ts";
import type { ImageOrigin } from "./image-origin.ts";

/** A layer and the digest of what it unpacks to. */
export interface ImageLayer {
  /** Carries `containerd.io/uncompressed`. */
  readonly desc: Descriptor;
  readonly diffId: Digest;
}

/** Everything of an image but its layers' bytes. */
export interface PulledImage {
  /** What the name points to: a manifest or an index. */
  readonly main: Descriptor;
  readonly manifest: Manifest;
  readonly config: Descriptor;
  readonly configData: Uint8Array;
  /** Index, manifest and config, in the content store. */
  readonly documents: readonly Descriptor[];
}

/** Where documents are kept. */
export interface PullStores {
  readonly content: ContentStore;
  readonly documents: DocumentLeases;
}

const MAX_CONFIG_BYTES = 16 * 1024 * 1024;
const MAX_INDEX_DEPTH = 5;
const SCHEMA1_REMOVED =
  "support Docker Image manifest version 2, schema 1 has been removed. " +
  "More information at https://docs.docker.com/go/deprecated-image-specs/";

/**
 * Resolves an image and gets its index, manifest and config for a platform into the content store, where a
 * lease of five minutes keeps them.
 *
 * @throws BuildError `not_found` when there's nothing for the platform.
 */
export async function pullManifests(
  origin: ImageOrigin,
  platform: Platform,
  stores: PullStores,
  signal: AbortSignal,
): Promise<PulledImage> {
  const main = await origin.resolve(signal);
  if (main.mediaType === mediaTypes.dockerManifestV1) throw new BuildError("already_exists", SCHEMA1_REMOVED);
  const pull = new Pull(origin, platform, stores, signal);
  const found = await pull.manifest(main, 0);
  if (!found) {
    throw new BuildError("not_found", `no match for platform in manifest: not found`);
  }
  return { main, ...found, documents: pull.documents };
}

class Pull {
  readonly documents: Descriptor[] = [];
  readonly #origin: ImageOrigin;
  readonly #platform: Platform;
  readonly #stores: PullStores;
  readonly #signal: AbortSignal;
  readonly #lease: { add(desc: Descriptor): void };

  constructor(origin: ImageOrigin, platform: Platform, stores: PullStores, signal: AbortSignal) {
    this.#origin = origin;
    this.#platform = platform;
    this.#stores = stores;
    this.#signal = signal;
    this.#lease = stores.documents.pull();
  }

  /** The best manifest below `desc`; undefined when none is for the platform. */
  async manifest(
    desc: Descriptor,
    depth: number,
  ): Promise<{ manifest: Manifest; config: Descriptor; configData: Uint8Array } | undefined> {
    if (depth > MAX_INDEX_DEPTH) throw invalid("image index is nested too deeply");
    const kept = this.documents.length;
    const data = await this.#document(desc, MAX_MANIFEST_BYTES);
    const doc = parseManifestDocument(data, desc.mediaType);
    if (doc.kind === "manifest") {
      const config = doc.manifest.config;
      const configData = await this.#document(config, MAX_CONFIG_BYTES);
      if (depth > 0 && desc.platform === undefined && !this.#suits(configPlatform(configData))) {
        this.documents.length = kept;
        return undefined;
      }
      return { manifest: doc.manifest, config, configData };
    }
    const matcher = onlyPlatform(this.#platform);
    const candidates = doc.index.manifests.filter(
      (entry) =>
        (isManifestType(entry.mediaType) || isIndexType(entry.mediaType)) &&
        (entry.platform === undefined || matcher.match(entry.platform)),
    );
    for (const entry of sortByPlatform(candidates, matcher, (d) => d.platform)) {
      const found = await this.manifest(entry, depth + 1);
      if (found) return found;
    }
    this.documents.length = kept;
    return undefined;
  }

  #suits(platform: Platform | undefined): boolean {
    return platform !== undefined && onlyPlatform(this.#platform).match(platform);
  }

  async #document(desc: Descriptor, maxBytes: number): Promise<Uint8Array> {
    const { content } = this.#stores;
    if (desc.size > maxBytes) {
      throw new BuildError(
        "resource_exhausted",
        `${desc.digest} has ${desc.size} bytes, more than ${maxBytes}`,
      );
    }
    this.#lease.add(desc);
    if (!content.has(desc.digest)) {
      await content.write(this.#origin.fetch(desc, this.#signal), {
        digest: desc.digest,
        sizeBytes: desc.size,
        maxBytes,
        signal: this.#signal,
      });
    }
    this.#label(desc.digest);
    this.documents.push(desc);
    return content.readAll(desc.digest, maxBytes);
  }

  /** Notes the repository that the blob came from. */
  #label(digest: Digest): void {
    const { repository } = this.#origin;
    if (repository === undefined) return;
    const slash = repository.indexOf("/");
    const key = annotationKeys.distributionSourcePrefix + repository.slice(0, slash);
    const known = this.#stores.content.info(digest).labels.get(key)?.split(",") ?? [];
    const path = repository.slice(slash + 1);
    if (known.includes(path)) return;
    this.#stores.content.setLabels(digest, { [key]: [...known, path].sort().join(",") });
  }
}

function parseConfig(data: Uint8Array): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(Buffer.from(data).toString("utf8"));
    if (typeof value === "object" && value !== null) return value as Record<string, unknown>;
  } catch (error) {
    throw invalid("image config is not valid JSON", error);
  }
  throw invalid("image config is not a JSON object");
}

function configPlatform(data: Uint8Array): Platform | undefined {
  const { os, architecture, variant, ...rest } = parseConfig(data);
  if (typeof os !== "string" || typeof architecture !== "string") return undefined;
  const version = rest["os.version"];
  return {
    os,
    architecture,
    ...(typeof variant === "string" ? { variant } : {}),
    ...(typeof version === "string" ? { "os.version": version } : {}),
  };
}

/** No image can be mounted with more: overlayfs stacks 500. */
const MAX_LAYERS = 1000;

/** Pairs layers with diff ids; their numbers must agree. */
export function imageLayers({ manifest, configData }: PulledImage): ImageLayer[] {
  const rootfs = parseConfig(configData).rootfs;
  const ids = typeof rootfs === "object" && rootfs !== null && "diff_ids" in rootfs ? rootfs.diff_ids : [];
  const diffIds: unknown[] = Array.isArray(ids) ? ids : [];
  const count = Math.max(diffIds.length, manifest.layers.length);
  if (count > MAX_LAYERS) throw invalid(`the image has ${count} layers, more than ${MAX_LAYERS}`);
  if (diffIds.length !== manifest.layers.length) {
    throw invalid(
      `mismatched image rootfs and manifest layers [${diffIds.join(" ")}] [${manifest.layers.map((layer) => layer.digest).join(" ")}]`,
    );
  }
  return manifest.layers.map((layer, i) => {
    const diffId = diffIds[i];
    const problem = typeof diffId === "string" ? digestProblem(diffId) : "not a digest";
    if (problem !== undefined) throw invalid(`invalid diff id of layer ${i}: ${problem}`);
    const annotations = { ...layer.annotations, [annotationKeys.uncompressed]: diffId as string };
    return { desc: { ...layer, annotations }, diffId: diffId as Digest };
  });
}
