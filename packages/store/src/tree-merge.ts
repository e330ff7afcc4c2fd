import { posix } from "node:path";
import { type Change, layerChanges } from "@kiln/archive";
import {
  AT,
  type FileStat,
  isDirectory,
  isErrno,
  linkAt,
  lstat,
  mkdirAt,
  mknodAt,
  removeTree,
  rootPath,
  S,
  setXattr,
  tryLstat,
  utimesAt,
} from "@kiln/sys";
import { copyAttributes, copyEntry } from "./tree-copy.ts";

/** One difference to be laid over a tree: what turns `lowerDir` into `upperDir`. */
export interface TreeDiff {
  readonly lowerDir?: string;
  readonly upperDir: string;
  /** Set when `upperDir` is the overlay over `lowerDir` with this upper directory. */
  readonly overlayUpperDir?: string;
}

/** Where differences are laid. */
export interface MergeTarget {
  /** The whole tree, or an overlay's upper directory. */
  readonly dir: string;
  /** Directories below an overlay's upper directory, nearest first; absent for a whole tree. */
  readonly lowerDirs?: readonly string[];
  readonly overlayXattrPrefix: "trusted." | "user.";
  /** Link files of the differences instead of copying them. */
  readonly link: boolean;
}

/**
 * Lays differences over a tree in order, as layers are unpacked over each other: directories are merged,
 * everything else is replaced, deletions delete. Files are hard-linked where that can be, so the result must
 * never be written to in place.
 */
export function mergeDiffs(target: MergeTarget, diffs: readonly TreeDiff[]): void {
  for (const diff of diffs) new DiffMerger(target, diff).run();
}

class DiffMerger {
  readonly #target: MergeTarget;
  readonly #diff: TreeDiff;
  readonly #source: string;
  /** Directories of this difference that have been laid over. */
  readonly #dirs = new Set<string>();
  readonly #dirTimes = new Map<string, FileStat>();
  /** Inode of the source → where its first name went. */
  readonly #links = new Map<bigint, string>();

  constructor(target: MergeTarget, diff: TreeDiff) {
    this.#target = target;
    this.#diff = diff;
    this.#source = diff.overlayUpperDir ?? diff.upperDir;
  }

  run(): void {
    const prefix = this.#target.overlayXattrPrefix;
    for (const change of layerChanges({ ...this.#diff, overlayXattrPrefix: prefix })) this.#apply(change);
    for (const [path, stat] of this.#dirTimes) {
      if (tryLstat(path)) utimesAt(AT.FDCWD, path, stat.atimeNs, stat.mtimeNs);
    }
  }

  #apply(change: Change): void {
    if (change.kind === "unmodified") return;
    this.#parents(change.path);
    const path = this.#place(this.#target.dir, change.path);
    if (change.kind === "delete") this.#delete(change.path, path);
    else if (change.stat) this.#put(change.path, path, change.stat);
  }

  /** Path in a tree; links above the last name are followed inside the tree. */
  #place(root: string, path: string): string {
    return posix.join(rootPath(root, posix.dirname(path)), posix.basename(path));
  }

  /** The directories above a change come with it, attributes included. */
  #parents(path: string): void {
    const parent = posix.dirname(path);
    if (parent === "/" || this.#dirs.has(parent)) return;
    this.#parents(parent);
    this.#put(parent, this.#place(this.#target.dir, parent), lstat(this.#source + parent));
  }

  #put(path: string, to: string, stat: FileStat): void {
    const existing = tryLstat(to);
    if (isDirectory(stat)) {
      this.#putDir(path, to, { stat, existing });
      return;
    }
    if (existing) removeTree(to);
    const source = this.#source + path;
    const first = stat.nlink > 1 ? this.#links.get(stat.ino) : undefined;
    if (first !== undefined && tryLink(first, to)) return;
    if (!this.#mayLink(stat) || !tryLink(source, to)) copyEntry(source, to, stat);
    if (stat.nlink > 1) this.#links.set(stat.ino, to);
  }

  /** Pipes and sockets would connect trees that have nothing to do with each other. */
  #mayLink(stat: FileStat): boolean {
    const type = stat.mode & S.IFMT;
    return this.#target.link && type !== S.IFIFO && type !== S.IFSOCK;
  }

  #putDir(
    path: string,
    to: string,
    is: { readonly stat: FileStat; readonly existing: FileStat | undefined },
  ): void {
    this.#dirs.add(path);
    const merge = is.existing !== undefined && isDirectory(is.existing);
    if (is.existing && !merge) removeTree(to);
    if (!merge) mkdirAt(AT.FDCWD, to, 0o700);
    copyAttributes(this.#source + path, to, is.stat);
    // What this directory replaces hid what lies below; so must the directory.
    if (is.existing && !merge && this.#target.lowerDirs) {
      setXattr(to, `${this.#target.overlayXattrPrefix}overlay.opaque`, Buffer.from("y"));
    }
    this.#dirTimes.set(to, is.stat);
  }

  #delete(path: string, to: string): void {
    removeTree(to);
    const lowerDirs = this.#target.lowerDirs;
    if (!lowerDirs?.some((lower) => tryLstat(this.#place(lower, path)))) return;
    this.#parentsInUpper(posix.dirname(path));
    mknodAt(AT.FDCWD, this.#place(this.#target.dir, path), S.IFCHR);
  }

  /** A whiteout needs its directory in the upper tree; it looks as the one below does. */
  #parentsInUpper(path: string): void {
    if (path === "/" || tryLstat(this.#place(this.#target.dir, path))) return;
    this.#parentsInUpper(posix.dirname(path));
    const to = this.#place(this.#target.dir, path);
    mkdirAt(AT.FDCWD, to, 0o755);
    for (const lower of this.#target.lowerDirs ?? []) {
      const source = rootPath(lower, path);
      const stat = tryLstat(source);
      if (!stat) continue;
      if (isDirectory(stat)) {
        copyAttributes(source, to, stat);
        this.#dirTimes.set(to, stat);
      }
      return;
    }
  }
}

/** False when files can't be linked here: another disk, too many links, or not allowed. */
function tryLink(from: string, to: string): boolean {
  try {
    linkAt({ fd: AT.FDCWD, path: from }, { fd: AT.FDCWD, path: to });
    return true;
  } catch (error) {
    if (isErrno(error, "EXDEV", "EMLINK", "EPERM")) return false;
    throw error;
  }
}
