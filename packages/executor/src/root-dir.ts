import {
  chownSync,
  closeSync,
  constants,
  fchmodSync,
  fchownSync,
  fstatSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readlinkSync,
  readSync,
  renameSync,
  rmdirSync,
  type Stats,
  unlinkSync,
  writeFileSync,
} from "node:fs";
import { BuildError } from "@kiln/base";
import { AT, openInRoot, utimesAt } from "@kiln/sys";
import { newContainerId } from "./container-id.ts";

const O_PATH = 0o10000000;
/** As Go's resolver; the kernel itself gives up at 40. */
const MAX_LINKS = 255;

/** The `code` of an error of Node or of a failed call. */
export function errnoOf(error: unknown): string | undefined {
  return error instanceof Error && "code" in error && typeof error.code === "string" ? error.code : undefined;
}

/** True when the error says that a name, or something on the way to it, isn't there. */
export function isMissing(error: unknown): boolean {
  const code = errnoOf(error);
  return code === "ENOENT" || code === "ENOTDIR";
}

/** Where a new thing of `mkdirAll` and `touch` belongs. */
export interface Owner {
  readonly uid: number;
  readonly gid: number;
}

/**
 * A directory taken as the root of all paths, as chroot would: `..` and links, absolute ones too, stay inside.
 *
 * Every step is made on a descriptor that openat2 resolved in this root, so nothing that runs at the same time
 * can lead one out of it. Paths given are resolved, or names below an open parent; never host paths.
 */
export class RootDir implements Disposable {
  readonly #fd: number;

  constructor(path: string) {
    this.#fd = openSync(path, O_PATH | constants.O_DIRECTORY);
  }

  [Symbol.dispose](): void {
    closeSync(this.#fd);
  }

  /** Opens a path for `flags`; the caller closes the descriptor. */
  open(path: string, flags: number): number {
    return openInRoot(this.#fd, path, flags);
  }

  /** Runs `use` with a path under which the directory `path` can be named safely as long as `use` runs. */
  within<T>(path: string, use: (base: string) => T): T {
    const fd = openInRoot(this.#fd, path === "" ? "/" : path, O_PATH | constants.O_DIRECTORY);
    try {
      return use(`/proc/self/fd/${fd}`);
    } finally {
      closeSync(fd);
    }
  }

  /**
   * The path, from the root, that `path` names once all links are followed; what doesn't exist is kept as it is.
   * Only a hint once something else may change the tree: use it with the other methods.
   */
  resolve(path: string): string {
    const todo = path.split("/").reverse();
    const done: string[] = [];
    let links = 0;
    for (let name = todo.pop(); name !== undefined; name = todo.pop()) {
      if (name === "" || name === ".") continue;
      if (name === "..") {
        done.pop();
        continue;
      }
      const target = this.#readlink(done.join("/"), name);
      if (target === undefined) {
        done.push(name);
        continue;
      }
      if (++links > MAX_LINKS) throw new BuildError("invalid_argument", `too many links in ${path}`);
      if (target.startsWith("/")) done.length = 0;
      todo.push(...target.split("/").reverse());
    }
    return `/${done.join("/")}`;
  }

  #readlink(dir: string, name: string): string | undefined {
    try {
      return this.within(dir, (base) => readlinkSync(`${base}/${name}`));
    } catch (error) {
      if (isMissing(error) || errnoOf(error) === "EINVAL") return undefined;
      throw error;
    }
  }

  /** What a resolved path names, without following a last link; undefined when nothing. */
  lstat(path: string): Stats | undefined {
    const [dir, name] = splitPath(path);
    if (name === "") return this.within("/", (base) => lstatSync(`${base}/.`));
    try {
      return this.within(dir, (base) => lstatSync(`${base}/${name}`));
    } catch (error) {
      if (isMissing(error)) return undefined;
      throw error;
    }
  }

  /** True when `path`, with links followed, exists. */
  exists(path: string): boolean {
    try {
      closeSync(this.open(path, O_PATH));
      return true;
    } catch (error) {
      if (isMissing(error)) return false;
      throw error;
    }
  }

  /** Makes a resolved directory and what is missing above it; only new ones get `mode` and `owner`. */
  mkdirAll(path: string, mode: number, owner: Owner): void {
    let done = "";
    for (const name of path.split("/")) {
      if (name === "") continue;
      this.within(done, (base) => {
        const at = `${base}/${name}`;
        try {
          mkdirSync(at, mode);
        } catch (error) {
          if (errnoOf(error) === "EEXIST") return;
          throw error;
        }
        this.#own(`${done}/${name}`, owner);
      });
      done = `${done}/${name}`;
    }
    this.within(path, () => undefined);
  }

  #own(path: string, owner: Owner): void {
    if (owner.uid === 0 && owner.gid === 0) return;
    const fd = this.open(path, O_PATH | constants.O_DIRECTORY | constants.O_NOFOLLOW);
    try {
      chownSync(`/proc/self/fd/${fd}`, owner.uid, owner.gid);
    } finally {
      closeSync(fd);
    }
  }

  /** Makes an empty file at a resolved path, unless something is there already. */
  touch(path: string, mode: number): void {
    const [dir, name] = splitPath(path);
    this.within(dir, (base) => {
      try {
        closeSync(
          openSync(
            `${base}/${name}`,
            constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW,
            mode,
          ),
        );
      } catch (error) {
        if (errnoOf(error) !== "EEXIST") throw error;
      }
    });
  }

  /**
   * Reads a regular file of at most `limitBytes`.
   *
   * @throws BuildError `invalid_argument` when it is something else, or larger.
   */
  readFile(path: string, limitBytes: number): Buffer {
    const fd = this.open(path, O_PATH);
    try {
      if (!fstatSync(fd).isFile()) throw new BuildError("invalid_argument", `${path} is not a regular file`);
      const file = openSync(`/proc/self/fd/${fd}`, constants.O_RDONLY | constants.O_NONBLOCK);
      try {
        return readLimited(file, path, limitBytes);
      } finally {
        closeSync(file);
      }
    } finally {
      closeSync(fd);
    }
  }

  /** Puts a new file with this content in the place of the regular file at a resolved path; mode and owner stay. */
  replaceFile(path: string, content: Uint8Array): void {
    const [dir, name] = splitPath(path);
    this.within(dir, (base) => {
      const old = lstatSync(`${base}/${name}`);
      const temporary = `${base}/.${newContainerId()}`;
      const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW;
      const fd = openSync(temporary, flags, 0o600);
      try {
        writeFileSync(fd, content);
        fchownSync(fd, old.uid, old.gid);
        fchmodSync(fd, old.mode & 0o7777);
      } finally {
        closeSync(fd);
      }
      renameSync(temporary, `${base}/${name}`);
    });
  }

  /**
   * Removes the file or directory at a resolved path if it is empty, and gives its parent the times it had.
   * Returns whether it did.
   */
  removeEmpty(path: string): boolean {
    const [dir, name] = splitPath(path);
    return this.within(dir, (base) => {
      const at = `${base}/${name}`;
      const stat = lstatSync(at);
      if (stat.isDirectory() ? readdirSync(at).length > 0 : stat.size !== 0) return false;
      const parent = lstatSync(`${base}/.`, { bigint: true });
      if (stat.isDirectory()) rmdirSync(at);
      else unlinkSync(at);
      utimesAt(AT.FDCWD, `${base}/.`, parent.atimeNs, parent.mtimeNs);
      return true;
    });
  }
}

/** A resolved path as its directory and last name. */
function splitPath(path: string): [string, string] {
  const at = path.lastIndexOf("/");
  return [path.slice(0, at), path.slice(at + 1)];
}

function readLimited(fd: number, path: string, limitBytes: number): Buffer {
  const chunks: Buffer[] = [];
  let total = 0;
  for (;;) {
    const chunk = Buffer.allocUnsafe(64 * 1024);
    const size = readSync(fd, chunk);
    if (size === 0) return Buffer.concat(chunks, total);
    total += size;
    if (total > limitBytes) throw new BuildError("invalid_argument", `"${path}" exceeds ${limitBytes} bytes`);
    chunks.push(chunk.subarray(0, size));
  }
}
