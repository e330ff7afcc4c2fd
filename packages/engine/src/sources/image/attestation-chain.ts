import { BuildError, wrapError } from "@kiln/base";
import {
  annotationKeys,
  attestationManifestReference,
  type Descriptor,
  isManifestType,
  MAX_MANIFEST_BYTES,
  mediaTypes,
  onlyPlatform,
  type Platform,
  parseIndex,
  parseManifest,
  sortByPlatform,
} from "@kiln/oci";
import type { ContentStore } from "@kiln/store";
import type { ChainBlob, SourceMetadata } from "../source-metadata.ts";
import type { ImageOrigin } from "./image-origin.ts";

/** What a policy is given to judge an image's signature. */
export type AttestationChain = NonNullable<NonNullable<SourceMetadata["image"]>["attestationChain"]>;

const SIGSTORE_BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json";
const COSIGN_SIGNATURE = "application/vnd.dev.cosign.artifact.sig.v1+json";
const MAX_BLOB_BYTES = 40 * 1024 * 1024;

/**
 * Index, attestation manifest and signature of an image for a platform, with their contents, and those
 * attestations whose predicate types are wanted. Undefined when the name isn't an OCI index.
 */
export async function attestationChain(
  origin: ImageOrigin,
  opts: {
    readonly platform: Platform;
    readonly predicateTypes: readonly string[];
    readonly content: ContentStore;
    readonly signal: AbortSignal;
  },
): Promise<AttestationChain | undefined> {
  const root = await origin.resolve(opts.signal);
  if (root.mediaType !== mediaTypes.ociIndex) return undefined;
  const blobs = new Map<string, ChainBlob>();
  const read = async (desc: Descriptor, maxBytes: number): Promise<Uint8Array> => {
    const known = blobs.get(desc.digest);
    if (known) return known.data;
    const data = await readBlob(origin, desc, { ...opts, maxBytes });
    const annotations = new Map(Object.entries(desc.annotations ?? {}));
    blobs.set(desc.digest, {
      mediaType: desc.mediaType,
      digest: desc.digest,
      size: desc.size,
      annotations,
      data,
    });
    return data;
  };
  const index = parseIndex(await read(root, MAX_MANIFEST_BYTES), root.mediaType);
  const image = imageManifest(index.manifests, opts.platform);
  const attestation = index.manifests.find(
    ({ annotations }) =>
      annotations?.[annotationKeys.referenceType] === attestationManifestReference &&
      annotations[annotationKeys.referenceDigest] === image.digest,
  );
  const base = { root: root.digest, imageManifest: image.digest, blobs };
  if (!attestation) return { ...base, attestationManifest: "", signatureManifests: [] };
  const attestations = parseManifest(await read(attestation, MAX_MANIFEST_BYTES), attestation.mediaType);
  const signature = bestSignature(await origin.referrers(attestation.digest, opts.signal));
  if (signature) {
    const manifest = parseManifest(await read(signature, MAX_MANIFEST_BYTES), signature.mediaType);
    for (const layer of manifest.layers) await read(layer, MAX_BLOB_BYTES);
  }
  for (const layer of attestations.layers) {
    const type = layer.annotations?.[annotationKeys.predicateType];
    if (type !== undefined && type !== "" && opts.predicateTypes.includes(type))
      await read(layer, MAX_BLOB_BYTES);
  }
  return {
    ...base,
    attestationManifest: attestation.digest,
    signatureManifests: signature ? [signature.digest] : [],
  };
}

function imageManifest(manifests: readonly Descriptor[], platform: Platform): Descriptor {
  const matcher = onlyPlatform(platform);
  const candidates = manifests.filter(
    (desc) => isManifestType(desc.mediaType) && (desc.platform === undefined || matcher.match(desc.platform)),
  );
  const [best] = sortByPlatform(candidates, matcher, (desc) => desc.platform);
  if (!best) {
    throw new BuildError(
      "not_found",
      `no manifest for platform ${platform.os}/${platform.architecture}: not found`,
    );
  }
  return best;
}

/** One signature; bundles are preferred. */
function bestSignature(referrers: readonly Descriptor[]): Descriptor | undefined {
  return (
    referrers.find((desc) => desc.artifactType === SIGSTORE_BUNDLE) ??
    referrers.find((desc) => desc.artifactType === COSIGN_SIGNATURE)
  );
}

async function readBlob(
  origin: ImageOrigin,
  desc: Descriptor,
  opts: { readonly content: ContentStore; readonly maxBytes: number; readonly signal: AbortSignal },
): Promise<Uint8Array> {
  if (desc.size > opts.maxBytes) {
    throw new BuildError(
      "resource_exhausted",
      `${desc.digest} has ${desc.size} bytes, more than ${opts.maxBytes}`,
    );
  }
  if (opts.content.has(desc.digest)) return opts.content.readAll(desc.digest, opts.maxBytes);
  const chunks: Uint8Array[] = [];
  try {
    for await (const chunk of origin.fetch(desc, opts.signal)) chunks.push(chunk);
  } catch (error) {
    throw wrapError(error, `reading blob ${desc.digest}`);
  }
  return Buffer.concat(chunks);
}
