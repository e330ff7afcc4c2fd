import { randomInt } from "node:crypto";
import { closeSync, writeSync } from "node:fs";
import { BuildError } from "@kiln/base";
import {
  chmodAt,
  chmodFd,
  chownAt,
  chownFd,
  fstat,
  isDirectory,
  isErrno,
  isRegular,
  linkAt,
  mkdirAt,
  mknodAt,
  O,
  openAt,
  RootedFs,
  readdirFd,
  removeTreeAt,
  renameAt,
  rmdirAt,
  S,
  setXattr,
  symlinkAt,
  tryStatAt,
  unlinkAt,
  utimesAt,
  utimesFd,
} from "@kiln/sys";
import { GoMode, goPermissions, isGoDir, isGoRegular, isGoSymlink } from "./mode.ts";
import type { Pace } from "./pace.ts";
import type { Stat } from "./stat.ts";

interface OpenDir {
  readonly path: string;
  readonly fd: number;
  /** New entries get the group of the directory. */
  readonly inheritsGroup: boolean;
}

/** A directory's descriptor, and the name of an entry there. */
interface Place {
  readonly dirFd: number;
  readonly name: string;
}

/**
 * Writes entries into a directory, in fsutil's order. Everything is done relative to descriptors that were
 * opened without following links, so that nothing planted inside (or put there meanwhile) leads out of it.
 */
export class DiskWriter implements Disposable {
  readonly #root: RootedFs;
  readonly #open: OpenDir[] = [];
  readonly #dirTimes = new Map<string, Stat>();
  readonly #touched = new Set<string>();
  readonly #whole: boolean;
  /** Names under which files lie until they are complete, by their paths. */
  readonly #unfinished = new Map<string, string>();
  /** Links that are made when the file that they lead to is complete, by its path. */
  readonly #waitingLinks = new Map<string, { readonly path: string; readonly stat: Stat }[]>();
  readonly #uid = process.geteuid?.() ?? -1;
  readonly #gid = process.getegid?.() ?? -1;
  readonly #umask = process.umask();
  readonly #rootInheritsGroup: boolean;

  /**
   * Throws when `root` can't be opened. With `whole`, a file is seen under its name only once it is complete, and what
   * stood there before stays until then.
   */
  constructor(root: string, opts: { readonly whole?: boolean } = {}) {
    this.#root = new RootedFs(root);
    this.#whole = opts.whole ?? false;
    this.#rootInheritsGroup = inheritsGroup(this.#root.fd);
  }

  /** Removes a file or tree, letting others work in between. */
  async remove(path: string, pace: Pace): Promise<void> {
    const { dirFd, name } = this.#place(path);
    this.#touch(path);
    this.#closeBelow(path);
    await removePaced(dirFd, name, pace);
  }

  /**
   * Puts an entry in its place, replacing what is there (a directory keeps what is in it). For a regular file
   * the descriptor is returned, open for writing and empty. `isNew` says that nothing is expected there.
   */
  put(path: string, stat: Stat, opts: { readonly isNew?: boolean } = {}): number | undefined {
    const place = this.#place(path);
    if (this.#whole && isGoRegular(stat.mode) && stat.linkname === "")
      return this.#putWhole(path, place, stat);
    if (isGoRegular(stat.mode) && this.#unfinished.has(stat.linkname)) {
      const waiting = this.#waitingLinks.get(stat.linkname) ?? [];
      this.#waitingLinks.set(stat.linkname, [...waiting, { path, stat }]);
      return undefined;
    }
    if (opts.isNew && isGoRegular(stat.mode) && stat.linkname === "") {
      const fd = this.#tryMakeFile(place, stat);
      if (fd !== undefined) {
        this.#touch(path);
        return fd;
      }
    }
    const old = tryStatAt(place.dirFd, place.name);
    if (isGoDir(stat.mode)) this.#dirTimes.set(path, stat);
    if (old && isDirectory(old) && isGoDir(stat.mode)) {
      this.#setMetadata(place, stat);
      return undefined;
    }
    this.#touch(path);
    if (old === undefined) return this.#make(place, stat);
    this.#closeBelow(path);
    const temporary = { dirFd: place.dirFd, name: temporaryName() };
    let fd: number | undefined;
    try {
      fd = this.#make(temporary, stat);
      if (isDirectory(old) !== isGoDir(stat.mode)) removeTreeAt(place.dirFd, place.name);
      renameAt({ fd: place.dirFd, path: temporary.name }, { fd: place.dirFd, path: place.name });
      // A rename between two links to one inode does nothing.
      if (stat.linkname !== "" && isGoRegular(stat.mode)) removeTreeAt(place.dirFd, temporary.name);
    } catch (error) {
      if (fd !== undefined) closeSync(fd);
      removeTreeAt(place.dirFd, temporary.name);
      throw error;
    }
    return fd;
  }

  #putWhole(path: string, place: Place, stat: Stat): number {
    this.#touch(path);
    const old = tryStatAt(place.dirFd, place.name);
    if (old && isDirectory(old)) {
      this.#closeBelow(path);
      removeTreeAt(place.dirFd, place.name);
    }
    const name = temporaryName();
    const fd = this.#makeFile({ dirFd: place.dirFd, name }, stat);
    this.#unfinished.set(path, name);
    return fd;
  }

  /** Notes that an unchanged directory is there, so that its time can be put right at the end. */
  keepDir(path: string, stat: Stat): void {
    this.#dirTimes.set(path, stat);
  }

  /** Opens a file that {@link put} made, again for writing. */
  reopen(path: string): number {
    const { dirFd, name: finalName } = this.#place(path);
    const name = this.#unfinished.get(path) ?? finalName;
    try {
      return openAt(dirFd, name, O.WRONLY | O.NOFOLLOW);
    } catch (error) {
      const now = tryStatAt(dirFd, name);
      if (!isErrno(error, "EACCES") || now === undefined || !isRegular(now)) throw error;
      // Read-only for ourselves; finishFile puts the mode back.
      chmodAt(dirFd, name, 0o600);
      return openAt(dirFd, name, O.WRONLY | O.NOFOLLOW);
    }
  }

  /** Finishes a file after its contents: closes it and sets its time (and mode: writing clears setuid). */
  finishFile(path: string, fd: number, stat: Stat): void {
    try {
      if (stat.mode & (GoMode.SETUID | GoMode.SETGID) || (stat.mode & 0o200) === 0)
        chmodFd(fd, goPermissions(stat.mode));
      utimesFd(fd, stat.modTime, stat.modTime);
    } finally {
      closeSync(fd);
    }
    const temporary = this.#unfinished.get(path);
    if (temporary === undefined) return;
    const { dirFd, name } = this.#place(path);
    renameAt({ fd: dirFd, path: temporary }, { fd: dirFd, path: name });
    this.#unfinished.delete(path);
    const links = this.#waitingLinks.get(path) ?? [];
    this.#waitingLinks.delete(path);
    for (const link of links) this.put(link.path, link.stat);
  }

  /** Writes a whole file at the top, replacing whatever is there. */
  writeTopFile(name: string, chunks: readonly Uint8Array[]): void {
    removeTreeAt(this.#root.fd, name);
    const fd = openAt(this.#root.fd, name, O.WRONLY | O.CREAT | O.EXCL | O.NOFOLLOW, 0o644);
    try {
      for (const chunk of chunks) writeAll(fd, chunk);
    } finally {
      closeSync(fd);
    }
  }

  /** Sets the times of directories whose contents have changed, deepest first. */
  async finishDirs(pace: Pace): Promise<void> {
    for (const path of [...this.#touched].sort((a, b) => b.length - a.length)) {
      if (pace.due) await pace.rest();
      const stat = this.#dirTimes.get(path);
      if (stat === undefined) continue;
      const { dirFd, name } = this.#place(path);
      const now = tryStatAt(dirFd, name);
      if (now && isDirectory(now)) utimesAt(dirFd, name, stat.modTime, stat.modTime);
    }
  }

  [Symbol.dispose](): void {
    for (const [path, name] of this.#unfinished) this.#drop(path, name);
    this.#unfinished.clear();
    for (const { fd } of this.#open.splice(0)) closeSync(fd);
    this.#root[Symbol.dispose]();
  }

  /** Takes what was written of a file away; its directory may be gone already. */
  #drop(path: string, name: string): void {
    try {
      removeTreeAt(this.#place(path).dirFd, name);
    } catch (error) {
      if (!isErrno(error, "ENOENT", "ENOTDIR", "ELOOP")) throw error;
    }
  }

  #touch(path: string): void {
    const slash = path.lastIndexOf("/");
    if (slash > 0) this.#touched.add(path.slice(0, slash));
    this.#touched.add(path);
  }

  #closeBelow(path: string): void {
    while (this.#open.length > 0) {
      const last = this.#open.at(-1) as OpenDir;
      if (last.path !== path && !last.path.startsWith(`${path}/`)) return;
      closeSync(last.fd);
      this.#open.pop();
    }
  }

  /** Opens the directory of an entry step by step, each a real directory. */
  #place(path: string): Place {
    const slash = path.lastIndexOf("/");
    const top = this.#open.at(-1);
    if (top !== undefined && slash === top.path.length && path.startsWith(top.path)) {
      return { dirFd: top.fd, name: path.slice(slash + 1) };
    }
    const parts = path.split("/");
    const name = parts.pop() as string;
    const dir = parts.join("/");
    while (this.#open.length > 0) {
      const last = this.#open.at(-1) as OpenDir;
      if (last.path === dir || dir.startsWith(`${last.path}/`)) break;
      closeSync(last.fd);
      this.#open.pop();
    }
    for (const part of parts.slice(this.#open.length)) {
      const above = this.#open.at(-1);
      const fd = openAt(above?.fd ?? this.#root.fd, part, O.PATH | O.DIRECTORY | O.NOFOLLOW);
      this.#open.push({ path: above ? `${above.path}/${part}` : part, fd, inheritsGroup: inheritsGroup(fd) });
    }
    return { dirFd: this.#open.at(-1)?.fd ?? this.#root.fd, name };
  }

  #make(place: Place, stat: Stat): number | undefined {
    const { dirFd, name } = place;
    if (isGoDir(stat.mode)) mkdirAt(dirFd, name, 0o700);
    else if (stat.mode & (GoMode.DEVICE | GoMode.NAMED_PIPE)) this.#makeSpecial(place, stat);
    else if (isGoSymlink(stat.mode)) symlinkAt(stat.linkname, dirFd, name);
    else if (!isGoRegular(stat.mode))
      throw new BuildError("invalid_argument", `cannot create ${stat.path}: unknown file type`);
    else if (stat.linkname !== "") this.#makeLink(place, stat.linkname);
    else return this.#makeFile(place, stat);
    this.#setMetadata(place, stat);
    return undefined;
  }

  #tryMakeFile(place: Place, stat: Stat): number | undefined {
    try {
      return this.#makeFile(place, stat);
    } catch (error) {
      if (isErrno(error, "EEXIST")) return undefined;
      throw error;
    }
  }

  /** The time is set after the contents, by {@link finishFile}. */
  #makeFile(place: Place, stat: Stat): number {
    const mode = goPermissions(stat.mode);
    const fd = openAt(place.dirFd, place.name, O.WRONLY | O.CREAT | O.EXCL | O.NOFOLLOW, mode & 0o777);
    try {
      setXattrs(fd, stat);
      const chowned = !this.#isOurs(place, stat);
      if (chowned) chownFd(fd, stat.uid, stat.gid);
      if (chowned || mode & (this.#umask | 0o7000)) chmodFd(fd, mode);
    } catch (error) {
      closeSync(fd);
      throw error;
    }
    return fd;
  }

  /** True when a new file belongs to the right owner by itself. */
  #isOurs(place: Place, stat: Stat): boolean {
    if (stat.uid !== this.#uid || stat.gid !== this.#gid) return false;
    const dir = this.#open.at(-1);
    return (dir?.fd === place.dirFd ? dir.inheritsGroup : this.#rootInheritsGroup) === false;
  }

  /** Links to a file that came before; its path is resolved inside the root without following a last link. */
  #makeLink(place: Place, target: string): void {
    const parts = target.split("/");
    const name = parts.pop() as string;
    const opened: number[] = [];
    try {
      let fd = this.#root.fd;
      for (const part of parts) {
        fd = openAt(fd, part, O.PATH | O.DIRECTORY | O.NOFOLLOW);
        opened.push(fd);
      }
      linkAt({ fd, path: name }, { fd: place.dirFd, path: place.name });
    } finally {
      for (const fd of opened) closeSync(fd);
    }
  }

  #makeSpecial(place: Place, stat: Stat): void {
    const kind = stat.mode & GoMode.CHAR_DEVICE ? S.IFCHR : stat.mode & GoMode.NAMED_PIPE ? S.IFIFO : S.IFBLK;
    mknodAt(place.dirFd, place.name, (stat.mode & GoMode.PERM) | kind, {
      major: Number(stat.devmajor),
      minor: Number(stat.devminor),
    });
  }

  #setMetadata(place: Place, stat: Stat): void {
    const { dirFd, name } = place;
    if (isGoDir(stat.mode) && Object.keys(stat.xattrs).length > 0) {
      const fd = openAt(dirFd, name, O.RDONLY | O.DIRECTORY | O.NOFOLLOW);
      try {
        setXattrs(fd, stat);
      } finally {
        closeSync(fd);
      }
    }
    chownAt(dirFd, name, stat.uid, stat.gid);
    if (!isGoSymlink(stat.mode)) chmodAt(dirFd, name, goPermissions(stat.mode));
    utimesAt(dirFd, name, stat.modTime, stat.modTime);
  }
}

/** Removes a tree by its name in an open directory, never following a link. */
async function removePaced(dirFd: number, name: string, pace: Pace): Promise<void> {
  if (pace.due) await pace.rest();
  const stat = tryStatAt(dirFd, name);
  if (stat === undefined) return;
  if (!isDirectory(stat)) {
    unlinkAt(dirFd, name);
    return;
  }
  const fd = openAt(dirFd, name, O.RDONLY | O.DIRECTORY | O.NOFOLLOW);
  try {
    for (const child of readdirFd(fd)) await removePaced(fd, child, pace);
  } finally {
    closeSync(fd);
  }
  rmdirAt(dirFd, name);
}

function inheritsGroup(fd: number): boolean {
  return (fstat(fd).mode & 0o2000) !== 0;
}

/** Attributes that the file system doesn't take are left out, as in the original. */
function setXattrs(fd: number, stat: Stat): void {
  for (const [name, value] of Object.entries(stat.xattrs)) {
    try {
      setXattr(fd, name, value);
    } catch (error) {
      if (!isErrno(error, "ENOTSUP", "EPERM", "EACCES", "EINVAL", "ERANGE", "ENOSPC", "E2BIG")) throw error;
    }
  }
}

/** Writes all bytes to a descriptor. */
export function writeAll(fd: number, data: Uint8Array): void {
  for (let at = 0; at < data.length; ) at += writeSync(fd, data, at, data.length - at);
}

function temporaryName(): string {
  return `.tmp.${String(randomInt(1e9, 2e9)).slice(1)}`;
}
