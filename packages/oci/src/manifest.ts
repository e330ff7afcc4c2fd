import { BuildError } from "@kiln/base";
import { type Digest, digestProblem } from "./digest.ts";
import { dockerMediaType, isIndexType, isManifestType, mediaTypes } from "./media-types.ts";
import type { Platform } from "./platform.ts";

/** String map of an OCI document. Keys come from outside: read it with `Object.hasOwn` or `Object.entries`. */
export type Annotations = Readonly<Record<string, string>>;

/** Pointer to a blob. Field names are those of the JSON, so `JSON.parse` gives one. */
export interface Descriptor {
  readonly mediaType: string;
  readonly digest: Digest;
  /** Bytes. */
  readonly size: number;
  readonly urls?: readonly string[] | undefined;
  readonly annotations?: Annotations | undefined;
  /** The content itself in base64. */
  readonly data?: string | undefined;
  readonly platform?: Platform | undefined;
  readonly artifactType?: string | undefined;
}

/** An image manifest. */
export interface Manifest {
  readonly schemaVersion: 2;
  readonly mediaType?: string | undefined;
  readonly artifactType?: string | undefined;
  readonly config: Descriptor;
  readonly layers: readonly Descriptor[];
  readonly subject?: Descriptor | undefined;
  readonly annotations?: Annotations | undefined;
}

/** An OCI index or a Docker manifest list. */
export interface Index {
  readonly schemaVersion: 2;
  readonly mediaType?: string | undefined;
  readonly artifactType?: string | undefined;
  readonly manifests: readonly Descriptor[];
  readonly subject?: Descriptor | undefined;
  readonly annotations?: Annotations | undefined;
}

/** A manifest or an index, told apart. */
export type ManifestDocument =
  | { readonly kind: "manifest"; readonly mediaType: string; readonly manifest: Manifest }
  | { readonly kind: "index"; readonly mediaType: string; readonly index: Index };

/** Largest manifest or index that is read (CVE-2023-25153). Bytes. */
export const MAX_MANIFEST_BYTES = 4 * 1024 * 1024;
/** Most descriptors in one list. */
const MAX_DESCRIPTORS = 100_000;

type Json = Readonly<Record<string, unknown>>;

/**
 * Reads a manifest or index of a declared media type.
 *
 * A document that could be taken for the other kind is refused (CVE-2021-41190): a manifest must have no
 * `manifests`, an index no `config`, `layers` or `fsLayers`, and a `mediaType` inside must agree with the
 * declared one. An empty or generic `declared` type lets the document speak for itself.
 */
export function parseManifestDocument(data: Uint8Array | string, declared = ""): ManifestDocument {
  const doc = parseDocument(data);
  const mediaType = documentType(doc, declared);
  if (isIndexType(mediaType)) {
    return {
      kind: "index",
      mediaType,
      index: {
        ...head(doc),
        manifests: descriptorList(doc.manifests, "manifests"),
      },
    };
  }
  return {
    kind: "manifest",
    mediaType,
    manifest: {
      ...head(doc),
      config: parseDescriptor(doc.config, "config"),
      layers: descriptorList(doc.layers ?? [], "layers"),
    },
  };
}

/** {@link parseManifestDocument} for callers that need a manifest. */
export function parseManifest(
  data: Uint8Array | string,
  declared: string = mediaTypes.ociManifest,
): Manifest {
  const doc = parseManifestDocument(data, isManifestType(declared) ? declared : mediaTypes.ociManifest);
  if (doc.kind !== "manifest") throw invalid(`expected manifest but found index (${declared})`);
  return doc.manifest;
}

/** {@link parseManifestDocument} for callers that need an index. */
export function parseIndex(data: Uint8Array | string, declared: string = mediaTypes.ociIndex): Index {
  const doc = parseManifestDocument(data, isIndexType(declared) ? declared : mediaTypes.ociIndex);
  if (doc.kind !== "index") throw invalid(`expected index but found manifest (${declared})`);
  return doc.index;
}

/**
 * The media type that a manifest document has by its own evidence (BuildKit's `DetectManifestMediaType`):
 * what it declares, else Docker's for what its fields allow. Ambiguous documents are refused.
 */
export function detectManifestType(data: Uint8Array | string): string {
  const doc = parseDocument(data);
  const type = documentType(doc, "");
  return type === doc.mediaType ? type : dockerMediaType(type);
}

function parseDocument(data: Uint8Array | string): Json {
  if (data.length > MAX_MANIFEST_BYTES) {
    throw new BuildError("resource_exhausted", `manifest is larger than ${MAX_MANIFEST_BYTES} bytes`);
  }
  let doc: unknown;
  try {
    const text = typeof data === "string" ? data : new TextDecoder("utf-8", { fatal: true }).decode(data);
    doc = JSON.parse(text);
  } catch (error) {
    throw new BuildError("invalid_argument", "manifest is not valid JSON", { cause: error });
  }
  if (!isObject(doc)) throw invalid("manifest is not a JSON object");
  return doc;
}

function documentType(doc: Json, declared: string): string {
  const own = typeof doc.mediaType === "string" ? doc.mediaType : "";
  if (doc.fsLayers !== undefined || declared === mediaTypes.dockerManifestV1) {
    throw invalid("media-type: schema 1 not supported");
  }
  const hasManifestFields = doc.config !== undefined || doc.layers !== undefined;
  const hasIndexFields = doc.manifests !== undefined;
  let mediaType = isIndexType(declared) || isManifestType(declared) ? declared : own;
  if (!isIndexType(mediaType) && !isManifestType(mediaType)) {
    if (hasManifestFields === hasIndexFields) throw invalid("media-type: cannot tell manifest from index");
    mediaType = hasIndexFields ? mediaTypes.ociIndex : mediaTypes.ociManifest;
  }
  if (isManifestType(mediaType) && (hasIndexFields || isIndexType(own))) {
    throw invalid(`media-type: expected manifest but found index (${mediaType})`);
  }
  if (isIndexType(mediaType) && (hasManifestFields || isManifestType(own))) {
    throw invalid(`media-type: expected index but found manifest (${mediaType})`);
  }
  return mediaType;
}

function head(
  doc: Json,
): Pick<Manifest, "schemaVersion" | "mediaType" | "artifactType" | "subject" | "annotations"> {
  return {
    schemaVersion: 2,
    ...text(doc, "mediaType"),
    ...text(doc, "artifactType"),
    ...(doc.subject == null ? {} : { subject: parseDescriptor(doc.subject, "subject") }),
    ...annotationsOf(doc),
  };
}

function descriptorList(value: unknown, where: string): readonly Descriptor[] {
  if (value === null || value === undefined) return [];
  if (!Array.isArray(value)) throw invalid(`${where} is not a list`);
  if (value.length > MAX_DESCRIPTORS) throw invalid(`${where} has more than ${MAX_DESCRIPTORS} entries`);
  return value.map((entry, i) => parseDescriptor(entry, `${where}[${i}]`));
}

/** Checks a value from JSON to be a descriptor; `where` names it in the error. Unknown fields are dropped. */
export function parseDescriptor(value: unknown, where = "descriptor"): Descriptor {
  if (!isObject(value)) throw invalid(`${where} is not a descriptor`);
  const { digest, size, mediaType, urls } = value;
  if (typeof digest !== "string") throw invalid(`${where} has no digest`);
  const problem = digestProblem(digest);
  if (problem !== undefined) throw invalid(`${where}: ${problem}`);
  if (typeof size !== "number" || !Number.isSafeInteger(size) || size < 0) {
    throw invalid(`${where} has an invalid size`);
  }
  if (mediaType !== undefined && typeof mediaType !== "string")
    throw invalid(`${where} has an invalid media type`);
  return {
    mediaType: mediaType ?? "",
    digest: digest as Digest,
    size,
    ...(isStrings(urls) && urls.length > 0 ? { urls } : {}),
    ...annotationsOf(value),
    ...text(value, "data"),
    ...(isObject(value.platform) ? { platform: parsePlatformJson(value.platform) } : {}),
    ...text(value, "artifactType"),
  };
}

function parsePlatformJson(value: Json): Platform {
  const features = value["os.features"];
  return {
    architecture: typeof value.architecture === "string" ? value.architecture : "",
    os: typeof value.os === "string" ? value.os : "",
    ...text(value, "os.version"),
    ...(isStrings(features) && features.length > 0 ? { "os.features": features } : {}),
    ...text(value, "variant"),
  };
}

function annotationsOf(value: Json): { annotations?: Annotations } {
  const from = value.annotations;
  if (!isObject(from)) return {};
  const annotations: Record<string, string> = Object.create(null);
  for (const [key, entry] of Object.entries(from)) if (typeof entry === "string") annotations[key] = entry;
  return Object.keys(annotations).length > 0 ? { annotations } : {};
}

function text<K extends string>(value: Json, key: K): { readonly [P in K]?: string } {
  const found = value[key];
  return typeof found === "string" && found !== ""
    ? ({ [key]: found } as { readonly [P in K]?: string })
    : {};
}

function isObject(value: unknown): value is Json {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isStrings(value: unknown): value is readonly string[] {
  return Array.isArray(value) && value.every((entry) => typeof entry === "string");
}

function invalid(message: string): BuildError {
  return new BuildError("invalid_argument", message);
}
