import { newId } from "@kiln/formats";
import type { Descriptor } from "@kiln/oci";
import type { LeaseStore, RefManager } from "@kiln/store";

/** A pull of the same image shortly after finds its documents. Milliseconds. */
const PULL_LEASE_MS = 5 * 60_000;
const SWEEP_INTERVAL_MS = 60_000;
const PULL = "pull-";
const OF_REF = "image-documents-";

/**
 * Keeps the manifests and configs of images: for five minutes after a pull, and for as long as the image's
 * top layer is in the cache.
 */
export class DocumentLeases {
  readonly #leases: LeaseStore;
  readonly #refs: RefManager;
  #sweptAt = 0;
  #listening = false;

  constructor(leases: LeaseStore, refs: RefManager) {
    this.#leases = leases;
    this.#refs = refs;
    this.#dropOrphans();
  }

  /** A lease for what a pull is about to fetch. */
  pull(): { add(desc: Descriptor): void } {
    this.#sweep();
    const id = `${PULL}${newId()}`;
    this.#leases.create(id, { expiresAt: Date.now() + PULL_LEASE_MS });
    return { add: (desc) => this.#leases.add(id, { kind: "content", id: desc.digest }) };
  }

  /** Ties documents to a record. */
  keep(refId: string, documents: readonly Descriptor[]): void {
    if (!this.#listening) {
      this.#listening = true;
      this.#refs.onRemoved((id) => this.#leases.delete(OF_REF + id));
    }
    this.#leases.create(OF_REF + refId);
    for (const desc of documents) this.#leases.add(OF_REF + refId, { kind: "content", id: desc.digest });
  }

  /** Drops leases of records that went while nobody listened, as when the daemon was killed in between. */
  #dropOrphans(): void {
    for (const { id } of this.#leases.list()) {
      if (!id.startsWith(OF_REF)) continue;
      if (this.#refs.metadataOf(id.slice(OF_REF.length)) === undefined) this.#leases.delete(id);
    }
  }

  /** Drops leases of pulls that have expired. */
  #sweep(): void {
    const now = Date.now();
    if (now - this.#sweptAt < SWEEP_INTERVAL_MS) return;
    this.#sweptAt = now;
    for (const { id, expiresAt } of this.#leases.list()) {
      if (id.startsWith(PULL) && expiresAt !== undefined && expiresAt <= now) this.#leases.delete(id);
    }
  }
}

/** Ends the hold that recent pulls have on their documents; for pruning (BuildKit's `CancelCacheLeases`). */
export function dropPullLeases(leases: LeaseStore): void {
  for (const { id } of leases.list()) if (id.startsWith(PULL)) leases.delete(id);
}
