import { closeSync, openSync, readdirSync, readlinkSync } from "node:fs";
import {
  chmodAt,
  chownAt,
  type FileStat,
  fstat,
  isDirectory,
  isSymlink,
  mkdirAt,
  openAt,
  readlinkAt,
  rmdirAt,
  tryStatAt,
  unlinkAt,
} from "./at.ts";
import { isErrno, sysError } from "./errno.ts";
import { AT, O } from "./flags.ts";
import { cPath, errnoNow, syscallRaw } from "./libc.ts";
import { decodeLatin1Path, decodePath } from "./path-bytes.ts";
import { splitPath } from "./root-path.ts";

const RESOLVE_NO_MAGICLINKS = 0x02;
const RESOLVE_IN_ROOT = 0x10;
const ENOSYS = 38;
const EAGAIN = 11;
const EINTR = 4;
const EPERM = 1;
const ELOOP = 40;
const MAX_LINKS = 40;
const MAX_TRIES = 128;

let hasOpenat2: boolean | undefined;

/**
 * Opens a path below `rootFd`, resolving it as in a chroot there: links and `..` can't leave it, also while
 * others change the tree. The descriptor is closed on exec.
 *
 * @throws SysError
 */
export function openInRoot(rootFd: number, path: string, flags: number, mode = 0): number {
  if (hasOpenat2 !== false) {
    const fd = openat2(rootFd, path, flags, mode);
    if (fd !== undefined) return fd;
  }
  return walkOpen(rootFd, path, flags, mode);
}

function openat2(rootFd: number, path: string, flags: number, mode: number): number | undefined {
  const how = Buffer.alloc(24);
  how.writeBigUInt64LE(BigInt(flags | O.CLOEXEC), 0);
  how.writeBigUInt64LE(BigInt(flags & O.CREAT ? mode & 0o7777 : 0), 8);
  how.writeBigUInt64LE(BigInt(RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS), 16);
  const target = cPath(path === "" ? "." : path);
  for (let tries = 0; tries < MAX_TRIES; tries++) {
    const fd = syscallRaw("openat2", rootFd, target, how, how.length);
    if (fd >= 0) {
      hasOpenat2 = true;
      return fd;
    }
    const errno = errnoNow();
    if (errno === EAGAIN || errno === EINTR) continue;
    // A seccomp profile that doesn't know the call answers EPERM.
    if (errno === ENOSYS || (errno === EPERM && hasOpenat2 === undefined)) {
      hasOpenat2 = false;
      return undefined;
    }
    throw sysError(errno, "openat2", path);
  }
  throw sysError(EAGAIN, "openat2", path);
}

/** The same without openat2: one component at a time, each opened without following links. */
function walkOpen(rootFd: number, path: string, flags: number, mode: number): number {
  const stack = [openAt(rootFd, ".", O.PATH | O.DIRECTORY)];
  const pending = splitPath(path).reverse();
  const wantsDirectory = path.endsWith("/");
  let links = 0;
  try {
    while (pending.length > 0) {
      const part = pending.pop() as string;
      if (part === "..") {
        if (stack.length > 1) closeSync(stack.pop() as number);
        continue;
      }
      const dir = stack.at(-1) as number;
      const stat = tryStatAt(dir, part);
      const last = pending.length === 0;
      if (stat && isSymlink(stat) && !(last && flags & O.NOFOLLOW && !wantsDirectory)) {
        if (++links > MAX_LINKS) throw sysError(ELOOP, "open", path);
        const target = readlinkAt(dir, part);
        if (target.startsWith("/")) for (const fd of stack.splice(1)) closeSync(fd);
        pending.push(...splitPath(target).reverse());
        continue;
      }
      if (last) return openAt(dir, part, flags | O.NOFOLLOW, mode);
      stack.push(openAt(dir, part, O.PATH | O.DIRECTORY | O.NOFOLLOW));
    }
    return openAt(stack.at(-1) as number, ".", flags & ~(O.CREAT | O.EXCL), mode);
  } finally {
    for (const fd of stack) closeSync(fd);
  }
}

/** A file's directory, opened, and its name there. */
export interface ParentDir extends Disposable {
  readonly fd: number;
  /** A single name; undefined when the path means the root itself. */
  readonly name: string | undefined;
}

/** Who owns directories that are made on the way. */
export interface MkdirOptions {
  readonly mode?: number;
  readonly owner?: { readonly uid: number; readonly gid: number };
  /** Called for every directory that had to be made, outermost first, with its path inside the root. */
  readonly onMade?: (path: string, parentFd: number, name: string) => void;
}

/** A directory as a root: every path given to it is resolved as in a chroot there. */
export class RootedFs implements Disposable {
  readonly root: string;
  readonly fd: number;
  #closed = false;

  /** @throws SysError when `root` can't be opened */
  constructor(root: string) {
    this.root = root;
    this.fd = openSync(root, O.PATH | O.DIRECTORY);
  }

  /** Descriptor of a file; close it with `fs.closeSync`. */
  open(path: string, flags: number, mode = 0): number {
    return openInRoot(this.fd, path, flags, mode);
  }

  /** Opens the directory that holds the last name of `path`; that name is not followed. */
  openParent(path: string): ParentDir {
    const parts = splitPath(path);
    const name = parts.pop();
    if (name === undefined) return this.#parent(openAt(this.fd, ".", O.PATH | O.DIRECTORY), undefined);
    if (name === "..") {
      const real = this.resolve(path);
      return real === "/"
        ? this.#parent(openAt(this.fd, ".", O.PATH | O.DIRECTORY), undefined)
        : this.openParent(real);
    }
    return this.#parent(this.open(parts.join("/"), O.PATH | O.DIRECTORY), name);
  }

  #parent(fd: number, name: string | undefined): ParentDir {
    return { fd, name, [Symbol.dispose]: () => closeSync(fd) };
  }

  /** Path inside the root after following every link, also the last. @throws `ENOENT` */
  resolve(path: string): string {
    const fd = this.open(path, O.PATH);
    try {
      return this.#pathOf(fd);
    } finally {
      closeSync(fd);
    }
  }

  #pathOf(fd: number): string {
    const own = decodePath(readlinkSync(`/proc/self/fd/${this.fd}`, { encoding: "buffer" }));
    const other = decodePath(readlinkSync(`/proc/self/fd/${fd}`, { encoding: "buffer" }));
    if (other === own) return "/";
    const prefix = own === "/" ? "/" : `${own}/`;
    if (!other.startsWith(prefix)) throw sysError(18, "resolve", other);
    return `/${other.slice(prefix.length)}`;
  }

  /** Stat of the last name itself, undefined when nothing is there. */
  lstat(path: string): FileStat | undefined {
    return this.#quietly(() => {
      using parent = this.openParent(path);
      return parent.name === undefined ? fstat(parent.fd) : tryStatAt(parent.fd, parent.name);
    });
  }

  /** Stat of what the path leads to, undefined when nothing is there. */
  stat(path: string): FileStat | undefined {
    return this.#quietly(() => {
      const fd = this.open(path, O.PATH);
      try {
        return fstat(fd);
      } finally {
        closeSync(fd);
      }
    });
  }

  #quietly<T>(read: () => T): T | undefined {
    try {
      return read();
    } catch (error) {
      if (isErrno(error, "ENOENT", "ENOTDIR")) return undefined;
      throw error;
    }
  }

  /** Target of the link at `path`. */
  readlink(path: string): string {
    using parent = this.openParent(path);
    if (parent.name === undefined) throw sysError(22, "readlink", path);
    return readlinkAt(parent.fd, parent.name);
  }

  /** Names in a directory, unsorted. */
  readdir(path: string): string[] {
    const fd = this.open(path, O.RDONLY | O.DIRECTORY);
    try {
      return readdirFd(fd);
    } finally {
      closeSync(fd);
    }
  }

  /**
   * Makes a directory and what is missing above it; follows links, also dangling ones, as `mkdir -p` in a
   * chroot would.
   */
  mkdirAll(path: string, opts: MkdirOptions = {}): void {
    closeSync(this.openOrMake(path, opts));
  }

  /** {@link RootedFs.mkdirAll}, returning an `O_PATH` descriptor of the directory. */
  openOrMake(path: string, opts: MkdirOptions = {}): number {
    try {
      return this.open(path, O.PATH | O.DIRECTORY);
    } catch (error) {
      if (!isErrno(error, "ENOENT")) throw error;
    }
    const stack = [openAt(this.fd, ".", O.PATH | O.DIRECTORY)];
    const names: string[] = [];
    const pending = splitPath(path).reverse();
    let links = 0;
    try {
      while (pending.length > 0) {
        const part = pending.pop() as string;
        if (part === "..") {
          if (stack.length > 1) closeSync(stack.pop() as number);
          names.pop();
          continue;
        }
        const dir = stack.at(-1) as number;
        const stat = tryStatAt(dir, part);
        if (stat && isSymlink(stat)) {
          if (++links > MAX_LINKS) throw sysError(ELOOP, "mkdir", path);
          const target = readlinkAt(dir, part);
          if (target.startsWith("/")) {
            for (const fd of stack.splice(1)) closeSync(fd);
            names.length = 0;
          }
          pending.push(...splitPath(target).reverse());
          continue;
        }
        names.push(part);
        if (!stat) makeDir(dir, part, names, opts);
        stack.push(openAt(dir, part, O.PATH | O.DIRECTORY | O.NOFOLLOW));
      }
      return stack.pop() as number;
    } finally {
      for (const fd of stack) closeSync(fd);
    }
  }

  /** Removes a file or a whole tree; the last name is not followed. Nothing happens when it is missing. */
  removeAll(path: string): void {
    this.#quietly(() => {
      using parent = this.openParent(path);
      if (parent.name === undefined) throw sysError(16, "remove", path);
      removeTreeAt(parent.fd, parent.name);
    });
  }

  [Symbol.dispose](): void {
    if (this.#closed) return;
    this.#closed = true;
    closeSync(this.fd);
  }
}

function makeDir(dir: number, part: string, names: readonly string[], opts: MkdirOptions): void {
  const mode = opts.mode ?? 0o755;
  try {
    mkdirAt(dir, part, mode);
  } catch (error) {
    if (isErrno(error, "EEXIST")) return;
    throw error;
  }
  if (opts.owner) chownAt(dir, part, opts.owner.uid, opts.owner.gid);
  chmodAt(dir, part, mode);
  opts.onMade?.(`/${names.join("/")}`, dir, part);
}

/** Names in an open directory (not one opened with `O_PATH`). */
export function readdirFd(fd: number): string[] {
  return readdirSync(`/proc/self/fd/${fd}`, { encoding: "latin1" }).map(decodeLatin1Path);
}

/** Removes a file or a tree by its name in an open directory, never following a link. */
export function removeTreeAt(dirFd: number, name: string): void {
  const stat = tryStatAt(dirFd, name);
  if (!stat) return;
  if (!isDirectory(stat)) {
    unlinkAt(dirFd, name);
    return;
  }
  emptyDirAt(dirFd, name);
  rmdirAt(dirFd, name);
}

/** Removes everything in a directory; `keep` names children (of any depth: their paths) that stay. */
export function emptyDirAt(dirFd: number, name: string): void {
  const fd = openAt(dirFd, name, O.RDONLY | O.DIRECTORY | O.NOFOLLOW);
  try {
    for (const child of readdirFd(fd)) removeTreeAt(fd, child);
  } catch (error) {
    if (!isErrno(error, "ENOENT")) throw error;
  } finally {
    closeSync(fd);
  }
}

/** Removes a tree by its path, never following a link below it. Nothing happens when it is missing. */
export function removeTree(path: string): void {
  const slash = path.lastIndexOf("/");
  const parent = slash < 0 ? "." : path.slice(0, slash) || "/";
  let fd: number;
  try {
    fd = openAt(AT.FDCWD, parent, O.PATH | O.DIRECTORY);
  } catch (error) {
    if (isErrno(error, "ENOENT", "ENOTDIR")) return;
    throw error;
  }
  try {
    removeTreeAt(fd, path.slice(slash + 1));
  } finally {
    closeSync(fd);
  }
}
