import {
  closeSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readSync,
  rmdirSync,
  rmSync,
  symlinkSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { isErrno, type SysError, sysError } from "./errno.ts";
import { MNT, MS } from "./flags.ts";
import { call, callAsync, callRaw, cPath, errnoNow, syscall } from "./libc.ts";
import { type ParsedMountOptions, parseMountOptions } from "./mount-options.ts";
import type { LocalMount, Mount } from "./mount-type.ts";
import { rootPath } from "./root-path.ts";

/** mount(2) takes one page of options; some of it is for the kernel. */
const MAX_CLASSIC_DATA_BYTES = 3800;

/**
 * Mounts `mounts` in order at `target` (which exists). When one fails, those before it are unmounted.
 *
 * @throws SysError
 */
export function mountAll(mounts: readonly Mount[], target: string): void {
  const done: string[] = [];
  try {
    for (const mount of mounts) {
      const at = mount.target === undefined ? target : rootPath(target, mount.target);
      mountOne(mount, at);
      done.push(at);
    }
  } catch (error) {
    for (const at of done.reverse()) unmount(at, { detach: true });
    throw error;
  }
}

/** Mounts one at exactly `target`, following no `mount.target`. */
export function mountOne(mount: Mount, target: string): void {
  const options = parseMountOptions(mount.options);
  if (mount.type === "bind" || mount.type === "rbind" || (options.flags & MS.BIND) !== 0) {
    bindMount(mount, target, options);
  } else if (mount.type === "overlay" && needsNewApi(options)) {
    mountOverlay(mount, target, options);
  } else {
    classicMount(mount, target, options.flags, options.data.join(","));
  }
  if (options.propagation !== 0) setPropagation(target, options.propagation);
}

function classicMount(mount: Mount, target: string, flags: number, data: string): void {
  const subject = `${mount.type} ${target}`;
  call("mount", subject, cPath(mount.source), cPath(target), mount.type, flags, cPath(data));
}

function setPropagation(target: string, flags: number): void {
  call("mount", target, "none", cPath(target), "", flags, null);
}

/** Makes a mount and everything below it private, so that nothing of it shows elsewhere. */
export function makePrivate(target: string): void {
  setPropagation(target, MS.PRIVATE | MS.REC);
}

function bindMount(mount: Mount, target: string, options: ParsedMountOptions): void {
  const rec = mount.type === "rbind" || (options.flags & MS.REC) !== 0 ? MS.REC : 0;
  call("mount", `${mount.source} ${target}`, cPath(mount.source), cPath(target), "bind", MS.BIND | rec, null);
  const wanted = options.flags & ~(MS.BIND | MS.REC);
  if (wanted === 0) return;
  try {
    remount(target, wanted);
  } catch (error) {
    unmount(target, { detach: true });
    throw error;
  }
}

function remount(target: string, flags: number): void {
  const bits = MS.BIND | MS.REMOUNT | flags;
  if (callRaw("mount", "none", cPath(target), "", bits, null) >= 0) return;
  const errno = errnoNow();
  // In a user namespace the flags that the original mount has are locked: ask for them again.
  const locked = errno === 1 ? mountFlags(target) : undefined;
  if (locked === undefined) throw sysError(errno, "mount", `remount ${target}`);
  call("mount", `remount ${target}`, "none", cPath(target), "", bits | locked, null);
}

/** Remounts an existing bind mount read-only. */
export function remountReadonly(target: string): void {
  remount(target, MS.RDONLY);
}

/** Flags of the mount at exactly this path. */
function mountFlags(target: string): number | undefined {
  for (const line of readFileSync("/proc/self/mountinfo", "utf8").split("\n").reverse()) {
    const fields = line.split(" ");
    if (unescapeMountPath(fields[4] ?? "") === target) {
      return parseMountOptions((fields[5] ?? "").split(",")).flags;
    }
  }
  return undefined;
}

/** Where file systems are mounted, in the order of their mounting. */
export function mountPoints(): string[] {
  return readFileSync("/proc/self/mountinfo", "utf8")
    .split("\n")
    .map((line) => unescapeMountPath(line.split(" ")[4] ?? ""))
    .filter((path) => path !== "");
}

function unescapeMountPath(path: string): string {
  return path.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)));
}

function needsNewApi(options: ParsedMountOptions): boolean {
  const data = options.data.join(",");
  return Buffer.byteLength(data) > MAX_CLASSIC_DATA_BYTES || data.includes("\\");
}

const FSCONFIG = { SET_FLAG: 0, SET_STRING: 1, CREATE: 6 } as const;
const MOVE_MOUNT_F_EMPTY_PATH = 4;
const MOUNT_ATTR_RDONLY = 1;

/** Mounts an overlay of any number of layers: one `lowerdir+` each, or through short links where it's missing. */
function mountOverlay(mount: Mount, target: string, options: ParsedMountOptions): void {
  try {
    newOverlay(mount, target, options);
  } catch (error) {
    if (!isErrno(error, "ENOSYS", "EINVAL", "EPERM")) throw error;
    linkedOverlay(mount, target, options, error as SysError);
  }
}

function newOverlay(mount: Mount, target: string, options: ParsedMountOptions): void {
  const context = syscall("fsopen", mount.type, mount.type, 1);
  let mounted = -1;
  try {
    const set = (command: number, key: string | null, value: string | null): void => {
      try {
        syscall(
          "fsconfig",
          key ?? "create",
          context,
          command,
          key,
          value === null ? null : (cPath(value) as string),
          0,
        );
      } catch (error) {
        throw explained(error, context);
      }
    };
    set(FSCONFIG.SET_STRING, "source", mount.source);
    for (const option of options.data) {
      const [key, value] = cut(option, "=");
      if (value === undefined) set(FSCONFIG.SET_FLAG, key, null);
      else if (key !== "lowerdir") set(FSCONFIG.SET_STRING, key, value);
      else for (const dir of splitLowerDirs(value)) set(FSCONFIG.SET_STRING, "lowerdir+", dir);
    }
    if (options.flags & MS.RDONLY) set(FSCONFIG.SET_FLAG, "ro", null);
    set(FSCONFIG.CREATE, null, null);
    mounted = syscall("fsmount", target, context, 1, options.flags & MS.RDONLY ? MOUNT_ATTR_RDONLY : 0);
    syscall("moveMount", target, mounted, "", -100, cPath(target) as string, MOVE_MOUNT_F_EMPTY_PATH);
  } finally {
    if (mounted >= 0) closeSync(mounted);
    closeSync(context);
  }
}

/** Adds what the kernel wrote about the failure to a file system context. */
function explained(error: unknown, context: number): unknown {
  const buffer = Buffer.alloc(1024);
  try {
    const length = readSync(context, buffer, 0, buffer.length, null);
    const text = buffer.toString("utf8", 0, length).trim();
    if (error instanceof Error && text !== "") error.message += ` (${text})`;
  } catch {
    // The kernel had nothing to say.
  }
  return error;
}

function linkedOverlay(mount: Mount, target: string, options: ParsedMountOptions, first: SysError): void {
  const links = mkdtempSync("/tmp/kl");
  try {
    let count = 0;
    const shorten = (dir: string): string => {
      const link = `${links}/${(count++).toString(36)}`;
      symlinkSync(dir, link);
      return link;
    };
    const data = options.data.map((option) => {
      const [key, value] = cut(option, "=");
      if (key !== "lowerdir" || value === undefined) return option;
      return `lowerdir=${splitLowerDirs(value).map(shorten).join(":")}`;
    });
    const text = data.join(",");
    if (Buffer.byteLength(text) > 4095) {
      throw Object.assign(first, { message: `${first.message}: too many layers for this kernel (${count})` });
    }
    classicMount(mount, target, options.flags, text);
  } finally {
    rmSync(links, { recursive: true, force: true });
  }
}

function cut(text: string, separator: string): [string, string | undefined] {
  const at = text.indexOf(separator);
  return at < 0 ? [text, undefined] : [text.slice(0, at), text.slice(at + separator.length)];
}

/** Directories of an overlay's `lowerdir=` value, nearest first; `\:` is a colon of a name. */
export function splitLowerDirs(value: string): string[] {
  return value.split(/(?<!\\):/).map((dir) => dir.replace(/\\([\\:,])/g, "$1"));
}

/** A directory's path for use in `lowerdir=`. */
export function escapeLowerDir(dir: string): string {
  return dir.replace(/[\\:,]/g, "\\$&");
}

/** How to unmount. */
export interface UnmountOptions {
  /** Take it out of sight now, the rest when nobody uses it any more. */
  readonly detach?: boolean;
}

const EBUSY = 16;
const EINVAL = 22;
const ENOENT = 2;

/**
 * Unmounts the topmost mount at `target`; one that is busy is detached. False when nothing is mounted there.
 *
 * @throws SysError
 */
export function unmount(target: string, opts: UnmountOptions = {}): boolean {
  const flags = MNT.NOFOLLOW | (opts.detach ? MNT.DETACH : 0);
  if (callRaw("umount2", cPath(target), flags) >= 0) return true;
  const errno = errnoNow();
  if (errno === EINVAL || errno === ENOENT) return false;
  if (errno === EBUSY && !opts.detach) return unmount(target, { detach: true });
  throw sysError(errno, "umount", target);
}

/** Unmounts everything that is mounted at exactly `target`, one over the other. */
export function unmountAll(target: string): void {
  while (unmount(target)) {
    // The next one below.
  }
}

/** {@link unmount} on a thread of the pool, for mounts whose end writes to disk. */
export async function unmountAsync(target: string): Promise<void> {
  try {
    await callAsync("umount2", target, cPath(target), MNT.NOFOLLOW);
  } catch (error) {
    if (isErrno(error, "EINVAL", "ENOENT")) return;
    if (!isErrno(error, "EBUSY")) throw error;
    unmount(target, { detach: true });
  }
}

/** How {@link localMount} shows its mounts. */
export interface LocalMountOptions {
  /** The caller only reads: a single bind mount is then read where it lies, whatever its options. */
  readonly forReading?: boolean;
  /** Folder for the temporary mount point; the machine's when absent. */
  readonly tmpDir?: string;
}

/**
 * Shows mounts in a directory of this process until disposed of. A single writable bind mount needs no
 * mounting: its source is the answer.
 */
export function localMount(mounts: readonly Mount[], opts: LocalMountOptions = {}): LocalMount {
  const [only] = mounts;
  if (mounts.length === 1 && only && only.target === undefined && isBind(only)) {
    const readonly = only.options.includes("ro");
    if (!readonly || opts.forReading) return { path: only.source, [Symbol.dispose]: () => undefined };
  }
  const base = opts.tmpDir ?? tmpdir();
  mkdirSync(base, { recursive: true });
  const path = mkdtempSync(join(base, "kiln-mount"));
  try {
    mountAll(mounts, path);
  } catch (error) {
    rmdirSync(path);
    throw error;
  }
  let mounted = true;
  return {
    path,
    [Symbol.dispose]: () => {
      if (!mounted) return;
      mounted = false;
      for (const mount of [...mounts].reverse()) {
        unmount(mount.target === undefined ? path : rootPath(path, mount.target));
      }
      rmdirSync(path);
    },
  };
}

function isBind(mount: Mount): boolean {
  return mount.type === "bind" || mount.type === "rbind";
}

/** The same mounts, readable only: overlays lose their upper directory's writability, binds get `ro`. */
export function readonlyMounts(mounts: readonly Mount[]): Mount[] {
  return mounts.map((mount) => {
    const options = mount.options.filter((option) => option !== "rw" && option !== "ro");
    if (mount.type !== "overlay") return { ...mount, options: [...options, "ro"] };
    return { ...mount, options: readonlyOverlay(options) };
  });
}

/** An overlay with an upper directory becomes one whose topmost lower directory that is. */
function readonlyOverlay(options: readonly string[]): string[] {
  const upper = options.find((option) => option.startsWith("upperdir="))?.slice("upperdir=".length);
  const kept = options.filter((option) => !/^(upperdir|workdir)=|^volatile$/.test(option));
  if (upper === undefined) return kept;
  return kept.map((option) =>
    option.startsWith("lowerdir=") ? `lowerdir=${upper}:${option.slice("lowerdir=".length)}` : option,
  );
}
