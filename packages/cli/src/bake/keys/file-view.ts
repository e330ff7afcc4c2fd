/** Files as keys are made of them: those of this machine, or those of a git revision. */
import { createHash } from "node:crypto";
import { closeSync, readFileSync, readSync, statSync } from "node:fs";
import { DiskTree, type FileTree } from "@kiln/session/fsutil";
import { isErrno } from "@kiln/sys";

/** A tree whose files have hashes. */
export interface HashedTree extends FileTree {
  /** SHA-256 of a regular file's bytes, in hexadecimal. */
  contentHash(path: string): string;
}

/** The files that a build would read. Paths are absolute. */
export interface FileView {
  /** Throws `not_found` when the directory doesn't exist. */
  tree(dir: string): HashedTree;
  /** Undefined when there is no such file. */
  readFile(path: string): Uint8Array | undefined;
  /** Links followed. */
  kindOf(path: string): "file" | "directory" | "other" | undefined;
}

const CHUNK_BYTES = 1 << 20;

/** The files of this machine. Each is hashed once. */
export class DiskView implements FileView {
  readonly #hashes = new Map<string, string>();

  tree(dir: string): HashedTree {
    return new HashedDiskTree(dir, this.#hashes);
  }

  readFile(path: string): Uint8Array | undefined {
    try {
      return readFileSync(path);
    } catch (error) {
      if (isErrno(error, "ENOENT", "ENOTDIR")) return undefined;
      throw error;
    }
  }

  kindOf(path: string): "file" | "directory" | "other" | undefined {
    const stat = statSync(path, { throwIfNoEntry: false });
    if (stat === undefined) return undefined;
    return stat.isFile() ? "file" : stat.isDirectory() ? "directory" : "other";
  }
}

class HashedDiskTree extends DiskTree implements HashedTree {
  readonly #hashes: Map<string, string>;

  constructor(root: string, hashes: Map<string, string>) {
    super(root);
    this.#hashes = hashes;
  }

  contentHash(path: string): string {
    const key = `${this.root}/${path}`;
    let hash = this.#hashes.get(key);
    if (hash === undefined) {
      hash = this.#read(path);
      this.#hashes.set(key, hash);
    }
    return hash;
  }

  #read(path: string): string {
    const hash = createHash("sha256");
    const buffer = Buffer.allocUnsafe(CHUNK_BYTES);
    const fd = this.open(path);
    try {
      for (let size = readSync(fd, buffer); size > 0; size = readSync(fd, buffer))
        hash.update(buffer.subarray(0, size));
    } finally {
      closeSync(fd);
    }
    return hash.digest("hex");
  }
}
