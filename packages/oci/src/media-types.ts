/** Media types of manifests, configs and layers: OCI image spec 1.1, Docker schema 2, BuildKit's own. */
export const mediaTypes = {
  ociIndex: "application/vnd.oci.image.index.v1+json",
  ociManifest: "application/vnd.oci.image.manifest.v1+json",
  ociConfig: "application/vnd.oci.image.config.v1+json",
  ociEmpty: "application/vnd.oci.empty.v1+json",
  ociLayer: "application/vnd.oci.image.layer.v1.tar",
  ociLayerGzip: "application/vnd.oci.image.layer.v1.tar+gzip",
  ociLayerZstd: "application/vnd.oci.image.layer.v1.tar+zstd",
  ociLayerNondistributable: "application/vnd.oci.image.layer.nondistributable.v1.tar",
  ociLayerNondistributableGzip: "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
  ociLayerNondistributableZstd: "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
  dockerManifestList: "application/vnd.docker.distribution.manifest.list.v2+json",
  dockerManifest: "application/vnd.docker.distribution.manifest.v2+json",
  dockerManifestV1: "application/vnd.docker.distribution.manifest.v1+prettyjws",
  dockerConfig: "application/vnd.docker.container.image.v1+json",
  dockerLayer: "application/vnd.docker.image.rootfs.diff.tar",
  dockerLayerGzip: "application/vnd.docker.image.rootfs.diff.tar.gzip",
  dockerLayerZstd: "application/vnd.docker.image.rootfs.diff.tar.zstd",
  dockerLayerForeign: "application/vnd.docker.image.rootfs.foreign.diff.tar",
  dockerLayerForeignGzip: "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
  dockerLayerForeignZstd: "application/vnd.docker.image.rootfs.foreign.diff.tar.zstd",
  cacheConfig: "application/vnd.buildkit.cacheconfig.v0",
  inToto: "application/vnd.in-toto+json",
  attestationManifest: "application/vnd.docker.attestation.manifest.v1+json",
  octetStream: "application/octet-stream",
} as const;

/** Annotation keys that have a meaning for the build system. */
export const annotationKeys = {
  uncompressed: "containerd.io/uncompressed",
  createdAt: "buildkit/createdat",
  distributionSourcePrefix: "containerd.io/distribution.source.",
  stargzTocDigest: "containerd.io/snapshot/stargz/toc.digest",
  stargzUncompressedSize: "io.containers.estargz.uncompressed-size",
  ociCreated: "org.opencontainers.image.created",
  ociRefName: "org.opencontainers.image.ref.name",
  containerdImageName: "io.containerd.image.name",
  configDigest: "config.digest",
  predicateType: "in-toto.io/predicate-type",
  referenceType: "vnd.docker.reference.type",
  referenceDigest: "vnd.docker.reference.digest",
} as const;

/** Value of `vnd.docker.reference.type` on the index entry of an attestation manifest. */
export const attestationManifestReference = "attestation-manifest";

/** How the tar stream of a layer is compressed. */
export type LayerCompression = "uncompressed" | "gzip" | "zstd";

const LAYERS: ReadonlyMap<string, { compression: LayerCompression; nondistributable: boolean }> = new Map([
  [mediaTypes.ociLayer, { compression: "uncompressed", nondistributable: false }],
  [mediaTypes.ociLayerGzip, { compression: "gzip", nondistributable: false }],
  [mediaTypes.ociLayerZstd, { compression: "zstd", nondistributable: false }],
  [mediaTypes.ociLayerNondistributable, { compression: "uncompressed", nondistributable: true }],
  [mediaTypes.ociLayerNondistributableGzip, { compression: "gzip", nondistributable: true }],
  [mediaTypes.ociLayerNondistributableZstd, { compression: "zstd", nondistributable: true }],
  [mediaTypes.dockerLayer, { compression: "uncompressed", nondistributable: false }],
  [mediaTypes.dockerLayerGzip, { compression: "gzip", nondistributable: false }],
  [mediaTypes.dockerLayerZstd, { compression: "zstd", nondistributable: false }],
  [mediaTypes.dockerLayerForeign, { compression: "uncompressed", nondistributable: true }],
  [mediaTypes.dockerLayerForeignGzip, { compression: "gzip", nondistributable: true }],
  [mediaTypes.dockerLayerForeignZstd, { compression: "zstd", nondistributable: true }],
]);

/** True for an image manifest, OCI or Docker schema 2. */
export function isManifestType(mediaType: string): boolean {
  return mediaType === mediaTypes.ociManifest || mediaType === mediaTypes.dockerManifest;
}

/** True for an OCI index or a Docker manifest list. */
export function isIndexType(mediaType: string): boolean {
  return mediaType === mediaTypes.ociIndex || mediaType === mediaTypes.dockerManifestList;
}

/** True for an image config, OCI or Docker. */
export function isConfigType(mediaType: string): boolean {
  return mediaType === mediaTypes.ociConfig || mediaType === mediaTypes.dockerConfig;
}

/** True for any layer of a root file system. */
export function isLayerType(mediaType: string): boolean {
  return LAYERS.has(mediaType) || mediaType.startsWith("application/vnd.oci.image.layer.");
}

/** True for layers that registries needn't hold (`foreign`, `nondistributable`). */
export function isNondistributableType(mediaType: string): boolean {
  return LAYERS.get(mediaType)?.nondistributable ?? false;
}

/** How a layer of this type is compressed; undefined when the type isn't a known layer. */
export function layerCompression(mediaType: string): LayerCompression | undefined {
  return LAYERS.get(mediaType)?.compression;
}

/** True for Docker's own media types, as opposed to OCI's. */
export function isDockerType(mediaType: string): boolean {
  return mediaType.startsWith("application/vnd.docker.");
}

/** The same layer type for another compression; the family (OCI, Docker, foreign) stays. */
export function layerTypeWithCompression(mediaType: string, compression: LayerCompression): string {
  const docker = isDockerType(mediaType);
  const nondistributable = isNondistributableType(mediaType);
  for (const [candidate, is] of LAYERS) {
    if (
      is.compression === compression &&
      is.nondistributable === nondistributable &&
      isDockerType(candidate) === docker
    )
      return candidate;
  }
  return mediaType;
}

const TO_OCI: ReadonlyMap<string, string> = new Map([
  [mediaTypes.dockerManifestList, mediaTypes.ociIndex],
  [mediaTypes.dockerManifest, mediaTypes.ociManifest],
  [mediaTypes.dockerConfig, mediaTypes.ociConfig],
  [mediaTypes.dockerLayer, mediaTypes.ociLayer],
  [mediaTypes.dockerLayerGzip, mediaTypes.ociLayerGzip],
  [mediaTypes.dockerLayerZstd, mediaTypes.ociLayerZstd],
  [mediaTypes.dockerLayerForeign, mediaTypes.ociLayerNondistributable],
  [mediaTypes.dockerLayerForeignGzip, mediaTypes.ociLayerNondistributableGzip],
  [mediaTypes.dockerLayerForeignZstd, mediaTypes.ociLayerNondistributableZstd],
]);
const TO_DOCKER: ReadonlyMap<string, string> = new Map([...TO_OCI].map(([docker, oci]) => [oci, docker]));

/** The OCI counterpart of a Docker media type; others stay. */
export function ociMediaType(mediaType: string): string {
  return TO_OCI.get(mediaType) ?? mediaType;
}

/** The Docker counterpart of an OCI media type; others stay. */
export function dockerMediaType(mediaType: string): string {
  return TO_DOCKER.get(mediaType) ?? mediaType;
}

/** The same layer type as ordinary, distributable one (`prefer-nondist-layers=false`). */
export function distributableType(mediaType: string): string {
  const is = LAYERS.get(mediaType);
  if (!is?.nondistributable) return mediaType;
  return layerTypeWithCompression(
    isDockerType(mediaType) ? mediaTypes.dockerLayer : mediaTypes.ociLayer,
    is.compression,
  );
}
