import type { Router } from "@kiln/grpc/server";
import type { BlobStore } from "../content/blob-store.ts";
import { addContentService, storeByMetadata } from "../content/service.ts";
import type { Attachable } from "./attachable.ts";

/** Shares content stores with the daemon under ids such as `local:<dir>`, `oci:<name>` or `export`. */
export class ContentProvider implements Attachable {
  readonly #stores: Map<string, BlobStore>;

  constructor(stores: Iterable<readonly [string, BlobStore]>) {
    this.#stores = new Map(stores);
  }

  /** Adds a store while the session runs. */
  set(id: string, store: BlobStore): void {
    this.#stores.set(id, store);
  }

  addTo(router: Router): void {
    addContentService(router, storeByMetadata(this.#stores));
  }
}
