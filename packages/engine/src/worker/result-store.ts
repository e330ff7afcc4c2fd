import { BuildError } from "@kiln/base";
import { layerCompression } from "@kiln/oci";
import type { CacheLoadContext, CacheResultInfo, CacheResultStore, Remote } from "@kiln/solver";
import type { CompressionOptions, RefManager, Remote as StoreRemote } from "@kiln/store";
import type { OpResult } from "../op-context.ts";
import { showLayers } from "./layer-progress.ts";

/**
 * The results of the local cache: trees of the store, under ids `<worker>::<ref>` (an empty tree has no ref).
 */
export class RefResultStore implements CacheResultStore<OpResult> {
  readonly #workerId: string;
  readonly #refs: RefManager;

  constructor(workerId: string, refs: RefManager) {
    this.#workerId = workerId;
    this.#refs = refs;
  }

  /** Id under which a tree is known to the solver. */
  idOf(refId: string): string {
    return `${this.#workerId}::${refId}`;
  }

  exists(resultId: string): boolean {
    const refId = this.#refOf(resultId);
    return refId === "" || (refId !== undefined && this.#refs.metadataOf(refId) !== undefined);
  }

  async load(info: CacheResultInfo, ctx: CacheLoadContext): Promise<OpResult> {
    const refId = this.#refOf(info.id);
    if (refId === undefined) throw new BuildError("not_found", `result ${info.id} is of another worker`);
    if (refId === "") return { ref: undefined };
    if (!this.#refs.isAvailable(refId))
      throw new BuildError("not_found", `layers of ${refId} can't be had any more`);
    const ref = this.#refs.get(refId);
    showLayers(this.#refs, refId, ctx);
    return { ref };
  }

  save(result: OpResult, createdAtNs: bigint): CacheResultInfo {
    return { id: this.idOf(result.ref?.id ?? ""), createdAtNs };
  }

  /** The layers as they are; with a compression also their other forms, and with `force` only fitting ones. */
  async remotes(info: CacheResultInfo, compression: unknown): Promise<readonly Remote[]> {
    const refId = this.#refOf(info.id);
    if (refId === undefined || refId === "") return [];
    const ref = this.#refs.get(refId, { noUpdate: true });
    try {
      const all = ref.availableRemotes();
      const options = compression as CompressionOptions | undefined;
      const fitting = options?.force === true ? all.filter((remote) => isAll(remote, options)) : all;
      const asked = options === undefined ? fitting.slice(0, 1) : fitting;
      return asked.map((remote) => ({ descriptors: remote.descriptors, provider: remote }));
    } finally {
      await ref.release();
    }
  }

  #refOf(resultId: string): string | undefined {
    const prefix = `${this.#workerId}::`;
    return resultId.startsWith(prefix) ? resultId.slice(prefix.length) : undefined;
  }
}

function isAll(remote: StoreRemote, compression: CompressionOptions): boolean {
  return remote.descriptors.every((layer) => layerCompression(layer.mediaType) === compression.type);
}
