import { closeSync, openSync, readFileSync, statfsSync } from "node:fs";
import { constants } from "node:os";
import { isErrno } from "./errno.ts";
import { call, callAsync, syscall } from "./libc.ts";

const PR_SET_PDEATHSIG = 1;
const PR_SET_CHILD_SUBREAPER = 36;

/** Makes this process the parent of orphaned grandchildren. */
export function becomeSubreaper(): void {
  call("prctl", undefined, PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
}

/** The signal that this process gets when the thread that started it ends. */
export function setParentDeathSignal(signal: NodeJS.Signals): void {
  call("prctl", undefined, PR_SET_PDEATHSIG, constants.signals[signal], 0, 0, 0);
}

/** Descriptor that stands for a process, safe against reuse of its id. Close it with `fs.closeSync`. */
export function pidfdOpen(pid: number): number {
  return syscall("pidfdOpen", String(pid), pid, 0);
}

/** Sends a signal to a process by its descriptor; false when it has ended. */
export function pidfdKill(fd: number, signal: NodeJS.Signals): boolean {
  try {
    syscall("pidfdSendSignal", undefined, fd, constants.signals[signal], null, 0);
    return true;
  } catch (error) {
    if (isErrno(error, "ESRCH")) return false;
    throw error;
  }
}

/** Effective user id. */
export function geteuid(): number {
  return process.geteuid?.() ?? 0;
}

/** True when this process can't be root outside: its user namespace isn't the machine's first one. */
export function inUserNamespace(): boolean {
  try {
    return !/^\s*0\s+0\s+4294967295\s*$/.test(readFileSync("/proc/self/uid_map", "utf8"));
  } catch (error) {
    if (isErrno(error, "ENOENT")) return false;
    throw error;
  }
}

/** Writes everything of the file system that holds `path` to its disk, on a thread of the pool. */
export async function syncFileSystem(path: string): Promise<void> {
  const fd = openSync(path, "r");
  try {
    await callAsync("syncfs", path, fd);
  } finally {
    closeSync(fd);
  }
}

/** `sync(2)`, on a thread of the pool. */
export async function syncAll(): Promise<void> {
  await callAsync("sync", undefined);
}

/** Space on the disk that holds a path. */
export interface DiskSpace {
  readonly totalBytes: number;
  /** For unprivileged users. */
  readonly freeBytes: number;
  /** Magic number of the file system. */
  readonly type: number;
}

/** `statfs`. */
export function diskSpace(path: string): DiskSpace {
  const s = statfsSync(path);
  return { totalBytes: s.blocks * s.bsize, freeBytes: s.bavail * s.bsize, type: s.type };
}

const LOCK_EX = 2;
const LOCK_NB = 4;

/** A lock file that is held until disposed of. */
export interface FileLock extends Disposable {
  readonly path: string;
}

/** Takes an exclusive `flock` on a file (made when missing); undefined when another process holds it. */
export function tryLockFile(path: string): FileLock | undefined {
  const fd = openSync(path, "a", 0o600);
  try {
    call("flock", path, fd, LOCK_EX | LOCK_NB);
  } catch (error) {
    closeSync(fd);
    if (isErrno(error, "EAGAIN", "EWOULDBLOCK")) return undefined;
    throw error;
  }
  let held = true;
  return {
    path,
    [Symbol.dispose]: () => {
      if (!held) return;
      held = false;
      closeSync(fd);
    },
  };
}

/** Frees the disk blocks below a byte range of a file; its size stays. */
export function punchHole(fd: number, offset: number, length: number): void {
  call("fallocate", undefined, fd, 3, offset, length);
}
