import { sysError } from "./errno.ts";
import { AT, S } from "./flags.ts";
import { call, callRaw, cPath, errnoNow } from "./libc.ts";
import { decodePath, type PathLike } from "./path-bytes.ts";

/** What the kernel says about a file, without following a symbolic link unless asked to. */
export interface FileStat {
  /** Type and permissions (`S_IFMT` and 07777). */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly size: number;
  readonly nlink: number;
  readonly ino: bigint;
  readonly mtimeNs: bigint;
  readonly atimeNs: bigint;
  readonly ctimeNs: bigint;
  readonly devMajor: number;
  readonly devMinor: number;
  readonly rdevMajor: number;
  readonly rdevMinor: number;
  readonly blocks: number;
}

/** True for a mode of a directory. */
export function isDirectory(stat: { readonly mode: number }): boolean {
  return (stat.mode & S.IFMT) === S.IFDIR;
}

/** True for a mode of a regular file. */
export function isRegular(stat: { readonly mode: number }): boolean {
  return (stat.mode & S.IFMT) === S.IFREG;
}

/** True for a mode of a symbolic link. */
export function isSymlink(stat: { readonly mode: number }): boolean {
  return (stat.mode & S.IFMT) === S.IFLNK;
}

const statBuffer = Buffer.alloc(256);
const STATX_BASIC = 0x7ff;
const ENOENT = 2;
const ENOTDIR = 20;

/**
 * `statx` relative to a directory; `AT.FDCWD` for an ordinary path. Does not follow a final link by default.
 * @throws SysError
 */
export function statAt(dirFd: number, path: PathLike, flags: number = AT.SYMLINK_NOFOLLOW): FileStat {
  call("statx", String(path), dirFd, cPath(path), flags, STATX_BASIC, statBuffer);
  return parseStat();
}

/** {@link statAt}, undefined when nothing is there. */
export function tryStatAt(
  dirFd: number,
  path: PathLike,
  flags: number = AT.SYMLINK_NOFOLLOW,
): FileStat | undefined {
  if (callRaw("statx", dirFd, cPath(path), flags, STATX_BASIC, statBuffer) >= 0) return parseStat();
  const errno = errnoNow();
  if (errno === ENOENT || errno === ENOTDIR) return undefined;
  throw sysError(errno, "statx", String(path));
}

/** `lstat` of a path of any bytes. */
export function lstat(path: PathLike): FileStat {
  return statAt(AT.FDCWD, path);
}

/** {@link lstat}, undefined when nothing is there. */
export function tryLstat(path: PathLike): FileStat | undefined {
  return tryStatAt(AT.FDCWD, path);
}

/** Stat of an open file. */
export function fstat(fd: number): FileStat {
  call("statx", undefined, fd, "", AT.EMPTY_PATH, STATX_BASIC, statBuffer);
  return parseStat();
}

function parseStat(): FileStat {
  const b = statBuffer;
  return {
    nlink: b.readUInt32LE(16),
    uid: b.readUInt32LE(20),
    gid: b.readUInt32LE(24),
    mode: b.readUInt16LE(28),
    ino: b.readBigUInt64LE(32),
    size: Number(b.readBigUInt64LE(40)),
    blocks: Number(b.readBigUInt64LE(48)),
    atimeNs: timeAt(64),
    ctimeNs: timeAt(96),
    mtimeNs: timeAt(112),
    rdevMajor: b.readUInt32LE(128),
    rdevMinor: b.readUInt32LE(132),
    devMajor: b.readUInt32LE(136),
    devMinor: b.readUInt32LE(140),
  };
}

function timeAt(offset: number): bigint {
  return statBuffer.readBigInt64LE(offset) * 1_000_000_000n + BigInt(statBuffer.readUInt32LE(offset + 8));
}

/** `openat`; the descriptor is closed on exec. Close it with `fs.closeSync`. */
export function openAt(dirFd: number, path: PathLike, flags: number, mode = 0): number {
  return call("openat", String(path), dirFd, cPath(path), flags | 0o2000000, mode);
}

/** `mkdirat`. */
export function mkdirAt(dirFd: number, path: PathLike, mode: number): void {
  call("mkdirat", String(path), dirFd, cPath(path), mode);
}

/** `mknodat`; `mode` holds the type too. */
export function mknodAt(
  dirFd: number,
  path: PathLike,
  mode: number,
  device: { readonly major: number; readonly minor: number } = { major: 0, minor: 0 },
): void {
  call("mknodat", String(path), dirFd, cPath(path), mode, makeDevice(device.major, device.minor));
}

/** Linux's `makedev`. */
export function makeDevice(major: number, minor: number): bigint {
  const big = BigInt(major);
  const low = BigInt(minor);
  return ((big & 0xfffff000n) << 32n) | ((big & 0xfffn) << 8n) | ((low & 0xffffff00n) << 12n) | (low & 0xffn);
}

/** `unlinkat` of a file. */
export function unlinkAt(dirFd: number, path: PathLike): void {
  call("unlinkat", String(path), dirFd, cPath(path), 0);
}

/** `unlinkat` of an empty directory. */
export function rmdirAt(dirFd: number, path: PathLike): void {
  call("unlinkat", String(path), dirFd, cPath(path), AT.REMOVEDIR);
}

/** `symlinkat`. */
export function symlinkAt(target: PathLike, dirFd: number, path: PathLike): void {
  call("symlinkat", String(path), cPath(target), dirFd, cPath(path));
}

/** One end of a link or a rename. */
export interface AtPath {
  readonly fd: number;
  readonly path: PathLike;
}

/** `linkat`; a symbolic link is linked itself, not followed. */
export function linkAt(from: AtPath, to: AtPath): void {
  call("linkat", String(to.path), from.fd, cPath(from.path), to.fd, cPath(to.path), 0);
}

/** `renameat`. */
export function renameAt(from: AtPath, to: AtPath): void {
  call("renameat", String(to.path), from.fd, cPath(from.path), to.fd, cPath(to.path));
}

/** `fchownat` that doesn't follow a link. Ids are checked: the kernel would take -1 as "leave". */
export function chownAt(dirFd: number, path: PathLike, uid: number, gid: number): void {
  call("fchownat", String(path), dirFd, cPath(path), idOf(uid), idOf(gid), AT.SYMLINK_NOFOLLOW);
}

/** `fchmodat`; follows a link, so not for one. */
export function chmodAt(dirFd: number, path: PathLike, mode: number): void {
  call("fchmodat", String(path), dirFd, cPath(path), mode, 0);
}

/** `fchown`. */
export function chownFd(fd: number, uid: number, gid: number): void {
  call("fchown", undefined, fd, idOf(uid), idOf(gid));
}

/** `fchmod`. */
export function chmodFd(fd: number, mode: number): void {
  call("fchmod", undefined, fd, mode);
}

function idOf(id: number): number {
  if (!Number.isInteger(id) || id < 0 || id >= 0xffffffff) throw sysError(22, "chown", String(id));
  return id;
}

const timesBuffer = Buffer.alloc(32);

function fillTimes(atimeNs: bigint, mtimeNs: bigint): Buffer {
  writeTime(0, atimeNs);
  writeTime(16, mtimeNs);
  return timesBuffer;
}

function writeTime(offset: number, timeNs: bigint): void {
  const nanos = ((timeNs % 1_000_000_000n) + 1_000_000_000n) % 1_000_000_000n;
  timesBuffer.writeBigInt64LE((timeNs - nanos) / 1_000_000_000n, offset);
  timesBuffer.writeBigInt64LE(nanos, offset + 8);
}

/** `utimensat` that doesn't follow a link, in nanoseconds since the epoch. */
export function utimesAt(dirFd: number, path: PathLike, atimeNs: bigint, mtimeNs: bigint): void {
  const times = fillTimes(atimeNs, mtimeNs);
  call("utimensat", String(path), dirFd, cPath(path), times, AT.SYMLINK_NOFOLLOW);
}

/** `futimens`. */
export function utimesFd(fd: number, atimeNs: bigint, mtimeNs: bigint): void {
  call("futimens", undefined, fd, fillTimes(atimeNs, mtimeNs));
}

/** `readlinkat`. */
export function readlinkAt(dirFd: number, path: PathLike): string {
  const target = cPath(path);
  for (let size = 1024; ; size *= 4) {
    const buffer = Buffer.allocUnsafe(size);
    const length = call("readlinkat", String(path), dirFd, target, buffer, size);
    if (length < size) return decodePath(buffer.subarray(0, length));
  }
}
