/** What is known of a blob. */
export interface StoredBlob {
  readonly digest: string;
  readonly sizeBytes: number;
  readonly createdAt: Date;
  readonly updatedAt: Date;
  readonly labels: Readonly<Record<string, string>>;
}

/** A blob that is being written; kept under its ref until it is committed or aborted. */
export interface BlobIngest {
  readonly ref: string;
  readonly startedAt: Date;
  readonly updatedAt: Date;
  /** Bytes that were written. */
  readonly offset: number;
  /** Digest of what was written so far. */
  digest(): string;
  write(data: Uint8Array): Promise<void>;
  /** Drops what was written behind `sizeBytes`; only 0 need be supported. */
  truncate(sizeBytes: number): Promise<void>;
  /**
   * Makes the blob available. Throws `failed_precondition` when size or digest aren't as expected and
   * `already_exists` when it is there.
   */
  commit(expected: {
    readonly sizeBytes?: number;
    readonly digest?: string;
    readonly labels?: Record<string, string>;
  }): Promise<void>;
  /** Lets go of it; it can be opened again. */
  close(): Promise<void>;
}

/** Blobs by digest, as containerd's content API shows them. Missing methods make a store read-only. */
export interface BlobStore {
  /** Throws `not_found`. */
  info(digest: string): Promise<StoredBlob>;
  list(): AsyncIterable<StoredBlob>;
  /** Bytes from `offset`; throws `not_found`. */
  read(
    digest: string,
    range: { readonly offset: number; readonly sizeBytes: number },
  ): AsyncIterable<Uint8Array>;
  ingest?(
    ref: string,
    expected: { readonly sizeBytes?: number; readonly digest?: string },
  ): Promise<BlobIngest>;
  /** Unfinished writes. */
  ingests?(): Promise<readonly BlobIngestStatus[]>;
  abort?(ref: string): Promise<void>;
  delete?(digest: string): Promise<void>;
  setLabels?(digest: string, labels: Readonly<Record<string, string>>): Promise<StoredBlob>;
}

/** State of an unfinished write. */
export interface BlobIngestStatus {
  readonly ref: string;
  readonly offset: number;
  readonly startedAt: Date;
  readonly updatedAt: Date;
}
