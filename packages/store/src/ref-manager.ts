import type { Descriptor } from "@kiln/oci";
import type {
  BlobProvider,
  BlobRefOptions,
  ImmutableRef,
  LayerObserver,
  MutableRef,
  RefContext,
  RefOptions,
} from "./ref.ts";
import type { DiskUsageOptions, PruneOptions, UsageInfo } from "./usage.ts";

/**
 * Gives out handles on file trees and remembers them across restarts; BuildKit's cache manager.
 *
 * A record lives on disk until it is pruned; it can't go while a handle on it or on one of its descendants
 * is held. Looking up an unknown or dead id rejects with `not_found`; taking a mutable record that is held
 * rejects with `failed_precondition` (see {@link isLocked}).
 */
export interface RefManager extends AsyncDisposable {
  /** A new writable tree on top of `parent` (or empty). `parent` is only borrowed. */
  newMutable(
    parent: ImmutableRef | undefined,
    opts: RefOptions & { readonly ctx?: RefContext },
  ): Promise<MutableRef>;
  /** The writable record `id`, when nobody holds it or the immutable record that equals it. */
  getMutable(id: string): Promise<MutableRef>;
  /** A handle on an immutable record (`opts.noUpdate`: does not count as use). */
  get(id: string, opts?: { readonly noUpdate?: boolean }): ImmutableRef;
  /**
   * The record of a layer blob on top of `parent`. The blob may be absent: it is fetched when first needed.
   * The same blob on the same parent is the same record.
   */
  getByBlob(desc: Descriptor, parent: ImmutableRef | undefined, opts: BlobRefOptions): Promise<ImmutableRef>;
  /** `parents` laid over each other, the last on top; nothing happens on disk until it is mounted. */
  merge(parents: readonly ImmutableRef[], opts: RefOptions): Promise<ImmutableRef>;
  /** What turns `lower` into `upper`, deletions included; nothing happens on disk until it is mounted. */
  diff(
    lower: ImmutableRef | undefined,
    upper: ImmutableRef | undefined,
    opts: RefOptions,
  ): Promise<ImmutableRef>;
  /** Ids of the records with this index value, of either kind. */
  search(index: string): readonly string[];
  /** Metadata of a record without taking a handle on it. */
  metadataOf(id: string): import("./ref.ts").RefMetadata | undefined;
  /** True when a tree can be mounted: what it lacks is known to be had elsewhere. */
  isAvailable(id: string): boolean;
  /** True when a blob of the record `id` is here, or the record's own one is known to be had elsewhere. */
  canHaveBlob(id: string, digest: string): boolean;
  /** Puts a new provider in the place of the one that a blob was given before; nothing where there was none. */
  refreshProvider(digest: string, provider: BlobProvider): void;
  /** Lets `observer` see what is still to be done for the layers of a tree; undefined when that is nothing. */
  observe(id: string, observer: LayerObserver): Disposable | undefined;
  /** Brings a blob of the record `id` into the content store. @throws `not_found`, `data_loss` */
  ensureBlob(id: string, digest: string, ctx: RefContext): Promise<void>;
  diskUsage(opts?: DiskUsageOptions): Promise<readonly UsageInfo[]>;
  /** Applies the rules in order; every record that goes is reported. Never removes a record that is held. */
  prune(
    rules: readonly PruneOptions[],
    onRecord?: (record: UsageInfo) => void,
    signal?: AbortSignal,
  ): Promise<void>;
  /** Removes blobs that neither a record nor a lease names and that are older than `graceMs`. */
  collectContent(graceMs: number): Promise<void>;
  /** `prune` for the background: coalesces calls, safe at any time. */
  enforce(rules: readonly PruneOptions[]): Promise<void>;
  /** Called with the ids of records that were removed (the solver forgets their results). */
  onRemoved(listener: (id: string) => void): Disposable;
}
