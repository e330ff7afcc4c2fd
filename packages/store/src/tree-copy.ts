/**
 * Copying of trees and of changes between them, with owners, modes, times, attributes and hard links. For
 * trees that nobody else writes to. Everything is synchronous; it runs in `tree-worker.ts`.
 */
import { constants, copyFileSync, readdirSync } from "node:fs";
import { posix } from "node:path";
import {
  AT,
  chmodAt,
  chownAt,
  decodeLatin1Path,
  type FileStat,
  fsPath,
  getXattr,
  isDirectory,
  isErrno,
  isSymlink,
  linkAt,
  listXattrs,
  lstat,
  mkdirAt,
  mknodAt,
  readlinkAt,
  S,
  setXattr,
  symlinkAt,
  tryLstat,
  utimesAt,
} from "@kiln/sys";

/** Names in a directory, unsorted. */
export function listDir(path: string): string[] {
  return readdirSync(fsPath(path), { encoding: "latin1" }).map(decodeLatin1Path);
}

/** Copies everything below `from` into the directory `to`, which takes over the attributes of `from`. */
export function copyTree(from: string, to: string): void {
  const links = new Map<bigint, string>();
  copyChildren(from, to, links);
  copyAttributes(from, to, lstat(from));
}

function copyChildren(from: string, to: string, links: Map<bigint, string>): void {
  for (const name of listDir(from)) {
    const source = posix.join(from, name);
    const target = posix.join(to, name);
    const stat = lstat(source);
    if (isDirectory(stat)) {
      mkdirAt(AT.FDCWD, target, 0o700);
      copyChildren(source, target, links);
      copyAttributes(source, target, stat);
      continue;
    }
    const first = stat.nlink > 1 ? links.get(stat.ino) : undefined;
    if (first !== undefined) {
      linkAt({ fd: AT.FDCWD, path: first }, { fd: AT.FDCWD, path: target });
      continue;
    }
    copyEntry(source, target, stat);
    if (stat.nlink > 1) links.set(stat.ino, target);
  }
}

/** Copies one file of any type but a directory; `target` must not exist. */
export function copyEntry(source: string, target: string, stat: FileStat): void {
  switch (stat.mode & S.IFMT) {
    case S.IFREG:
      copyFileSync(fsPath(source), fsPath(target), constants.COPYFILE_EXCL | constants.COPYFILE_FICLONE);
      break;
    case S.IFLNK:
      symlinkAt(readlinkAt(AT.FDCWD, source), AT.FDCWD, target);
      break;
    default:
      mknodAt(AT.FDCWD, target, stat.mode, { major: stat.rdevMajor, minor: stat.rdevMinor });
  }
  copyAttributes(source, target, stat);
}

/** Owner, attributes (not overlayfs's own), mode and times of `source`. */
export function copyAttributes(source: string, target: string, stat: FileStat): void {
  if (process.geteuid?.() === 0) chownAt(AT.FDCWD, target, stat.uid, stat.gid);
  for (const name of listXattrs(source)) {
    if (name.startsWith("trusted.overlay.") || name.startsWith("user.overlay.")) continue;
    const value = getXattr(source, name);
    if (value) trySetXattr(target, name, value);
  }
  if (!isSymlink(stat)) chmodAt(AT.FDCWD, target, stat.mode & 0o7777);
  utimesAt(AT.FDCWD, target, stat.atimeNs, stat.mtimeNs);
}

/** Some attributes can't be set everywhere (`security.selinux`, or without privileges). */
function trySetXattr(target: string, name: string, value: Uint8Array): void {
  try {
    setXattr(target, name, value);
  } catch (error) {
    if (!isErrno(error, "EPERM", "ENOTSUP", "EOPNOTSUPP", "EACCES")) throw error;
  }
}

/** Space that a tree takes; a file with several names counts once. */
export function treeUsage(path: string): { readonly sizeBytes: number; readonly inodes: number } {
  const seen = new Set<bigint>();
  let sizeBytes = 0;
  const visit = (at: string): void => {
    const stat = tryLstat(at);
    if (!stat || seen.has(stat.ino)) return;
    seen.add(stat.ino);
    sizeBytes += stat.blocks * 512;
    if (isDirectory(stat)) for (const name of listDir(at)) visit(posix.join(at, name));
  };
  visit(path);
  return { sizeBytes, inodes: seen.size };
}
