import { AT, decodePath, type FileStat, getXattr, listXattrs, readlinkAt, S } from "@kiln/sys";
import { GoMode, goModeFromPosix } from "./mode.ts";

/**
 * One entry of a tree as it travels: `path` relative with slashes, `mode` Go's `os.FileMode`, `modTime` in
 * unix nanoseconds. `linkname` is the target of a symbolic link, or for other files the earlier path of the
 * same inode. Fits as init of fsutil's `Stat` message.
 */
export interface Stat {
  path: string;
  mode: number;
  uid: number;
  gid: number;
  size: bigint;
  modTime: bigint;
  linkname: string;
  devmajor: bigint;
  devminor: bigint;
  xattrs: Record<string, Uint8Array>;
}

/** First path of every inode that was met, by device and inode. */
export type SeenInodes = Map<string, string>;

const noXattrs: Record<string, Uint8Array> = Object.freeze(Object.create(null) as Record<string, Uint8Array>);

/**
 * The entry for what lies at `fullPath`, named `path`. With `seen`, later links to an inode get the first
 * path as `linkname`. The socket bit is dropped as on fsutil's wire.
 */
export function statEntry(fullPath: string, path: string, st: FileStat, seen?: SeenInodes): Stat {
  const type = st.mode & S.IFMT;
  const out: Stat = {
    path,
    mode: (goModeFromPosix(st.mode) & ~GoMode.SOCKET) >>> 0,
    uid: st.uid,
    gid: st.gid,
    size: 0n,
    modTime: st.mtimeNs,
    linkname: "",
    devmajor: 0n,
    devminor: 0n,
    xattrs: readXattrs(fullPath, type),
  };
  if (type === S.IFDIR) return out;
  out.size = BigInt(st.size);
  if (type === S.IFCHR || type === S.IFBLK) {
    out.devmajor = BigInt(st.rdevMajor);
    out.devminor = BigInt(st.rdevMinor);
  }
  if (type === S.IFLNK) out.linkname = readlinkAt(AT.FDCWD, fullPath);
  if (seen && st.nlink > 1) noteInode(out, st, seen);
  return out;
}

function noteInode(out: Stat, st: FileStat, seen: SeenInodes): void {
  const key = `${st.devMajor}:${st.devMinor}:${st.ino}`;
  const first = seen.get(key);
  if (first === undefined) seen.set(key, out.path);
  else if ((out.mode & GoMode.SYMLINK) === 0 && first !== out.path) out.linkname = first;
}

/** Attributes of macOS that make no sense elsewhere. */
const skippedXattrs = "com.apple.";

function readXattrs(fullPath: string, type: number): Record<string, Uint8Array> {
  const names = listXattrs(fullPath);
  if (names.length === 0) return noXattrs;
  const out = Object.create(null) as Record<string, Uint8Array>;
  for (const name of names) {
    if (name.startsWith(skippedXattrs) || (type === S.IFLNK && name.startsWith("user."))) continue;
    const value = getXattr(fullPath, name);
    if (value !== undefined) out[name] = value;
  }
  return out;
}

/** A copy whose fields may be changed. */
export function cloneStat(stat: Stat): Stat {
  return { ...stat };
}

/** Text of bytes on the wire; names that aren't UTF-8 survive as in `@kiln/sys`. */
export const textFromWire = decodePath;
