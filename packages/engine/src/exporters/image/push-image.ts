import { BuildError } from "@kiln/base";
import {
  annotationKeys,
  type Descriptor,
  formatReference,
  isIndexType,
  isNondistributableType,
  parseIndex,
  parseManifest,
  parseReference,
  type Reference,
  withDefaultTag,
} from "@kiln/oci";
import { mountCandidates, type Registries, type RegistryClient } from "@kiln/registry";
import type { ContentStore } from "@kiln/store";
import type { OpContext } from "../../op-context.ts";
import { withStatus } from "../../op-context.ts";
import type { SessionAuthenticators } from "../../sources/source-sessions.ts";
import type { EnsureLayer } from "./archive-exporter.ts";
import type { ImagePusher } from "./image-exporter.ts";
import type { WrittenImage } from "./image-writer.ts";

/** What pushing needs. */
export interface PushHost {
  readonly registries: Registries;
  readonly authenticators: SessionAuthenticators;
  readonly content: ContentStore;
  readonly ensureLayer: EnsureLayer;
}

interface PushTarget {
  readonly client: RegistryClient;
  readonly ref: Reference;
  readonly ctx: OpContext;
  readonly image: WrittenImage;
}

/** Pushes images: blobs first and side by side, then manifests from the leaves up (buildkit.md §6.5). */
export function createPusher(host: PushHost): ImagePusher {
  return {
    push: async (image, target, ctx) => {
      const parsed = parseReference(target.name);
      if (target.byDigest && parsed.tag !== undefined) {
        throw new BuildError("invalid_argument", `can't push tagged ref ${target.name} by digest`);
      }
      const ref = target.byDigest ? { ...parsed, digest: image.descriptor.digest } : withDefaultTag(parsed);
      const client = host.registries.client(host.authenticators.of(ctx.sessions.ids()), {
        insecure: target.insecure,
      });
      const at: PushTarget = { client, ref, ctx, image };
      const manifests: { descriptor: Descriptor; bytes: Uint8Array }[] = [];
      const blobs = await collect(host, image, manifests);
      await withStatus(ctx.progress, "pushing layers", () =>
        settle(blobs.map((blob) => pushOne(host, blob, at))),
      );
      const top = image.descriptor.digest;
      const name = target.byDigest
        ? formatReference(parsed)
        : formatReference(ref) + (ref.digest === undefined ? `@${top}` : "");
      await withStatus(ctx.progress, `pushing manifest for ${name}`, async () => {
        for (const { descriptor, bytes } of manifests) {
          const own = descriptor.digest === top;
          const { tag: _tag, ...untagged } = ref;
          const to = own && !target.byDigest ? ref : { ...untagged, digest: descriptor.digest };
          await client.pushManifest(to, descriptor, bytes, { signal: ctx.signal });
        }
      });
    },
  };
}

/** The blobs of an image, each once; manifests are appended from the leaves up. */
async function collect(
  host: PushHost,
  image: WrittenImage,
  manifests: { descriptor: Descriptor; bytes: Uint8Array }[],
): Promise<Descriptor[]> {
  const blobs = new Map<string, Descriptor>();
  const visit = async (descriptor: Descriptor): Promise<void> => {
    const bytes = await host.content.readAll(descriptor.digest);
    if (isIndexType(descriptor.mediaType)) {
      for (const child of parseIndex(bytes, descriptor.mediaType).manifests) await visit(child);
    } else {
      const manifest = parseManifest(bytes, descriptor.mediaType);
      for (const blob of [...manifest.layers, manifest.config]) blobs.set(blob.digest, blob);
    }
    manifests.push({ descriptor, bytes });
  };
  await visit(image.descriptor);
  // the notes on where layers came from don't stand in manifests
  for (const layer of image.layers.flatMap((remote) => remote.descriptors)) {
    if (blobs.has(layer.digest)) blobs.set(layer.digest, layer);
  }
  return [...blobs.values()].filter((blob) => !isNondistributableType(blob.mediaType));
}

/** Where the store has seen a layer, as labels: also of layers that are here by now. */
export function knownSources(
  image: Pick<WrittenImage, "layers">,
  { digest }: Descriptor,
): readonly (readonly [string, string])[] {
  const paths = new Map<string, Set<string>>();
  for (const { descriptors, layers } of image.layers) {
    for (const [at, descriptor] of descriptors.entries()) {
      for (const remote of descriptor.digest === digest ? (layers[at]?.remotes ?? []) : []) {
        const slash = remote.indexOf("/");
        if (slash < 1) continue;
        const domain = remote.slice(0, slash);
        paths.set(domain, (paths.get(domain) ?? new Set()).add(remote.slice(slash + 1)));
      }
    }
  }
  return [...paths].map(([domain, found]) => [
    annotationKeys.distributionSourcePrefix + domain,
    [...found].join(","),
  ]);
}

async function pushOne(host: PushHost, blob: Descriptor, at: PushTarget): Promise<void> {
  const { client, ref, ctx, image } = at;
  const mountFrom = mountCandidates(ref, [
    ...knownSources(image, blob),
    ...Object.entries(blob.annotations ?? {}),
  ]);
  if (!host.content.has(blob.digest)) {
    if (await client.has(ref, blob, { signal: ctx.signal })) return;
    await host.ensureLayer(blob, image, ctx);
  }
  const startedMs = Date.now();
  const id = `pushing ${blob.digest}`;
  await client.pushBlob(
    ref,
    blob,
    { read: (range) => host.content.read(blob.digest, range) },
    {
      signal: ctx.signal,
      mountFrom,
      onProgress: (current) =>
        ctx.progress.status({ id, name: "pushing", current, total: blob.size, startedMs }),
    },
  );
  ctx.progress.status({
    id,
    name: "done",
    current: blob.size,
    total: blob.size,
    startedMs,
    completedMs: Date.now(),
  });
}

async function settle(work: readonly Promise<unknown>[]): Promise<void> {
  const failed = (await Promise.allSettled(work)).find((end) => end.status === "rejected");
  if (failed !== undefined) throw failed.reason;
}
