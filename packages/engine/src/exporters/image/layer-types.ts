import { type Descriptor, mediaTypes } from "@kiln/oci";

/** OCI's and Docker's names of the layer formats. */
const PAIRS: readonly (readonly [oci: string, docker: string])[] = [
  [mediaTypes.ociLayer, mediaTypes.dockerLayer],
  [mediaTypes.ociLayerGzip, mediaTypes.dockerLayerGzip],
  [mediaTypes.ociLayerZstd, mediaTypes.dockerLayerZstd],
  [mediaTypes.ociLayerNondistributable, mediaTypes.dockerLayerForeign],
  [mediaTypes.ociLayerNondistributableGzip, mediaTypes.dockerLayerForeignGzip],
  [mediaTypes.ociLayerNondistributableZstd, mediaTypes.dockerLayerForeignZstd],
];

/** The layers under the names of OCI or of Docker. */
export function toMediaTypes(layers: readonly Descriptor[], oci: boolean): Descriptor[] {
  return layers.map((layer) => {
    const pair = PAIRS.find((names) => names.includes(layer.mediaType));
    return pair === undefined ? layer : { ...layer, mediaType: pair[oci ? 0 : 1] };
  });
}

const INTERNAL: ReadonlySet<string> = new Set(["containerd.io/uncompressed", "buildkit/createdat"]);

/** A layer as it goes into a manifest: no notes of our own, none at all with Docker's types. */
export function removeInternalAnnotations(layer: Descriptor, oci: boolean): Descriptor {
  const { annotations, ...rest } = layer;
  if (annotations === undefined || !oci) return rest;
  const kept = Object.entries(annotations).filter(
    ([key]) => !INTERNAL.has(key) && !key.startsWith("containerd.io/distribution.source."),
  );
  if (kept.length === 0) return rest;
  return { ...rest, annotations: Object.assign(Object.create(null), Object.fromEntries(kept)) };
}
