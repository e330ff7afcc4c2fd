import type { Descriptor } from "@kiln/oci";

/** On whose behalf blobs are read: sessions in the order in which they are asked for credentials. */
export interface BlobReader {
  readonly ids: readonly string[];
  readonly signal: AbortSignal;
}

/** Where the layers of an imported cache are; what stands in the `provider` of their `Remote`s. */
export abstract class LayerProvider {
  /** Layers are fetched when a result is taken: their source may be gone later. */
  readonly eager: boolean = false;
  /** `domain/path` of registries where the layers can be found again after a restart. */
  readonly remotes: readonly string[] = [];
  readonly imageRefs: readonly string[] = [];

  /** The bytes of a layer. Whoever takes them verifies them. @throws BuildError `not_found`. */
  abstract fetch(desc: Descriptor, reader: BlobReader): AsyncIterable<Uint8Array>;

  /** Rejects with `not_found` for a layer that is gone, where that can be known cheaply. */
  check(_desc: Descriptor, _reader: BlobReader): Promise<void> {
    return Promise.resolve();
  }
}
