import {
  type BigIntStats,
  chmodSync,
  constants,
  copyFileSync,
  lchownSync,
  linkSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  unlinkSync,
} from "node:fs";
import { BuildError } from "@kiln/base";
import { type MatchInfo, PatternMatcher } from "@kiln/patterns";
import {
  AT,
  comparePaths,
  decodePath,
  fsPath,
  getXattr,
  listXattrs,
  mknodAt,
  setXattr,
  utimesAt,
} from "@kiln/sys";

/** Owner of what is written. */
export interface Owner {
  readonly uid: number;
  readonly gid: number;
}

/** How files change on their way. */
export interface CopyTraits {
  readonly owner: Owner | undefined;
  /** Modification and access time in nanoseconds; the source's when undefined. */
  readonly timeNs: bigint | undefined;
  /** New mode from a file's own (low 12 bits); undefined keeps it. */
  readonly mode: ((mode: number, isDir: boolean) => number) | undefined;
  readonly includePatterns: readonly string[];
  readonly excludePatterns: readonly string[];
  /** What is in the way goes, whatever kind it is; directories are still merged. */
  readonly alwaysReplace: boolean;
}

interface PendingDir {
  readonly source: string;
  readonly target: string;
  made: boolean;
}

interface PatternState {
  readonly include: MatchInfo | undefined;
  readonly exclude: MatchInfo | undefined;
}

interface ParentState extends PatternState {
  /** A directory that was there gets the source's metadata; not so the one that was asked for. */
  readonly overwriteMeta: boolean;
  /** The target's directory was made just now: nothing is in the way there, and what is made there is ours. */
  readonly isFresh: boolean;
}

const S_IFMT = 0o170000n;
const S_IFREG = 0o100000n;
const S_IFDIR = 0o040000n;
const S_IFLNK = 0o120000n;
const S_ISGID = 0o2000n;
/** Bits that a change of owner may clear. */
const SET_ID_BITS = 0o6000;

/**
 * Copies one tree into another with everything files have (`cp -a`): modes, owners, times, extended
 * attributes, devices, and hard links among the copied files. Links are copied, never followed; the caller
 * has resolved both ends inside their roots.
 */
export class TreeCopier {
  readonly #traits: CopyTraits;
  readonly #include: PatternMatcher | undefined;
  readonly #exclude: PatternMatcher | undefined;
  /** First copy of each file with more than one name. */
  readonly #links = new Map<string, string>();
  /** Whether files can share their contents on this file system; unknown before the first one. */
  #canClone: boolean | undefined;
  readonly #uid = process.geteuid?.() ?? -1;
  readonly #gid = process.getegid?.() ?? -1;
  /** Directories on the way that are made when something in them is copied. */
  readonly #pending: PendingDir[] = [];

  constructor(traits: CopyTraits) {
    this.#traits = traits;
    this.#include =
      traits.includePatterns.length > 0 ? new PatternMatcher(traits.includePatterns) : undefined;
    this.#exclude =
      traits.excludePatterns.length > 0 ? new PatternMatcher(traits.excludePatterns) : undefined;
  }

  /** Copies `source` to exactly `target`; the directory of `target` exists. */
  copy(source: string, target: string): void {
    const top = { include: undefined, exclude: undefined, overwriteMeta: false, isFresh: false };
    this.#copy(source, "", target, top);
  }

  #copy(source: string, relative: string, target: string, parent: ParentState): void {
    const { overwriteMeta, isFresh } = parent;
    const match = this.#match(relative, parent);
    if (match.skip) return;
    const stat = lstatSync(fsPath(source), { bigint: true });
    const isDir = (stat.mode & S_IFMT) === S_IFDIR;
    if (!match.wanted && !isDir) return;
    const before = isFresh ? undefined : lstatSync(fsPath(target), { bigint: true, throwIfNoEntry: false });
    if (match.wanted) {
      const bothDirs = isDir && before?.isDirectory() === true;
      if (this.#traits.alwaysReplace && before !== undefined && !bothDirs) {
        rmSync(fsPath(target), { recursive: true, force: true });
      }
      this.#makePending();
    }
    if (!isDir) {
      if (!isFresh) clearForFile(target);
      this.#copyLeaf(source, target, stat);
      const isCopy = (stat.mode & S_IFMT) === S_IFREG && stat.nlink === 1n;
      if (isFresh && isCopy) this.#copyMetaOfNewFile(source, target, stat);
      else this.#copyMeta(source, target, stat);
      return;
    }
    const made = this.#copyDir(source, relative, target, { stat, overwriteMeta, match });
    if (match.wanted && (overwriteMeta || made)) this.#copyMeta(source, target, stat);
    else if (match.wanted && before !== undefined) this.#copyTimes(target, stat);
  }

  #match(
    relative: string,
    parent: PatternState,
  ): PatternState & { wanted: boolean; skip: boolean; cut: boolean } {
    if (relative === "") {
      return { include: undefined, exclude: undefined, wanted: true, skip: false, cut: false };
    }
    const include = this.#include?.next(relative, parent.include);
    const exclude = this.#exclude?.next(relative, parent.exclude);
    const excluded = exclude?.matched ?? false;
    const wanted = (include?.matched ?? true) && !excluded;
    // below an excluded directory nothing can come back without a `!` pattern
    const cut = excluded && !(this.#exclude?.hasExclusions ?? false);
    return {
      include: include?.info,
      exclude: exclude?.info,
      wanted,
      skip: !wanted && this.#include === undefined && cut,
      cut,
    };
  }

  #makePending(): void {
    for (const dir of this.#pending) {
      if (dir.made) continue;
      const stat = statSync(fsPath(dir.source), { bigint: true });
      if (!stat.isDirectory()) throw new BuildError("unknown", `${dir.source} is not a directory`);
      if (makeDir(dir.target, stat, false)) this.#copyMeta(dir.source, dir.target, stat);
      dir.made = true;
    }
  }

  #copyDir(
    source: string,
    relative: string,
    target: string,
    at: {
      readonly stat: BigIntStats;
      readonly overwriteMeta: boolean;
      readonly match: PatternState & { readonly wanted: boolean; readonly cut: boolean };
    },
  ): boolean {
    const made = at.match.wanted && makeDir(target, at.stat, at.overwriteMeta);
    if (at.match.cut) return false;
    this.#pending.push({ source, target, made: at.match.wanted });
    const isFresh = made && (lstatSync(fsPath(target), { bigint: true }).mode & S_ISGID) === 0n;
    const state = { ...at.match, overwriteMeta: true, isFresh };
    for (const name of listNames(source)) {
      const below = relative === "" ? name : `${relative}/${name}`;
      this.#copy(`${source}/${name}`, below, `${target}/${name}`, state);
    }
    this.#pending.pop();
    return made;
  }

  #copyLeaf(source: string, target: string, stat: BigIntStats): void {
    switch (stat.mode & S_IFMT) {
      case S_IFREG: {
        const key = `${stat.dev}:${stat.ino}`;
        const first = stat.nlink > 1n ? this.#links.get(key) : undefined;
        if (first !== undefined) {
          linkSync(fsPath(first), fsPath(target));
          return;
        }
        this.#copyContents(source, target);
        if (stat.nlink > 1n) this.#links.set(key, target);
        return;
      }
      case S_IFLNK:
        symlinkSync(readlinkSync(fsPath(source), "buffer"), fsPath(target));
        return;
      default:
        mknodAt(AT.FDCWD, target, Number(stat.mode), deviceOf(stat.rdev));
    }
  }

  /** Asks for shared contents until that turns out not to work here. The new file has the old one's mode. */
  #copyContents(source: string, target: string): void {
    const [from, to] = [fsPath(source), fsPath(target)];
    if (this.#canClone === undefined) {
      try {
        copyFileSync(from, to, constants.COPYFILE_FICLONE_FORCE | constants.COPYFILE_EXCL);
        this.#canClone = true;
        return;
      } catch (error) {
        if (!isCloneRefused(error)) throw error;
        this.#canClone = false;
      }
    }
    const clone = this.#canClone ? constants.COPYFILE_FICLONE : 0;
    copyFileSync(from, to, clone | constants.COPYFILE_EXCL);
  }

  /** {@link TreeCopier.#copyMeta} for a file that was copied into a new directory: most of it is right already. */
  #copyMetaOfNewFile(source: string, target: string, stat: BigIntStats): void {
    const { owner, mode: change } = this.#traits;
    const uid = owner?.uid ?? Number(stat.uid);
    const gid = owner?.gid ?? Number(stat.gid);
    const mode = Number(stat.mode & 0o7777n);
    const isOurs = uid === this.#uid && gid === this.#gid;
    if (!isOurs) lchownSync(fsPath(target), uid, gid);
    const wanted = change?.(mode, false) ?? mode;
    if (wanted !== mode || (mode & SET_ID_BITS) !== 0) chmodSync(fsPath(target), wanted);
    this.#copyTimes(target, stat);
    copyXattrs(source, target);
  }

  #copyMeta(source: string, target: string, stat: BigIntStats): void {
    const owner = this.#traits.owner;
    lchownSync(fsPath(target), owner?.uid ?? Number(stat.uid), owner?.gid ?? Number(stat.gid));
    const type = stat.mode & S_IFMT;
    if (type !== S_IFLNK) {
      const mode = Number(stat.mode & 0o7777n);
      chmodSync(fsPath(target), this.#traits.mode?.(mode, type === S_IFDIR) ?? mode);
    }
    this.#copyTimes(target, stat);
    copyXattrs(source, target);
  }

  #copyTimes(target: string, stat: BigIntStats): void {
    const time = this.#traits.timeNs;
    utimesAt(AT.FDCWD, target, time ?? stat.atimeNs, time ?? stat.mtimeNs);
  }
}

/** Makes the directory; false when it was there. With `overwriteMeta` an old one gets the source's mode. */
function makeDir(target: string, stat: BigIntStats, overwriteMeta: boolean): boolean {
  const before = lstatSync(fsPath(target), { throwIfNoEntry: false });
  if (before === undefined) {
    mkdirSync(fsPath(target), Number(stat.mode & 0o7777n));
    return true;
  }
  if (!before.isDirectory()) throw new BuildError("unknown", `cannot copy to non-directory: ${target}`);
  if (overwriteMeta) chmodSync(fsPath(target), Number(stat.mode & 0o7777n));
  return false;
}

function isCloneRefused(error: unknown): boolean {
  const code = error instanceof Error && "code" in error ? String(error.code) : "";
  return [
    "ENOTSUP",
    "EOPNOTSUPP",
    "EXDEV",
    "ENOTTY",
    "EINVAL",
    "ENOSYS",
    "EBADF",
    "EPERM",
    "ETXTBSY",
  ].includes(code);
}

function clearForFile(target: string): void {
  const before = lstatSync(fsPath(target), { throwIfNoEntry: false });
  if (before === undefined) return;
  if (before.isDirectory()) {
    throw new BuildError("unknown", `cannot replace to directory ${target} with file`);
  }
  unlinkSync(fsPath(target));
}

/** Extended attributes that can't be set here are left out, as the file system may not know them. */
function copyXattrs(source: string, target: string): void {
  for (const name of listXattrs(source)) {
    if (name.startsWith("trusted.overlay.")) continue;
    const value = getXattr(source, name);
    if (value === undefined) continue;
    try {
      setXattr(target, name, value);
    } catch (error) {
      if (!isUnsupportedXattr(error)) throw error;
    }
  }
}

function isUnsupportedXattr(error: unknown): boolean {
  const code = error instanceof Error && "code" in error ? error.code : undefined;
  return code === "ENOTSUP" || code === "EOPNOTSUPP" || code === "EPERM" || code === "EINVAL";
}

/** Entries of a directory in bytewise order. Names that aren't UTF-8 survive (see `decodePath`). */
export function listNames(dir: string): string[] {
  return readdirSync(fsPath(dir), "buffer").map(decodePath).sort(comparePaths);
}

/** Linux's `major` and `minor`. */
export function deviceOf(rdev: bigint): { readonly major: number; readonly minor: number } {
  return {
    major: Number(((rdev >> 8n) & 0xfffn) | ((rdev >> 32n) & 0xfffff000n)),
    minor: Number((rdev & 0xffn) | ((rdev >> 12n) & 0xffffff00n)),
  };
}
