import { constants, openSync, readdirSync, realpathSync, statSync } from "node:fs";
import { join } from "node:path";
import { BuildError, codeOfNodeError, nodeReason } from "@kiln/base";
import { comparePaths, decodeLatin1Path, fsPath, isErrno, O, RootedFs, tryLstat } from "@kiln/sys";
import { plainEntry } from "./plain-stat.ts";
import { type SeenInodes, type Stat, statEntry } from "./stat.ts";

/** One entry of a walk; the stat is read when it is asked for. */
export interface TreeEntry {
  readonly path: string;
  readonly isDir: boolean;
  readonly isSymlink: boolean;
  /** Undefined when the entry has vanished meanwhile. `seen` is the walk's memory of hard links. */
  stat(seen?: SeenInodes): Stat | undefined;
}

/**
 * A tree of files to send. Walks go in fsutil's order: names sorted by bytes, a directory right before what
 * is in it, the root itself left out.
 */
export interface FileTree {
  /**
   * Entries below `dir` (the root unless told), one level: the caller goes down by itself. Throws the error
   * of reading the directory; an empty list when it has vanished.
   */
  list(dir: string): readonly TreeEntry[];
  /** Descriptor of a regular file, to be closed by the caller. Throws `not_found` and others. */
  open(path: string): number;
}

/** A directory of this machine. Paths are resolved inside it: links that lead out are not followed. */
export class DiskTree implements FileTree {
  readonly root: string;
  readonly #isPlain: boolean;

  /**
   * With `plain`, extended attributes aren't read and links are only looked out for at the end of a path: enough
   * for single files whose contents are all that matters, and much faster to start with. Throws `not_found` when
   * `root` doesn't exist and `failed_precondition` when it is no directory.
   */
  constructor(root: string, opts: { readonly plain?: boolean } = {}) {
    this.#isPlain = opts.plain === true;
    try {
      this.root = realpathSync(root);
    } catch (error) {
      throw new BuildError(codeOfNodeError(error), `resolve ${root}: ${nodeReason(error)}`, {
        cause: error,
      });
    }
    if (!statSync(this.root).isDirectory()) {
      throw new BuildError("failed_precondition", `stat ${root}: not a directory`);
    }
  }

  list(dir: string): readonly TreeEntry[] {
    const full = dir === "" ? this.root : join(this.root, dir);
    let names: { name: string; isDirectory(): boolean; isSymbolicLink(): boolean }[];
    try {
      names = readdirSync(fsPath(full), { withFileTypes: true, encoding: "latin1" });
    } catch (error) {
      if (isErrno(error, "ENOENT", "ENOTDIR")) return [];
      throw error;
    }
    const out = names.map((d) => this.#entry(dir, decodeLatin1Path(d.name), d));
    return out.sort((a, b) => comparePaths(a.path, b.path));
  }

  #entry(dir: string, name: string, type: { isDirectory(): boolean; isSymbolicLink(): boolean }): TreeEntry {
    const path = dir === "" ? name : `${dir}/${name}`;
    const full = `${this.root}/${path}`;
    return {
      path,
      isDir: type.isDirectory(),
      isSymlink: type.isSymbolicLink(),
      stat: (seen) => {
        if (this.#isPlain) return plainEntry(full, path);
        const st = tryLstat(full);
        if (st === undefined) return undefined;
        try {
          return statEntry(full, path, st, seen);
        } catch (error) {
          if (isErrno(error, "ENOENT", "ENOTDIR")) return undefined;
          throw error;
        }
      },
    };
  }

  /** Keeps nothing open: the directory may be a mount that is to go away. */
  open(path: string): number {
    if (this.#isPlain) {
      const flags = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;
      return openSync(fsPath(join(this.root, path)), flags);
    }
    using rooted = new RootedFs(this.root);
    return rooted.open(path, O.RDONLY | O.NOFOLLOW | O.NONBLOCK);
  }
}

/** Every entry of a tree in fsutil's order. */
export function* walkTree(tree: FileTree): Generator<Stat, void, undefined> {
  const seen: SeenInodes = new Map();
  const stack: Iterator<TreeEntry>[] = [tree.list("")[Symbol.iterator]()];
  while (stack.length > 0) {
    const next = (stack.at(-1) as Iterator<TreeEntry>).next();
    if (next.done) {
      stack.pop();
      continue;
    }
    const stat = next.value.stat(seen);
    if (stat === undefined) continue;
    yield stat;
    if (next.value.isDir) stack.push(tree.list(next.value.path)[Symbol.iterator]());
  }
}
