import type { CompressionKind } from "@kiln/archive";
import type { Descriptor, Digest } from "@kiln/oci";
import type { Mount } from "@kiln/sys";

/** What a cache record is for; the words of BuildKit's `UsageRecordType`. */
export type RecordType =
  | "internal"
  | "frontend"
  | "source.local"
  | "source.git.checkout"
  | "exec.cachemount"
  | "regular";

/** `retain` keeps a mutable record after its release (cache mounts, local sources). */
export type CachePolicy = "default" | "retain";

/** Mounts that are good until `release`; both ways of disposing do the same. */
export interface Mountable extends AsyncDisposable {
  readonly mounts: readonly Mount[];
  release(): Promise<void>;
}

/** How many of how many bytes, for one blob. `done` is set in the last report. */
export interface BlobProgress {
  readonly digest: string;
  readonly action: "downloading" | "extracting" | "converting" | "creating";
  readonly current: number;
  readonly total: number;
  readonly done: boolean;
}

/**
 * What travels down to `fetchBlob` when something lazy has to be had: the caller's session group in
 * `session` (opaque here), its signal, and where progress goes.
 */
export interface RefContext {
  readonly signal: AbortSignal;
  readonly session?: unknown;
  readonly onProgress?: (progress: BlobProgress) => void;
}

/** Is told of the fetching and unpacking of lazy layers, whoever asks for them. */
export interface LayerObserver {
  /** Work on a layer begins; what is returned is called once, when it has ended. */
  begin(): (error?: unknown) => void;
  progress(progress: BlobProgress): void;
}

/** Streams the bytes of one blob; used for layers whose source can't be named by a string. */
export type BlobProvider = (desc: Descriptor, ctx: RefContext) => Promise<AsyncIterable<Uint8Array>>;

/** What a new record says about itself. */
export interface RefOptions {
  readonly description?: string;
  readonly recordType?: RecordType;
  /** Milliseconds since the epoch; now when absent. */
  readonly createdAt?: number;
  readonly cachePolicy?: CachePolicy;
  readonly imageRefs?: readonly string[];
}

/** Options of `getByBlob`. */
export interface BlobRefOptions extends RefOptions {
  /** sha256 of the uncompressed layer. */
  readonly diffId: Digest;
  /** Where the blob can be had again, in the words of the injected `fetchBlob`. */
  readonly remotes?: readonly string[];
  /** Preferred over `remotes` for as long as this process lives. */
  readonly provider?: BlobProvider;
}

/** Small facts that other subsystems keep with a record. Written through to the database at once. */
export interface RefMetadata {
  getString(key: string): string | undefined;
  /** `index`: the value with which `RefManager.search` finds this record. */
  setString(key: string, value: string, index?: string): void;
  getBytes(key: string): Uint8Array | undefined;
  setBytes(key: string, value: Uint8Array): void;
  delete(key: string): void;
}

/** What both kinds of handle have. A handle is released exactly once; a second release does nothing. */
interface RefHandle extends AsyncDisposable {
  /** Id of the record, the same for all handles of it. */
  readonly id: string;
  readonly metadata: RefMetadata;
  readonly description: string;
  readonly recordType: RecordType;
  readonly createdAt: number;
  readonly lastUsedAt: number | undefined;
  readonly usageCount: number;
  setDescription(text: string): void;
  setRecordType(type: RecordType): void;
  setCreatedAt(timeMs: number): void;
  /** Bytes that this record alone takes (snapshot and blobs). */
  size(): Promise<number>;
  release(): Promise<void>;
}

/** Options of `toRemote`. */
export interface RemoteOptions {
  readonly compression: CompressionOptions;
  readonly ctx: RefContext;
  /** Keep the foreign type of layers that have URLs (`prefer-nondist-layers`). */
  readonly preferNondistributable?: boolean;
  /** Create blobs for layers that have none; without it such a layer makes the answer undefined. Default true. */
  readonly createIfNeeded?: boolean;
}

/** `force` converts layers that exist in another compression. */
export interface CompressionOptions {
  readonly type: CompressionKind;
  readonly level?: number;
  readonly force?: boolean;
  /** Media types of OCI (true, the default) or of Docker. */
  readonly ociTypes?: boolean;
}

/** A chain of layers as blobs, base first. */
export interface Remote {
  readonly descriptors: readonly Descriptor[];
  /** The ref of each descriptor, for its history (`description`, `createdAt`). Valid while the asked ref is held. */
  readonly layers: readonly LayerInfo[];
}

/** One layer of a chain. */
export interface LayerInfo {
  readonly id: string;
  readonly description: string;
  readonly createdAt: number;
  readonly diffId: Digest;
  /** True when the blob isn't in the content store (it goes from `remotes` straight to where it's pushed). */
  readonly lazy: boolean;
  readonly remotes: readonly string[];
}

/** A file tree that never changes. */
export interface ImmutableRef extends RefHandle {
  readonly kind: "immutable";
  clone(): ImmutableRef;
  /** Handle on the parent layer; undefined for a base layer, a merge or a diff. The caller releases it. */
  parent(): ImmutableRef | undefined;
  /** Layers from the base up, merges and diffs flattened. The caller releases them. */
  layers(): readonly ImmutableRef[];
  readonly diffId: Digest | undefined;
  readonly chainId: Digest | undefined;
  readonly blobChainId: Digest | undefined;
  readonly blob: Descriptor | undefined;
  readonly imageRefs: readonly string[];
  addImageRef(ref: string): void;
  hasCachePolicyRetain(): boolean;
  setCachePolicy(policy: CachePolicy): void;
  /** False when mounting has to download or unpack something first. */
  isExtracted(): boolean;
  /** Makes the tree mountable: downloads, verifies and unpacks what is missing. */
  extract(ctx: RefContext): Promise<void>;
  /** Read-only unless `readonly` is false, which only a view's throw-away copy could serve and is refused. */
  mount(readonly: boolean, ctx: RefContext): Promise<Mountable>;
  /** Commits the snapshot behind an equal mutable record, which is gone afterwards. */
  finalize(): Promise<void>;
  /**
   * Layers as blobs in the wanted compression, base first; created, converted or passed through lazily as
   * need be. Undefined only with `createIfNeeded: false`.
   */
  toRemote(opts: RemoteOptions): Promise<Remote | undefined>;
  /** Every chain of descriptors that can be had without any work, one per compression on hand. */
  availableRemotes(): readonly Remote[];
}

/** A file tree that one holder may write to. */
export interface MutableRef extends RefHandle {
  readonly kind: "mutable";
  readonly parentId: string | undefined;
  setCachePolicy(policy: CachePolicy): void;
  mount(readonly: boolean, ctx: RefContext): Promise<Mountable>;
  /**
   * Makes what was written immutable and ends this handle. With the policy `retain`, `getMutable` of this id
   * takes the tree back (and invalidates the immutable record) once nobody holds it.
   */
  commit(): Promise<ImmutableRef>;
}
