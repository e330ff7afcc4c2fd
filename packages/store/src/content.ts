import type { GrowingFile } from "@kiln/archive";
import type { Descriptor, Digest } from "@kiln/oci";

/** What the store knows about one blob. Times in milliseconds since the epoch. */
export interface BlobInfo {
  readonly digest: Digest;
  readonly sizeBytes: number;
  readonly createdAt: number;
  readonly labels: ReadonlyMap<string, string>;
}

/** What a blob must turn out to be; anything else is discarded. */
export interface BlobExpectation {
  readonly digest?: Digest;
  readonly sizeBytes?: number;
  /** Refuses more bytes than this when the size isn't known. */
  readonly maxBytes?: number;
  readonly labels?: Readonly<Record<string, string>>;
  /** Called with the file that is being written, for those who read it as it grows (before it is verified). */
  readonly growing?: (path: string) => GrowingFile;
}

/**
 * One blob being written. `commit` verifies digest and size, makes the bytes durable and visible; anything
 * else (`[Symbol.asyncDispose]` before `commit`, a mismatch, a crash) leaves nothing. Two writers of one
 * digest don't disturb each other.
 */
export interface BlobWriter extends AsyncDisposable {
  readonly offset: number;
  write(chunk: Uint8Array): Promise<void>;
  /** @throws `data_loss` when the digest differs, `failed_precondition` when the size does. */
  commit(expected?: BlobExpectation): Promise<Descriptor>;
}

/** Byte range to read: `length` absent means to the end. */
export interface ByteRange {
  readonly offset: number;
  readonly length?: number;
}

/** Blobs by their sha256, as files below `blobs/sha256/`. */
export interface ContentStore {
  readonly root: string;
  has(digest: string): boolean;
  /** @throws `not_found` */
  info(digest: string): BlobInfo;
  /** Path of the blob's file (which may not exist). @throws `invalid_argument` for a malformed digest. */
  path(digest: string): string;
  /** Folder for files that {@link ContentStore.adopt} takes over; the same file system as the blobs. */
  readonly ingestDir: string;
  writer(expected?: BlobExpectation): Promise<BlobWriter>;
  /** Writes a whole stream; does nothing (and leaves the stream unread) when the digest is there already. */
  write(
    source: AsyncIterable<Uint8Array> | Uint8Array,
    expected?: BlobExpectation & { readonly signal?: AbortSignal },
  ): Promise<Descriptor>;
  /** Takes over a finished, synced file whose digest the caller has computed. */
  adopt(file: string, blob: { readonly digest: Digest; readonly sizeBytes: number }): Promise<void>;
  /**
   * Streams a blob or a part of it. A whole blob is verified on the way: the last piece of one that was
   * damaged on disk never comes, and the blob is removed.
   *
   * @throws `not_found`, `data_loss`
   */
  read(digest: string, range?: ByteRange): AsyncIterable<Uint8Array>;
  /** The whole blob, verified against its digest. @throws `resource_exhausted` over `maxBytes` (8 MiB). */
  readAll(digest: string, maxBytes?: number): Promise<Uint8Array>;
  /** Reads and hashes the file; a blob that doesn't match is removed. @throws `data_loss` */
  verify(digest: string): Promise<void>;
  setLabels(digest: string, labels: Readonly<Record<string, string | undefined>>): void;
  walk(): Iterable<BlobInfo>;
  delete(digest: string): Promise<void>;
}
