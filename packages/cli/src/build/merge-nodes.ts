/**
 * One image from what several nodes have pushed. Each node pushes its platforms by digest; the index that names them
 * all is put together here and pushed under the tags.
 */
import type { AnnotationOption } from "@kiln/bake";
import { asVertex, type BuilderRegistry, RegistryLogins } from "@kiln/driver";
import { goJson } from "@kiln/formats";
import {
  type Annotations,
  type Descriptor,
  formatPlatform,
  type Index,
  indexJson,
  isIndexType,
  mediaTypes,
  parseDescriptor,
  parseDockerReference,
  parseIndex,
  type Reference,
  sha256,
  withDefaultTag,
  withDigest,
  withoutTag,
} from "@kiln/oci";
import type { SolveStatus } from "@kiln/progress";
import { type Authenticator, Registries, type RegistryClient } from "@kiln/registry";
import type { NodePush } from "./node-push.ts";

/** What an index is made with. */
export interface MergeOptions {
  readonly push: NodePush;
  readonly annotations: readonly AnnotationOption[];
  readonly registry: BuilderRegistry;
  readonly onStatus: (status: SolveStatus) => void;
  readonly signal: AbortSignal;
}

/** Pushes the index of all nodes' images. Gives its digest; `undefined` when the nodes told of no image. */
export async function mergeNodes(
  responses: readonly ReadonlyMap<string, string>[],
  options: MergeOptions,
): Promise<string | undefined> {
  const { push, onStatus, signal } = options;
  const pushed = responses.flatMap((response) => descriptorOf(response) ?? []);
  if (pushed.length === 0) return undefined;
  return asVertex(`merging manifest list ${push.names}`, onStatus, async () => {
    using registries = new Registries({ env: options.registry.env });
    const client = registries.client(authenticator(options.registry), { insecure: push.insecure });
    const refs = push.names.split(",").map((name) => withDefaultTag(parseDockerReference(name)));
    const manifests = await manifestsOf(client, refs[0] as Reference, { pushed, signal });
    const index = withAnnotations(manifests, options.annotations);
    const bytes = new TextEncoder().encode(goJson(indexJson(index), { indent: "  " }));
    const descriptor = { mediaType: index.mediaType as string, digest: sha256(bytes), size: bytes.length };
    for (const ref of refs) await client.pushManifest(ref, descriptor, bytes, { signal });
    return descriptor.digest;
  });
}

function descriptorOf(response: ReadonlyMap<string, string>): Descriptor | undefined {
  const encoded = response.get("containerimage.descriptor");
  return encoded === undefined
    ? undefined
    : parseDescriptor(JSON.parse(Buffer.from(encoded, "base64").toString()));
}

/** The images that the nodes' indexes name, each once. */
async function manifestsOf(
  client: RegistryClient,
  ref: Reference,
  { pushed, signal }: { readonly pushed: readonly Descriptor[]; readonly signal: AbortSignal },
): Promise<Descriptor[]> {
  const found = new Map<string, Descriptor>();
  for (const descriptor of pushed) {
    const isIndex = isIndexType(descriptor.mediaType);
    const named = withDigest(withoutTag(ref), descriptor.digest);
    const children = isIndex
      ? parseIndex(await client.fetchManifest(named, descriptor, { signal }), descriptor.mediaType).manifests
      : [descriptor];
    for (const child of children) {
      const known = found.get(child.digest);
      found.set(
        child.digest,
        annotated({ ...known, ...child }, { ...known?.annotations, ...child.annotations }),
      );
    }
  }
  return [...found.values()];
}

function withAnnotations(manifests: readonly Descriptor[], annotations: readonly AnnotationOption[]): Index {
  const isDocker = manifests.every(({ mediaType }) => mediaType.startsWith("application/vnd.docker."));
  if (isDocker) return { schemaVersion: 2, mediaType: mediaTypes.dockerManifestList, manifests };
  const own: Record<string, string> = {};
  const perManifest = manifests.map(({ annotations: given }): Record<string, string> => ({ ...given }));
  for (const { type, platform, key, value } of annotations) {
    if (type === "index") own[key] = value;
    if (type !== "manifest-descriptor") continue;
    for (const [i, manifest] of manifests.entries()) {
      const isMeant =
        platform === undefined ||
        (manifest.platform !== undefined && formatPlatform(manifest.platform) === platform);
      if (isMeant) (perManifest[i] as Record<string, string>)[key] = value;
    }
  }
  return {
    schemaVersion: 2,
    mediaType: mediaTypes.ociIndex,
    manifests: manifests.map((manifest, i) => annotated(manifest, perManifest[i] as Annotations)),
    ...(Object.keys(own).length === 0 ? {} : { annotations: own }),
  };
}

function annotated(manifest: Descriptor, annotations: Annotations): Descriptor {
  return Object.keys(annotations).length === 0 ? manifest : { ...manifest, annotations };
}

function authenticator(registry: BuilderRegistry): Authenticator {
  const logins = new RegistryLogins(registry.dockerConfig, registry.store.config.path, registry.env);
  return {
    async credentials(host) {
      const login = await logins.find(host, []);
      if (login.identityToken) return { username: "", secret: login.identityToken };
      if (!login.username && !login.password) return undefined;
      return { username: login.username ?? "", secret: login.password ?? "" };
    },
    async fetchToken({ host, scopes }) {
      const { registryToken } = await logins.find(host, scopes);
      return registryToken ? { token: registryToken } : undefined;
    },
  };
}
