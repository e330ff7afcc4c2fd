import { isBuildError, mapLimited } from "@kiln/base";
import type { Descriptor, Digest } from "@kiln/oci";
import type { CacheBlob, CacheChains, MarshaledCache } from "@kiln/solver/remote-cache";
import { marshalChains } from "@kiln/solver/remote-cache";
import type { ContentStore, LayerInfo, RefManager } from "@kiln/store";
import type { OpContext } from "../op-context.ts";
import { LayerProvider } from "./layer-provider.ts";

const CHECKS_AT_ONCE = 8;

/** Reads the layers of a cache that is being exported, wherever they are. */
export class CacheBlobs {
  readonly content: ContentStore;
  readonly #refs: RefManager;

  constructor(content: ContentStore, refs: RefManager) {
    this.content = content;
    this.#refs = refs;
  }

  /** The cache config of `chains`; results whose layers can't be had any more are left out. */
  async marshal(chains: CacheChains, ctx: OpContext): Promise<MarshaledCache> {
    const layers = new Map<string, CacheBlob>();
    for (const record of chains.records) {
      const { descriptors = [], provider } = record.bestResult?.remote ?? {};
      for (const descriptor of descriptors) layers.set(descriptor.digest, { descriptor, provider });
    }
    const missing = new Set<string>();
    await mapLimited([...layers.values()], CHECKS_AT_ONCE, async (blob) => {
      if (!(await this.#canHave(blob, ctx))) missing.add(blob.descriptor.digest);
    });
    return marshalChains(chains, { isMissing: ({ digest }) => missing.has(digest) });
  }

  async #canHave({ descriptor, provider }: CacheBlob, ctx: OpContext): Promise<boolean> {
    if (this.content.has(descriptor.digest)) return true;
    if (!(provider instanceof LayerProvider)) {
      const layer = storedLayer(provider, descriptor.digest);
      return layer !== undefined && this.#refs.canHaveBlob(layer.id, descriptor.digest);
    }
    try {
      await provider.check(asDescriptor(descriptor), { ids: ctx.sessions.ids(), signal: ctx.signal });
      return true;
    } catch (error) {
      if (isBuildError(error, "not_found")) return false;
      throw error;
    }
  }

  /** Brings a layer into the content store. */
  async ensure({ descriptor, provider }: CacheBlob, ctx: OpContext): Promise<void> {
    if (this.content.has(descriptor.digest)) return;
    if (provider instanceof LayerProvider) {
      const desc = asDescriptor(descriptor);
      const source = provider.fetch(desc, { ids: ctx.sessions.ids(), signal: ctx.signal });
      await this.content.write(source, {
        digest: desc.digest,
        sizeBytes: desc.size,
        signal: ctx.signal,
      });
      return;
    }
    const layer = storedLayer(provider, descriptor.digest);
    if (layer === undefined) throw new Error(`missing blob ${descriptor.digest}`);
    await this.#refs.ensureBlob(layer.id, descriptor.digest, {
      signal: ctx.signal,
      session: ctx.sessions,
    });
  }
}

/** The layer's record, when the provider is a remote of the store. */
function storedLayer(provider: unknown, digest: string): LayerInfo | undefined {
  if (typeof provider !== "object" || provider === null || !("layers" in provider)) return undefined;
  const { descriptors, layers } = provider as {
    readonly descriptors: readonly Descriptor[];
    readonly layers: readonly LayerInfo[];
  };
  return layers[descriptors.findIndex((one) => one.digest === digest)];
}

/** The solver's descriptors are the store's; it only doesn't know what a digest is. */
export function asDescriptor(descriptor: CacheBlob["descriptor"]): Descriptor {
  return { ...descriptor, digest: descriptor.digest as Digest };
}
