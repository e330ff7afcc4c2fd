import type { Annotations, Descriptor, Index, Manifest } from "./manifest.ts";
import type { Platform } from "./platform.ts";

/**
 * Plain objects whose keys have the order and omissions of the Go structs of the OCI image spec 1.1, ready
 * for the JSON encoder of `@kiln/formats`. Digests of manifests that we write depend on that order.
 */
export type OrderedJson = { readonly [key: string]: unknown };

/** {@link OrderedJson} of a platform. */
export function platformJson(p: Platform): OrderedJson {
  return {
    architecture: p.architecture,
    os: p.os,
    ...some("os.version", p["os.version"]),
    ...some("os.features", p["os.features"]),
    ...some("variant", p.variant),
  };
}

/** {@link OrderedJson} of a descriptor. */
export function descriptorJson(d: Descriptor): OrderedJson {
  return {
    mediaType: d.mediaType,
    digest: d.digest,
    size: d.size,
    ...some("urls", d.urls),
    ...some("annotations", sorted(d.annotations)),
    ...some("data", d.data),
    ...(d.platform === undefined ? {} : { platform: platformJson(d.platform) }),
    ...some("artifactType", d.artifactType),
  };
}

/** {@link OrderedJson} of a manifest. */
export function manifestJson(m: Manifest): OrderedJson {
  return {
    schemaVersion: m.schemaVersion,
    ...some("mediaType", m.mediaType),
    ...some("artifactType", m.artifactType),
    config: descriptorJson(m.config),
    layers: m.layers.map(descriptorJson),
    ...(m.subject === undefined ? {} : { subject: descriptorJson(m.subject) }),
    ...some("annotations", sorted(m.annotations)),
  };
}

/** {@link OrderedJson} of an index. */
export function indexJson(i: Index): OrderedJson {
  return {
    schemaVersion: i.schemaVersion,
    ...some("mediaType", i.mediaType),
    ...some("artifactType", i.artifactType),
    manifests: i.manifests.map(descriptorJson),
    ...(i.subject === undefined ? {} : { subject: descriptorJson(i.subject) }),
    ...some("annotations", sorted(i.annotations)),
  };
}

function some(key: string, value: string | readonly string[] | Annotations | undefined): OrderedJson {
  if (value === undefined || value === "") return {};
  if (typeof value === "object" && Object.keys(value).length === 0) return {};
  return { [key]: value };
}

/** Go writes map keys in byte order. */
function sorted(map: Annotations | undefined): Annotations | undefined {
  if (map === undefined) return undefined;
  const entries = Object.entries(map).sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0));
  return Object.assign(Object.create(null), Object.fromEntries(entries));
}
