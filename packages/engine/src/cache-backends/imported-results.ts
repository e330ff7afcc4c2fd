import { BuildError, withSignal } from "@kiln/base";
import { annotationKeys, type Descriptor, type Digest, digestProblem, layerCompression } from "@kiln/oci";
import type { CacheLoadContext, Remote, RemoteDescriptor } from "@kiln/solver";
import type { CacheChains, RemoteResults } from "@kiln/solver/remote-cache";
import type { BlobProvider, CompressionOptions, ImmutableRef, RefManager } from "@kiln/store";
import type { OpResult } from "../op-context.ts";
import { sessionIdsOf } from "../sources/image/image-source.ts";
import { showLayers } from "../worker/layer-progress.ts";
import { LayerProvider } from "./layer-provider.ts";

/** Annotation with what made a layer, from the history of an image. */
export const DESCRIPTION_ANNOTATION = "buildkit/description";

/** Makes trees of imported layers. Nothing is downloaded before a tree is needed, where that can be had. */
export function importedResults(refs: RefManager, underway: ImportsUnderway): RemoteResults<OpResult> {
  return {
    fromRemote: async (remote, ctx) => ({ ref: await refOf(refs, remote, { underway, ctx }) }),
    allows: (remote, compression) => isAllowed(remote, compression as CompressionOptions),
  };
}

/**
 * Lets layers that were imported before, and never needed so far, be fetched with what this import may use:
 * the session or token of the former one may be gone.
 */
export function refreshProviders(
  refs: RefManager,
  chains: CacheChains,
  from: { readonly ids: readonly string[]; readonly underway: ImportsUnderway },
): void {
  for (const { results } of chains.records) {
    for (const { remote } of results) {
      if (!(remote.provider instanceof LayerProvider)) continue;
      for (const { digest } of remote.descriptors)
        refs.refreshProvider(digest, blobProvider(remote.provider, from));
    }
  }
}

/**
 * Imports that are being read, by the sessions of their builds. A layer of an earlier import is fetched when
 * those are done which may bring a younger token for it.
 */
export class ImportsUnderway {
  readonly #bySession = new Map<string, Set<Promise<unknown>>>();

  add(ids: readonly string[], reading: Promise<unknown>): void {
    for (const id of ids) {
      const all = this.#bySession.get(id) ?? new Set();
      this.#bySession.set(id, all.add(reading));
      const forget = (): void => {
        all.delete(reading);
        if (all.size === 0 && this.#bySession.get(id) === all) this.#bySession.delete(id);
      };
      reading.then(forget, forget);
    }
  }

  /** Waits for the end of all imports of these sessions, whatever it is. */
  async settled(ids: readonly string[], signal: AbortSignal): Promise<void> {
    const all = ids.flatMap((id) => [...(this.#bySession.get(id) ?? [])]);
    if (all.length > 0) await withSignal(Promise.allSettled(all), signal);
  }
}

function blobProvider(
  provider: LayerProvider,
  from: { readonly ids: readonly string[]; readonly underway: ImportsUnderway },
): BlobProvider {
  return async (blob, at) => {
    const ids = sessionIdsOf(at) ?? from.ids;
    await from.underway.settled(ids, at.signal);
    return provider.fetch(blob, { ids, signal: at.signal });
  };
}

async function refOf(
  refs: RefManager,
  remote: Remote,
  from: { readonly underway: ImportsUnderway; readonly ctx: CacheLoadContext },
): Promise<ImmutableRef | undefined> {
  const { ctx, underway } = from;
  const { provider } = remote;
  if (!(provider instanceof LayerProvider)) throw new Error("layers of an import without a provider");
  const layers = remote.descriptors.map(checked);
  const ids = ctx.sessions.ids();
  await settleAll(layers.map(({ desc }) => provider.check(desc, { ids, signal: ctx.signal })));
  let current: ImmutableRef | undefined;
  try {
    for (const { desc, diffId } of layers) {
      const parent: ImmutableRef | undefined = current;
      const next: ImmutableRef = await refs.getByBlob(withoutDescription(desc), parent, {
        diffId,
        description: desc.annotations?.[DESCRIPTION_ANNOTATION] ?? `imported ${desc.digest}`,
        ...createdAtOf(desc),
        provider: blobProvider(provider, { ids, underway }),
        remotes: provider.remotes,
        imageRefs: provider.imageRefs,
      });
      current = next;
      await parent?.release();
      if (provider.eager)
        await refs.ensureBlob(next.id, desc.digest, { signal: ctx.signal, session: ctx.sessions });
    }
    if (current !== undefined) showLayers(refs, current.id, ctx);
    return current;
  } catch (error) {
    await current?.release();
    throw error;
  }
}

function checked(layer: RemoteDescriptor): { readonly desc: Descriptor; readonly diffId: Digest } {
  const diffId = layer.annotations?.[annotationKeys.uncompressed] ?? "";
  const problem = digestProblem(diffId) ?? digestProblem(layer.digest);
  if (problem !== undefined)
    throw new BuildError("data_loss", `layer ${layer.digest} of an imported cache: ${problem}`);
  return { desc: { ...layer, digest: layer.digest as Digest }, diffId: diffId as Digest };
}

/** The record keeps the description; the layer must not show where it came from when it's exported again. */
function withoutDescription(desc: Descriptor): Descriptor {
  const { [DESCRIPTION_ANNOTATION]: _description, ...annotations } = desc.annotations ?? {};
  return { ...desc, annotations };
}

function createdAtOf(desc: Descriptor): { readonly createdAt?: number } {
  const createdAt = Date.parse(desc.annotations?.[annotationKeys.createdAt] ?? "");
  return Number.isNaN(createdAt) ? {} : { createdAt };
}

/** One layer of the kind will do, as BuildKit has it; with `force` all must be of it. */
function isAllowed(remote: Remote, compression: CompressionOptions): boolean {
  const fits = (layer: RemoteDescriptor): boolean => {
    const isStargz = layer.annotations?.[annotationKeys.stargzTocDigest] !== undefined;
    if (compression.type === "estargz") return isStargz;
    return layerCompression(layer.mediaType) === compression.type;
  };
  return compression.force === true ? remote.descriptors.every(fits) : remote.descriptors.some(fits);
}

/** Waits for all, then throws the first failure. */
export async function settleAll(work: readonly Promise<unknown>[]): Promise<void> {
  const failed = (await Promise.allSettled(work)).find((end) => end.status === "rejected");
  if (failed !== undefined) throw failed.reason;
}
