import { createHash, type Hash } from "node:crypto";
import { type BigIntStats, closeSync, openSync, readlinkSync, readSync } from "node:fs";
import { comparePaths, fsPath, getXattr, listXattrs } from "@kiln/sys";

/** What of a file's metadata goes into its digest. Times don't. */
export interface HashedStat {
  /** POSIX mode, type bits included. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  /** Bytes of a regular file, 0 for all else. */
  readonly size: bigint;
  readonly linkname: string;
  readonly devMajor: bigint;
  readonly devMinor: bigint;
  readonly xattrs: ReadonlyMap<string, Uint8Array>;
}

const S_IFMT = 0o170000;
const READ_CHUNK_BYTES = 1 << 20;

const TYPE_FLAGS: Readonly<Record<number, string>> = {
  16807: "0",
  21609: "2",
  4802: "3",
  14406: "4",
  9604: "5",
  2401: "6",
};

/**
 * Starts the digest of one file: the legacy "tarsum v1" text of a tar header with empty name and without
 * modification time, then sorted extended attributes; the file's bytes follow (buildkit
 * `cache/contenthash/tarsum.go`). Sockets count as regular files, as upstream clears their type bit.
 */
export function startFileHash(stat: HashedStat): Hash {
  const type = stat.mode & S_IFMT;
  const symlink = type === 0o120000;
  const mode = (symlink ? 0o777 : stat.mode & 0o777) | (stat.mode & 0o7000);
  const regular = type === 0o100000 || type === 0o140000;
  const hash = createHash("sha256");
  hash.update(
    `name` +
      `mode${mode}uid${stat.uid}gid${stat.gid}size${regular ? stat.size : 0n}` +
      `typeflag${TYPE_FLAGS[type] ?? "0"}linkname${symlink ? stat.linkname : ""}uname` +
      `gnamedevmajor${stat.devMajor}devminor${stat.devMinor}`,
  );
  for (const key of [...stat.xattrs.keys()].sort(comparePaths)) {
    if (!isHashedXattr(key)) continue;
    hash.update(key);
    hash.update(stat.xattrs.get(key) as Uint8Array);
  }
  return hash;
}

/** Extended attributes that count: all but `security.*` (save file capabilities) and `system.*`. */
function isHashedXattr(name: string): boolean {
  if (name === "security.capability") return true;
  return !name.startsWith("security.") && !name.startsWith("system.");
}

/** The digest of the file at `path`, whose `lstat` is `stat`; never follows a link at the end of it. */
export function hashFile(path: string, stat: BigIntStats): string {
  const mode = Number(stat.mode);
  const type = mode & S_IFMT;
  const device = type === 0o020000 || type === 0o060000;
  const hash = startFileHash({
    mode,
    uid: Number(stat.uid),
    gid: Number(stat.gid),
    size: stat.size,
    linkname: type === 0o120000 ? readlinkSync(fsPath(path)) : "",
    devMajor: device ? majorOf(stat.rdev) : 0n,
    devMinor: device ? minorOf(stat.rdev) : 0n,
    xattrs: readXattrs(path),
  });
  if (type === 0o100000 && stat.size > 0n) hashContents(path, hash);
  return `sha256:${hash.digest("hex")}`;
}

function readXattrs(path: string): Map<string, Uint8Array> {
  const attrs = new Map<string, Uint8Array>();
  for (const name of listXattrs(path)) {
    if (!isHashedXattr(name) || name.startsWith("trusted.overlay.")) continue;
    const value = getXattr(path, name);
    if (value !== undefined) attrs.set(name, value);
  }
  return attrs;
}

let chunk: Buffer | undefined;

function hashContents(path: string, hash: Hash): void {
  chunk ??= Buffer.allocUnsafe(READ_CHUNK_BYTES);
  const fd = openSync(fsPath(path), "r");
  try {
    for (;;) {
      const read = readSync(fd, chunk, 0, chunk.length, null);
      if (read === 0) return;
      hash.update(read === chunk.length ? chunk : chunk.subarray(0, read));
    }
  } finally {
    closeSync(fd);
  }
}

/** Linux `gnu_dev_major`. */
function majorOf(rdev: bigint): bigint {
  return ((rdev >> 8n) & 0xfffn) | ((rdev >> 32n) & ~0xfffn);
}

/** Linux `gnu_dev_minor`. */
function minorOf(rdev: bigint): bigint {
  return (rdev & 0xffn) | ((rdev >> 12n) & ~0xffn);
}
