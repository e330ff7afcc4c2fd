import { closeSync, ftruncateSync, readlinkSync, writeSync } from "node:fs";
import { posix } from "node:path";
import { BuildError } from "@kiln/base";
import {
  AT,
  chmodAt,
  chmodFd,
  chownAt,
  chownFd,
  cleanInRoot,
  decodePath,
  type FileStat,
  getXattr,
  inUserNamespace,
  isDirectory,
  isErrno,
  linkAt,
  listXattrs,
  lstat,
  mkdirAt,
  mknodAt,
  O,
  openAt,
  RootedFs,
  readdirFd,
  removeTreeAt,
  rootPath,
  S,
  setXattr,
  symlinkAt,
  tryLstat,
  tryStatAt,
  utimesAt,
  utimesFd,
} from "@kiln/sys";
import type { TarHandler } from "./tar-reader.ts";
import type { ApplyOptions, IdRange, TarHeader } from "./types.ts";

const WHITEOUT = ".wh.";
const OPAQUE = ".wh..wh..opq";
/** Directories that are kept open, so that their children need no walk from the root. */
const MAX_OPEN_DIRS = 64;
const MAX_TIME_NS = (1n << 63n) - 1n;

interface OpenDir {
  readonly fd: number;
  /** Path inside the root, every link followed. */
  readonly path: string;
}

interface Times {
  readonly atimeNs: bigint;
  readonly mtimeNs: bigint;
}

/** A file that is being written. */
interface OpenFile {
  readonly fd: number;
  readonly header: TarHeader;
  offset: number;
  /** Ends in a hole, which takes a truncation to exist. */
  endsInHole: boolean;
}

/**
 * Unpacks the entries of one layer below a directory, never outside: every name is resolved as in a chroot
 * there, the last part of a name is never followed, and what is in the way is removed first unless both are
 * directories. Rules as in containerd's `archive.Apply`; a whiteout, however, never removes what its own
 * layer brings (image-spec, layer.md).
 *
 * Give it to a `TarReader`, call `finish` at the end and `close` in any case.
 */
export class LayerApplier implements TarHandler {
  readonly #root: RootedFs;
  readonly #opts: ApplyOptions;
  readonly #unprivileged: boolean;
  readonly #inUserNamespace = inUserNamespace();
  readonly #overlayPrefix: string;
  /** By the path as it is written in the archive. */
  readonly #dirs = new Map<string, OpenDir>();
  /** Forgotten while an entry may still need them. */
  #retired: OpenDir[] = [];
  readonly #dirTimes = new Map<string, Times>();
  /** What this layer brought, and the directories above (only kept where whiteouts remove). */
  readonly #brought = new Set<string>();
  /** What this layer has whited out, in an overlay's upper directory. */
  readonly #whitedOut = new Set<string>();
  readonly implicitDirs: string[] = [];
  #file: OpenFile | undefined;
  sizeBytes = 0;
  inodes = 0;

  constructor(dir: string, opts: ApplyOptions) {
    this.#root = new RootedFs(dir);
    this.#opts = opts;
    this.#unprivileged = opts.unprivileged ?? process.geteuid?.() !== 0;
    this.#overlayPrefix = `${opts.overlayXattrPrefix ?? "trusted."}overlay.`;
  }

  entry(header: TarHeader): void {
    try {
      this.#entry(header);
    } catch (error) {
      throw withName(error, header.name);
    }
  }

  #entry(header: TarHeader): void {
    const path = cleanInRoot(posix.normalize(header.name));
    if (path === "/") return;
    this.#closeRetired();
    const dir = this.#openDir(posix.dirname(path));
    const name = posix.basename(path);
    if (this.#opts.whiteouts !== "keep" && name.startsWith(WHITEOUT)) {
      this.#whiteout(dir, name, header);
      return;
    }
    const mayMakeDevices = !this.#unprivileged && !this.#inUserNamespace;
    if (!mayMakeDevices && (header.type === "char" || header.type === "block")) return;
    const existing = tryStatAt(dir.fd, name);
    if (existing && !(header.type === "dir" && isDirectory(existing))) {
      this.#removeAt(dir, name, existing);
    }
    this.#create(dir, name, header, existing !== undefined && isDirectory(existing));
  }

  #create(dir: OpenDir, name: string, header: TarHeader, merge: boolean): void {
    const full = join(dir.path, name);
    switch (header.type) {
      case "file":
        this.#openFile(dir, name, header);
        break;
      case "dir":
        if (!merge) mkdirAt(dir.fd, name, 0o700);
        if (!merge && this.#whitedOut.has(full)) this.#setOpaque(dir, name);
        break;
      case "symlink":
        symlinkAt(header.linkname ?? "", dir.fd, name);
        break;
      case "link":
        this.#link(dir, name, header.linkname ?? "");
        break;
      case "char":
      case "block":
      case "fifo":
        this.#makeNode(dir, name, header);
        break;
      case "global":
        return;
      case "other":
        throw new BuildError("invalid_argument", `unhandled tar header type ${header.typeflag ?? 0}`);
    }
    this.inodes++;
    this.#remember(full);
    if (header.type !== "file") this.#setAttributes(dir, name, header);
  }

  #remember(path: string): void {
    if (this.#opts.whiteouts !== "remove") return;
    for (let at = path; at !== "/" && !this.#brought.has(at); at = posix.dirname(at)) this.#brought.add(at);
  }

  #openFile(dir: OpenDir, name: string, header: TarHeader): void {
    const fd = openAt(dir.fd, name, O.WRONLY | O.CREAT | O.EXCL | O.NOFOLLOW, 0o600);
    this.#file = { fd, header, offset: 0, endsInHole: false };
  }

  data(chunk: Uint8Array): void {
    const file = this.#file;
    if (!file) return;
    for (let at = 0; at < chunk.length; )
      at += writeSync(file.fd, chunk, at, chunk.length - at, file.offset + at);
    file.offset += chunk.length;
    file.endsInHole = false;
    this.sizeBytes += chunk.length;
  }

  hole(length: number): void {
    if (!this.#file) return;
    this.#file.offset += length;
    this.#file.endsInHole = true;
  }

  end(): void {
    const file = this.#file;
    if (!file) return;
    this.#file = undefined;
    try {
      if (file.endsInHole) ftruncateSync(file.fd, file.offset);
      const { uid, gid } = this.#owner(file.header);
      if (!this.#unprivileged) chownFd(file.fd, uid, gid);
      this.#setXattrs(file.fd, file.header);
      chmodFd(file.fd, file.header.mode & 0o7777);
      const times = timesOf(file.header);
      utimesFd(file.fd, times.atimeNs, times.mtimeNs);
    } catch (error) {
      throw withName(error, file.header.name);
    } finally {
      closeSync(file.fd);
    }
  }

  /** Sets what had to wait: the times of directories, which their children changed. */
  finish(): void {
    for (const [path, times] of this.#dirTimes) {
      using parent = this.#root.openParent(path);
      if (parent.name === undefined) continue;
      const stat = tryStatAt(parent.fd, parent.name);
      if (stat && isDirectory(stat)) utimesAt(parent.fd, parent.name, times.atimeNs, times.mtimeNs);
    }
  }

  close(): void {
    if (this.#file) closeSync(this.#file.fd);
    this.#file = undefined;
    this.#forgetDirs();
    this.#closeRetired();
    this.#root[Symbol.dispose]();
  }

  #link(dir: OpenDir, name: string, target: string): void {
    const path = cleanInRoot(posix.normalize(target));
    using parent = this.#root.openParent(path);
    if (parent.name === undefined) throw new BuildError("invalid_argument", "hard link to the root");
    linkAt({ fd: parent.fd, path: parent.name }, { fd: dir.fd, path: name });
  }

  #makeNode(dir: OpenDir, name: string, header: TarHeader): void {
    const type = header.type === "char" ? S.IFCHR : header.type === "block" ? S.IFBLK : S.IFIFO;
    const device = { major: header.devmajor ?? 0, minor: header.devminor ?? 0 };
    if (
      header.type === "char" &&
      device.major === 0 &&
      device.minor === 0 &&
      this.#opts.whiteouts === "overlay"
    ) {
      throw new BuildError("invalid_argument", "a 0:0 device would be a whiteout");
    }
    mknodAt(dir.fd, name, type | 0o600, header.type === "fifo" ? undefined : device);
  }

  #setAttributes(dir: OpenDir, name: string, header: TarHeader): void {
    if (!this.#unprivileged) {
      const { uid, gid } = this.#owner(header);
      chownAt(dir.fd, name, uid, gid);
    }
    this.#setXattrs(`/proc/self/fd/${dir.fd}/${name}`, header);
    // A hard link to a symbolic link is one too, and chmod would follow it.
    const isLink = header.type === "symlink" || (header.type === "link" && this.#isSymlink(dir, name));
    if (!isLink) chmodAt(dir.fd, name, header.mode & 0o7777);
    const times = timesOf(header);
    if (header.type === "dir") this.#dirTimes.set(join(dir.path, name), times);
    else utimesAt(dir.fd, name, times.atimeNs, times.mtimeNs);
  }

  #isSymlink(dir: OpenDir, name: string): boolean {
    const stat = tryStatAt(dir.fd, name);
    return stat !== undefined && (stat.mode & S.IFMT) === S.IFLNK;
  }

  #setXattrs(target: number | string, header: TarHeader): void {
    for (const [name, value] of header.xattrs ?? []) {
      // These would speak to overlayfs, not to the image.
      if (name.startsWith("trusted.overlay.") || name.startsWith(this.#overlayPrefix)) continue;
      try {
        setXattr(target, name, value);
      } catch (error) {
        if (isErrno(error, "ENOTSUP", "EOPNOTSUPP")) continue;
        const special = header.type !== "file" && header.type !== "dir";
        if (isErrno(error, "EPERM") && (this.#unprivileged || (name.startsWith("user.") && special)))
          continue;
        throw error;
      }
    }
  }

  #owner(header: TarHeader): { readonly uid: number; readonly gid: number } {
    const { owner, idMaps: maps } = this.#opts;
    if (owner) return owner;
    if (!maps) return header;
    return { uid: mapId(header.uid, maps.uids), gid: mapId(header.gid, maps.gids) };
  }

  /** The directory at a path, made with its parents when missing. */
  #openDir(path: string): OpenDir {
    const known = this.#dirs.get(path);
    if (known) return known;
    const fd = this.#root.openOrMake(path, {
      onMade: (made, parentFd, name) => this.#implicitDir(made, parentFd, name),
    });
    if (this.#dirs.size >= MAX_OPEN_DIRS) this.#forgetDirs();
    const dir = { fd, path: this.#pathOf(fd) };
    this.#dirs.set(path, dir);
    return dir;
  }

  #pathOf(fd: number): string {
    const root = decodePath(readlinkSync(`/proc/self/fd/${this.#root.fd}`, { encoding: "buffer" }));
    const path = decodePath(readlinkSync(`/proc/self/fd/${fd}`, { encoding: "buffer" }));
    return path === root ? "/" : path.slice(root === "/" ? 0 : root.length);
  }

  /** Forgets open directories; they are closed before the next entry. */
  #forgetDirs(which: (dir: OpenDir, key: string) => boolean = () => true): void {
    for (const [key, dir] of this.#dirs) {
      if (!which(dir, key)) continue;
      this.#dirs.delete(key);
      this.#retired.push(dir);
    }
  }

  #closeRetired(): void {
    for (const dir of this.#retired) closeSync(dir.fd);
    this.#retired = [];
  }

  #implicitDir(path: string, parentFd: number, name: string): void {
    this.inodes++;
    this.implicitDirs.push(path);
    this.#remember(path);
    if (this.#whitedOut.has(path)) {
      this.#setOpaqueAt(parentFd, name);
      return;
    }
    copyFromLower(path, `/proc/self/fd/${parentFd}/${name}`, this.#opts.lowerDirs ?? []);
  }

  #whiteout(dir: OpenDir, name: string, header: TarHeader): void {
    if (name === OPAQUE) {
      if (this.#opts.whiteouts === "overlay") this.#setOpaqueDir(dir);
      else this.#removeOthers(dir.path, dir.fd);
      return;
    }
    const target = name.slice(WHITEOUT.length);
    if (target === "" || target === "." || target === "..") {
      throw new BuildError("invalid_argument", `invalid whiteout name: ${name}`);
    }
    if (this.#opts.whiteouts === "remove") this.#removeLower(dir, target);
    else this.#overlayWhiteout(dir, target, header);
  }

  #overlayWhiteout(dir: OpenDir, target: string, header: TarHeader): void {
    const path = join(dir.path, target);
    this.#whitedOut.add(path);
    const existing = tryStatAt(dir.fd, target);
    if (existing) {
      // The layer brings it too: only what lies below is hidden.
      if (isDirectory(existing)) this.#setOpaque(dir, target);
      return;
    }
    mknodAt(dir.fd, target, S.IFCHR);
    if (!this.#unprivileged) {
      const { uid, gid } = this.#owner(header);
      chownAt(dir.fd, target, uid, gid);
    }
    this.inodes++;
  }

  #setOpaqueDir(dir: OpenDir): void {
    setXattr(`/proc/self/fd/${dir.fd}/.`, `${this.#overlayPrefix}opaque`, Buffer.from("y"));
  }

  #setOpaque(dir: OpenDir, name: string): void {
    this.#setOpaqueAt(dir.fd, name);
  }

  #setOpaqueAt(dirFd: number, name: string): void {
    setXattr(`/proc/self/fd/${dirFd}/${name}`, `${this.#overlayPrefix}opaque`, Buffer.from("y"));
  }

  #removeAt(dir: OpenDir, name: string, stat: FileStat): void {
    removeTreeAt(dir.fd, name);
    if (!isDirectory(stat)) {
      // It may have been a link that led to open directories.
      this.#forgetDirs((open, key) => open.path !== key);
      return;
    }
    const path = join(dir.path, name);
    const isInside = (other: string): boolean => other === path || other.startsWith(`${path}/`);
    this.#forgetDirs((open, key) => open.path !== key || isInside(open.path));
  }

  /** Removes what lower layers had at this name. */
  #removeLower(dir: OpenDir, name: string): void {
    const path = join(dir.path, name);
    if (!this.#brought.has(path)) {
      const stat = tryStatAt(dir.fd, name);
      if (stat) this.#removeAt(dir, name, stat);
      return;
    }
    const stat = tryStatAt(dir.fd, name);
    if (!stat || !isDirectory(stat)) return;
    const fd = openAt(dir.fd, name, O.PATH | O.DIRECTORY | O.NOFOLLOW);
    try {
      this.#removeOthers(path, fd);
    } finally {
      closeSync(fd);
    }
  }

  /** Removes everything below a directory that this layer didn't bring. */
  #removeOthers(path: string, dirFd: number): void {
    const fd = openAt(dirFd, ".", O.RDONLY | O.DIRECTORY);
    const dir = { fd, path };
    try {
      for (const name of readdirFd(fd)) this.#removeLower(dir, name);
    } finally {
      closeSync(fd);
    }
  }
}

/**
 * Copies owner, mode, times and attributes of the directory that `path` is in the layers below, nearest
 * first, to `target`. A layer that has something else there ends the search.
 */
export function copyFromLower(path: string, target: string, lowerDirs: readonly string[]): void {
  for (const lower of lowerDirs) {
    const source = rootPath(lower, path);
    const stat = tryLstat(source);
    if (!stat) continue;
    if (isDirectory(stat)) copyDirInfo(source, stat, target);
    return;
  }
}

function copyDirInfo(source: string, stat: FileStat, target: string): void {
  if (process.geteuid?.() === 0) chownAt(AT.FDCWD, target, stat.uid, stat.gid);
  for (const name of listXattrs(source)) {
    if (name.includes("overlay.")) continue;
    const value = getXattr(source, name);
    if (value) setXattr(target, name, value);
  }
  chmodAt(AT.FDCWD, target, stat.mode & 0o7777);
  utimesAt(AT.FDCWD, target, stat.atimeNs, stat.mtimeNs);
}

/**
 * Gives the directories that an unpacking made unasked the attributes of those below them; for layers that
 * were unpacked before their parents.
 */
export function fixImplicitDirs(
  dir: string,
  implicit: readonly string[],
  lowerDirs: readonly string[],
): void {
  for (const path of [...implicit].reverse()) {
    const target = `${dir}${path}`;
    if (isDirectory(lstat(target))) copyFromLower(path, target, lowerDirs);
  }
}

function join(dir: string, name: string): string {
  return dir === "/" ? `/${name}` : `${dir}/${name}`;
}

function timesOf(header: TarHeader): Times {
  const mtimeNs = bound(header.mtimeNs);
  const atimeNs = bound(header.atimeNs ?? header.mtimeNs);
  return { mtimeNs, atimeNs: latest(atimeNs, mtimeNs) };
}

function latest(a: bigint, b: bigint): bigint {
  if (a > b) return a;
  return b;
}

function bound(timeNs: bigint): bigint {
  return timeNs < 0n || timeNs > MAX_TIME_NS ? 0n : timeNs;
}

function mapId(id: number, ranges: readonly IdRange[]): number {
  for (const range of ranges) {
    if (id >= range.containerId && id < range.containerId + range.size) {
      return range.hostId + id - range.containerId;
    }
  }
  throw new BuildError("invalid_argument", `id ${id} has no mapping`, {
    hint: "increase the number of subordinate ids in /etc/subuid and /etc/subgid",
  });
}

function withName(error: unknown, name: string): unknown {
  if (error instanceof Error && !error.message.includes("in layer entry")) {
    error.message = `${error.message} (in layer entry ${JSON.stringify(name.slice(0, 256))})`;
  }
  return error;
}
