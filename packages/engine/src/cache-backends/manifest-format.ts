import { createHash } from "node:crypto";
import { BuildError, mapLimited, wrapError } from "@kiln/base";
import {
  annotationKeys,
  type Descriptor,
  descriptorJson,
  dockerMediaType,
  indexJson,
  manifestJson,
  mediaTypes,
} from "@kiln/oci";
import { type CacheBlob, formatCacheConfig, type MarshaledCache } from "@kiln/solver/remote-cache";
import type { CompressionOptions } from "@kiln/store";
import { type GoJson, goJsonText } from "../cache-digest/go-json.ts";
import { parseCompression } from "../exporters/image/commit-options.ts";
import { type OpContext, withStatus } from "../op-context.ts";
import { type CacheAttrs, flagAttr, readAttrs } from "./cache-attrs.ts";
import { asDescriptor } from "./cache-blobs.ts";

/** How a cache is written as a manifest. */
export interface ManifestFormat {
  readonly ociTypes: boolean;
  /** As an image manifest instead of an index. */
  readonly imageManifest: boolean;
  readonly compression: CompressionOptions;
}

/** Key of `ExporterResponse` with the descriptor of the written manifest. */
export const MANIFEST_RESPONSE = "cache.manifest";
const WRITES_AT_ONCE = 4;

const SPECS = {
  "oci-mediatypes": flagAttr(true),
  "image-manifest": flagAttr(undefined),
};

/** Reads the attributes that the registry and local exporters share. */
export function manifestFormat(attrs: CacheAttrs): ManifestFormat {
  const compression = parseCompression((key) => attrs.get(key));
  const values = readAttrs(attrs, SPECS);
  const ociTypes = values["oci-mediatypes"];
  return { ociTypes, imageManifest: values["image-manifest"] ?? ociTypes, compression };
}

/** Where a cache in the manifest format goes. */
export interface ManifestTarget {
  layer(blob: CacheBlob, ctx: OpContext): Promise<void>;
  config(desc: Descriptor, bytes: Uint8Array, ctx: OpContext): Promise<void>;
  /** Last of all; makes the cache visible. */
  manifest(desc: Descriptor, bytes: Uint8Array, ctx: OpContext): Promise<void>;
}

/** Writes layers, config and manifest, in that order. An empty cache isn't written. */
export async function writeManifestCache(
  cache: MarshaledCache,
  format: ManifestFormat,
  target: ManifestTarget,
  ctx: OpContext,
): Promise<ReadonlyMap<string, string>> {
  const { config, blobs } = cache;
  if ((config.layers ?? []).length === 0) {
    await withStatus(ctx.progress, "skipping cache export for empty result", () => Promise.resolve());
    return new Map();
  }
  if (format.imageManifest && !format.ociTypes) {
    throw new BuildError(
      "invalid_argument",
      "invalid configuration for remote cache, OCI mediatypes are required for image-manifest cache format",
    );
  }
  await mapLimited([...blobs.values()], WRITES_AT_ONCE, (blob) =>
    withStatus(ctx.progress, `writing layer ${blob.descriptor.digest}`, () =>
      named("error writing layer blob", () => target.layer(blob, ctx)),
    ),
  );
  const layers = (config.layers ?? []).map((layer) => {
    const blob = blobs.get(layer.blob ?? "");
    if (blob === undefined) throw new Error(`missing blob ${layer.blob}`);
    return layerEntry(asDescriptor(blob.descriptor), format.ociTypes);
  });
  const configBytes = new TextEncoder().encode(formatCacheConfig(config));
  const configDesc = descriptorOf(configBytes, mediaTypes.cacheConfig);
  await withStatus(ctx.progress, `writing config ${configDesc.digest}`, () =>
    named("error writing config blob", () => target.config(configDesc, configBytes, ctx)),
  );
  const { mediaType, text } = manifestText(layers, configDesc, format);
  const bytes = new TextEncoder().encode(text);
  const desc = descriptorOf(bytes, mediaType);
  const kind = format.imageManifest ? "cache image manifest" : "cache manifest";
  await withStatus(ctx.progress, `writing ${kind} ${desc.digest}`, () =>
    named("error writing manifest blob", () => target.manifest(desc, bytes, ctx)),
  );
  return new Map([[MANIFEST_RESPONSE, goJsonText(descriptorJson(desc) as GoJson)]]);
}

async function named(failure: string, call: () => Promise<void>): Promise<void> {
  try {
    await call();
  } catch (error) {
    throw wrapError(error, failure);
  }
}

function manifestText(
  layers: readonly Descriptor[],
  config: Descriptor,
  format: ManifestFormat,
): { readonly mediaType: string; readonly text: string } {
  if (format.imageManifest) {
    const mediaType = mediaTypes.ociManifest;
    const json = manifestJson({ schemaVersion: 2, mediaType, config, layers });
    return { mediaType, text: goJsonText(json as GoJson) };
  }
  const mediaType = format.ociTypes ? mediaTypes.ociIndex : mediaTypes.dockerManifestList;
  const json = indexJson({ schemaVersion: 2, mediaType, manifests: [...layers, config] });
  return { mediaType, text: goJsonText(json as GoJson) };
}

/** A layer as it stands in the manifest: without the notes on where it came from. */
function layerEntry(desc: Descriptor, ociTypes: boolean): Descriptor {
  const annotations = Object.entries(desc.annotations ?? {}).filter(
    ([key]) => !key.startsWith(annotationKeys.distributionSourcePrefix),
  );
  return {
    ...desc,
    mediaType: ociTypes ? desc.mediaType : dockerMediaType(desc.mediaType),
    annotations: Object.fromEntries(annotations),
  };
}

function descriptorOf(bytes: Uint8Array, mediaType: string): Descriptor {
  const digest = `sha256:${createHash("sha256").update(bytes).digest("hex")}` as const;
  return { mediaType, digest, size: bytes.length };
}
