/**
 * Differences between two trees, in the order and by the rules of containerd's `fs.Changes` (two walks side
 * by side) and of BuildKit's overlay differ (one walk over the upper directory):
 *
 * - Names in byte order, a directory before what it holds.
 * - Files are the same when mode, owner, device, `security.capability`, size and times agree; times that both
 *   lack nanoseconds may have been cut by an archive, so then the contents are compared.
 * - Directories are the same whatever their times.
 * - What goes with its directory is not deleted by itself.
 * - An opaque directory is compared with what it hides, file by file.
 */
import { closeSync, openSync, readdirSync, readSync } from "node:fs";
import { BuildError } from "@kiln/base";
import {
  AT,
  comparePaths,
  decodeLatin1Path,
  type FileStat,
  fsPath,
  getXattr,
  isDirectory,
  isSymlink,
  lstat,
  readlinkAt,
  S,
  tryLstat,
} from "@kiln/sys";
import type { Change } from "./change-writer.ts";

const COMPARE_BYTES = 64 << 10;

/** Names in a directory, in byte order. */
function listDir(path: string): string[] {
  return readdirSync(fsPath(path), { encoding: "latin1" }).sort(byteOrder).map(decodeLatin1Path);
}

/** For texts of latin1, whose units are bytes. */
function byteOrder(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

/** What turns the tree `lower` (undefined: an empty one) into the tree `upper`. */
export function* treeChanges(lower: string | undefined, upper: string): Generator<Change> {
  yield* walkBoth({ lower, upper, overlay: false }, "");
}

interface Trees {
  readonly lower: string | undefined;
  readonly upper: string;
  /** `upper` is an overlay's directory: its 0:0 devices are not files. */
  readonly overlay: boolean;
}

function* walkBoth(trees: Trees, path: string): Generator<Change> {
  const lowerNames = trees.lower === undefined ? [] : listDir(trees.lower + path);
  const upperNames = listDir(trees.upper + path);
  let l = 0;
  let u = 0;
  while (l < lowerNames.length || u < upperNames.length) {
    const lowerName = lowerNames[l];
    const upperName = upperNames[u];
    const order =
      lowerName === undefined ? 1 : upperName === undefined ? -1 : comparePaths(lowerName, upperName);
    if (order < 0) {
      yield { kind: "delete", path: `${path}/${lowerName}` };
      l++;
      continue;
    }
    const child = `${path}/${upperName}`;
    const stat = lstat(trees.upper + child);
    u++;
    if (trees.overlay && isWhiteout(stat)) {
      // In an opaque directory it hides nothing; what lies below is gone already.
      if (order === 0) {
        yield { kind: "delete", path: child };
        l++;
      }
      continue;
    }
    if (order > 0) {
      yield { kind: "add", path: child, stat };
      if (isDirectory(stat)) yield* walkBoth({ ...trees, lower: undefined }, child);
      continue;
    }
    l++;
    yield* compareOne(trees, child, stat);
  }
}

function* compareOne(trees: Trees, path: string, stat: FileStat): Generator<Change> {
  const lowerFile = trees.lower + path;
  const lowerStat = lstat(lowerFile);
  const same = sameFile(lowerStat, stat, [lowerFile, trees.upper + path]);
  if (!same) yield { kind: "modify", path, stat };
  else if (!isDirectory(stat) && stat.nlink > 1) yield { kind: "unmodified", path, stat };
  if (!isDirectory(stat)) return;
  yield* walkBoth(isDirectory(lowerStat) ? trees : { ...trees, lower: undefined }, path);
}

/** What an overlay's upper directory changes in the tree `lower` (undefined: an empty one). */
export function* overlayChanges(
  lower: string | undefined,
  upper: string,
  xattrPrefix: "trusted." | "user.",
): Generator<Change> {
  yield* walkUpper({ lower, upper, overlay: true }, "", xattrPrefix);
}

function* walkUpper(trees: Trees, path: string, prefix: string): Generator<Change> {
  for (const name of listDir(trees.upper + path)) {
    const child = `${path}/${name}`;
    const stat = lstat(trees.upper + child);
    const lowerStat = trees.lower === undefined ? undefined : tryLstat(trees.lower + child);
    if (isWhiteout(stat)) {
      if (lowerStat) yield { kind: "delete", path: child };
      continue;
    }
    if (!lowerStat) yield { kind: "add", path: child, stat };
    else if (!sameFile(lowerStat, stat, [trees.lower + child, trees.upper + child])) {
      yield { kind: "modify", path: child, stat };
    }
    if (!isDirectory(stat)) continue;
    refuseRedirect(trees.upper + child, prefix);
    const below = lowerStat && isDirectory(lowerStat) ? trees : { ...trees, lower: undefined };
    if (below.lower !== undefined && isOpaque(trees.upper + child, prefix)) yield* walkBoth(below, child);
    else yield* walkUpper(below, child, prefix);
  }
}

function isWhiteout(stat: FileStat): boolean {
  return (stat.mode & S.IFMT) === S.IFCHR && stat.rdevMajor === 0 && stat.rdevMinor === 0;
}

function isOpaque(dir: string, prefix: string): boolean {
  return getXattr(dir, `${prefix}overlay.opaque`)?.toString("latin1") === "y";
}

function refuseRedirect(dir: string, prefix: string): void {
  if (getXattr(dir, `${prefix}overlay.redirect`) === undefined) return;
  throw new BuildError("unimplemented", "redirect_dir is used but it's not supported in overlayfs differ");
}

/** True when two entries at the same path are the same file; see the head of this module. */
export function sameFile(a: FileStat, b: FileStat, paths: readonly [string, string]): boolean {
  const sameDevice = a.devMajor === b.devMajor && a.devMinor === b.devMinor;
  if (sameDevice && a.ino === b.ino) return true;
  if (a.mode !== b.mode || a.uid !== b.uid || a.gid !== b.gid) return false;
  if (a.rdevMajor !== b.rdevMajor || a.rdevMinor !== b.rdevMinor) return false;
  if (!sameCapability(paths)) return false;
  if (isDirectory(a)) return true;
  if (a.size !== b.size || a.mtimeNs !== b.mtimeNs) return false;
  if (a.mtimeNs % 1_000_000_000n !== 0n) return true;
  if (isSymlink(a)) return readlinkAt(AT.FDCWD, paths[0]) === readlinkAt(AT.FDCWD, paths[1]);
  return (a.mode & S.IFMT) !== S.IFREG || a.size === 0 || sameContent(paths);
}

function sameCapability(paths: readonly [string, string]): boolean {
  const [a, b] = paths.map((path) => getXattr(path, "security.capability"));
  return a === undefined || b === undefined ? a === b : a.equals(b);
}

const compareBuffers = [Buffer.alloc(COMPARE_BYTES), Buffer.alloc(COMPARE_BYTES)] as const;

function sameContent(paths: readonly [string, string]): boolean {
  const a = openSync(fsPath(paths[0]), "r");
  try {
    const b = openSync(fsPath(paths[1]), "r");
    try {
      for (;;) {
        const lengthA = readFully(a, compareBuffers[0]);
        const lengthB = readFully(b, compareBuffers[1]);
        const equal = compareBuffers[0].subarray(0, lengthA).equals(compareBuffers[1].subarray(0, lengthB));
        if (!equal || lengthA === 0) return equal;
      }
    } finally {
      closeSync(b);
    }
  } finally {
    closeSync(a);
  }
}

function readFully(fd: number, buffer: Buffer): number {
  let filled = 0;
  while (filled < buffer.length) {
    const length = readSync(fd, buffer, filled, buffer.length - filled, null);
    if (length === 0) break;
    filled += length;
  }
  return filled;
}
