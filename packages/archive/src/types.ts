import type { Digest } from "@kiln/oci";

/** Bytes in pieces. */
export type Chunks = AsyncIterable<Uint8Array> | Iterable<Uint8Array>;

/** How a layer's bytes are packed. */
export type CompressionKind = "uncompressed" | "gzip" | "zstd" | "estargz";

/** What magic bytes can say about a file. */
export type DetectedCompression = "uncompressed" | "gzip" | "zstd" | "bzip2" | "xz";

/** Kinds of tar entry; `global` is a PAX header for all that follow, `other` one that we don't know. */
export type TarType = "file" | "link" | "symlink" | "char" | "block" | "dir" | "fifo" | "global" | "other";

/** Dialects of tar, as Go's `archive/tar` tells them apart. */
export type TarFormat = "ustar" | "pax" | "gnu";

/**
 * One entry of a tar file. Texts are file-system bytes: what isn't UTF-8 is kept as lone surrogates
 * U+DC80…U+DCFF (Python's `surrogateescape`), so that every name survives a round trip.
 */
export interface TarHeader {
  /** Slash-separated as in the file, a directory's trailing slash included. */
  readonly name: string;
  readonly type: TarType;
  /** Type byte of an `other` entry. */
  readonly typeflag?: number;
  /** Permissions with setuid, setgid and sticky; what was read may hold more bits than 07777. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly uname?: string;
  readonly gname?: string;
  /** Bytes of content that follow; only a `file` has any. */
  readonly size: number;
  /** Nanoseconds since the epoch. */
  readonly mtimeNs: bigint;
  readonly atimeNs?: bigint;
  readonly ctimeNs?: bigint;
  readonly linkname?: string;
  readonly devmajor?: number;
  readonly devminor?: number;
  /** Extended attributes, in the order of the archive. */
  readonly xattrs?: ReadonlyMap<string, Uint8Array>;
  /** Every PAX record but extended attributes. The writer leaves out those that contradict the fields above. */
  readonly pax?: ReadonlyMap<string, string>;
  /**
   * Dialect that was read, or is wanted. Absent when writing: the oldest that fits, times in whole seconds,
   * no access and change time (Go's `FormatUnknown`).
   */
  readonly format?: TarFormat;
}

/** Bounds on what an archive may make us do; see `DEFAULT_LIMITS`. */
export interface ArchiveLimits {
  readonly maxEntries: number;
  /** Of all contents and headers together, uncompressed. */
  readonly maxTotalBytes: number;
  /** Of one long name, link target or PAX header block. */
  readonly maxHeaderBytes: number;
  /** Uncompressed bytes per compressed byte, looked at from 1 GiB on. */
  readonly maxRatio: number;
}

/** Result of unpacking one layer. */
export interface ApplyResult {
  /** sha256 of the uncompressed tar. */
  readonly diffId: Digest;
  /** Length of the uncompressed tar. */
  readonly tarBytes: number;
  /** Bytes of file contents written. */
  readonly sizeBytes: number;
  readonly inodes: number;
  /** Directories that had no entry of their own and were made for their children, outermost first. */
  readonly implicitDirs: readonly string[];
}

/** `size` ids from `containerId` on are `hostId` and up on disk. */
export interface IdRange {
  readonly containerId: number;
  readonly hostId: number;
  readonly size: number;
}

/** How to unpack a layer. */
export interface ApplyOptions {
  /**
   * `overlay`: `dir` is an upper directory, whiteouts become 0:0 devices and opaque attributes.
   * `remove`: `dir` is the whole tree, whiteouts delete.
   * `keep`: whiteout files are ordinary files.
   */
  readonly whiteouts: "overlay" | "remove" | "keep";
  /** Prefix of the overlay's attributes: `trusted.` (default) or `user.` (mounted with `userxattr`). */
  readonly overlayXattrPrefix?: "trusted." | "user.";
  /** Directories below `dir` in its overlay, nearest first: missing parents copy owner and mode from there. */
  readonly lowerDirs?: readonly string[];
  /** Give up on ownership, devices and privileged attributes that this user may not set. Default: not root. */
  readonly unprivileged?: boolean;
  /** Owner of every entry, instead of what the archive says; missing parents aren't entries. */
  readonly owner?: { readonly uid: number; readonly gid: number };
  /** Moves ids of the archive to ids on disk; one that no range holds is an error. */
  readonly idMaps?: { readonly uids: readonly IdRange[]; readonly gids: readonly IdRange[] };
  readonly limits?: Partial<ArchiveLimits>;
  readonly signal?: AbortSignal;
}

/** What to write when two trees are compared. */
export interface DiffOptions {
  /** The tree before; absent means empty. */
  readonly lowerDir?: string;
  /** The tree after, mounted. */
  readonly upperDir: string;
  /**
   * Upper directory of the overlay whose merged view is `upperDir`: only what lies here is looked at,
   * against `lowerDir`.
   */
  readonly overlayUpperDir?: string;
  readonly overlayXattrPrefix?: "trusted." | "user.";
  /** Seconds; later modification times become this. */
  readonly sourceDateEpoch?: number;
  readonly signal?: AbortSignal;
}

/** A blob that was just made. */
export interface LayerBlob {
  readonly digest: Digest;
  readonly sizeBytes: number;
  readonly diffId: Digest;
  readonly tarBytes: number;
  /** What the compression wants said of the blob in its descriptor (eStargz). */
  readonly annotations?: Readonly<Record<string, string>>;
}
