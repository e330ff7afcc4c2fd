import { closeSync, constants, openSync } from "node:fs";
import koffi from "koffi";

// The calls of process and terminal control that Node lacks; mounts and files are in `@kiln/sys`.

const libc = koffi.load(null);
const cUnshare = libc.func("int unshare(int flags)");
const cSetns = libc.func("int setns(int fd, int nstype)");
const cMkfifo = libc.func("int mkfifo(const char *path, unsigned int mode)");
const cWaitpid = libc.func("int waitpid(int pid, _Out_ int *status, int options)");
const cKill = libc.func("int kill(int pid, int signal)");
const cCloseRange = libc.func("int close_range(unsigned int first, unsigned int last, int flags)");
const cIoctl = libc.func("int ioctl(int fd, unsigned long request, _Inout_ uint8_t *argument)");
const cMemfd = libc.func("int memfd_create(const char *name, unsigned int flags)");
const cSyscall3 = libc.func("long syscall(long number, int a, int b, unsigned int c)");
const cOpenTree = libc.func("long syscall(long number, int dir, const char *path, unsigned int flags)");
const cMoveMount = libc.func(
  "long syscall(long number, int fromDir, const char *from, int toDir, const char *to, unsigned int flags)",
);
const cSocket = libc.func("int socket(int domain, int type, int protocol)");
const cBind = libc.func("int bind(int fd, const uint8_t *address, uint32_t size)");
const cListen = libc.func("int listen(int fd, int backlog)");
const cConnect = libc.func("int connect(int fd, const uint8_t *address, uint32_t size)");
const cGetsockname = libc.func("int getsockname(int fd, _Out_ uint8_t *address, _Inout_ uint32_t *size)");
const cSpawn = libc.func(
  "int posix_spawn(_Out_ int *pid, const char *path, const uint8_t *actions, const uint8_t *attributes, const char **argv, const char **envp)",
);
const cActionsInit = libc.func("int posix_spawn_file_actions_init(_Inout_ uint8_t *actions)");
const cActionsDup = libc.func(
  "int posix_spawn_file_actions_adddup2(_Inout_ uint8_t *actions, int fd, int as)",
);
const cActionsDestroy = libc.func("int posix_spawn_file_actions_destroy(_Inout_ uint8_t *actions)");
const cAttrInit = libc.func("int posix_spawnattr_init(_Inout_ uint8_t *attributes)");
const cAttrFlags = libc.func("int posix_spawnattr_setflags(_Inout_ uint8_t *attributes, short flags)");
const cAttrDefault = libc.func(
  "int posix_spawnattr_setsigdefault(_Inout_ uint8_t *attributes, const uint8_t *set)",
);
const cSigfill = libc.func("int sigfillset(_Inout_ uint8_t *set)");

export const CLONE_NEWNS = 0x20000;
export const CLONE_NEWPID = 0x20000000;
export const CLONE_NEWNET = 0x40000000;

const WNOHANG = 1;
const SPAWN_SETPGROUP = 0x02;
const SPAWN_SETSIGDEF = 0x04;
const SPAWN_SETSIGMASK = 0x08;
const CLOSE_RANGE_CLOEXEC = 4;
const TIOCSPTLCK = 0x40045431;
const TIOCGPTN = 0x80045430;
const TIOCSWINSZ = 0x5414;
const LOOP_CTL_GET_FREE = 0x4c82;
/** Room for libc's opaque spawn structures (glibc: 80 and 336 bytes, musl: 80 and 336). */
const OPAQUE_BYTES = 512;

const errorNames = new Map(Object.entries(koffi.os.errno).map(([name, number]) => [number, name]));

/** An error in the shape of Node's own, for a failed call. */
function callError(call: string, errno: number, subject?: string): NodeJS.ErrnoException {
  const name = errorNames.get(errno) ?? `errno ${errno}`;
  const error: NodeJS.ErrnoException = new Error(
    `${call}${subject === undefined ? "" : ` ${subject}`}: ${name}`,
  );
  error.code = name;
  error.syscall = call;
  error.errno = -errno;
  return error;
}

function check(result: number, call: string, subject?: string): number {
  if (result < 0) throw callError(call, koffi.errno(), subject);
  return result;
}

/** Moves the calling thread, and for `CLONE_NEWPID` its future children, to new namespaces. */
export function unshare(flags: number): void {
  check(cUnshare(flags), "unshare");
}

/** Moves the calling thread to the namespace behind `fd`. */
export function setns(fd: number, kind: number): void {
  check(cSetns(fd, kind), "setns");
}

/** Makes a named pipe. */
export function mkfifo(path: string, mode: number): void {
  check(cMkfifo(path, mode), "mkfifo", path);
}

const MFD_CLOEXEC = 1;

/** An open file without a name, in memory. */
export function memoryFile(name: string): number {
  return check(cMemfd(name, MFD_CLOEXEC), "memfd_create");
}

/** Keeps every descriptor from `first` on from leaking into children. */
export function closeOnExecFrom(first: number): void {
  check(cCloseRange(first, 0xffffffff, CLOSE_RANGE_CLOEXEC), "close_range");
}

/** Sends a signal; false when there is no such process. */
export function killProcess(pid: number, signal: number): boolean {
  if (cKill(pid, signal) === 0) return true;
  const errno = koffi.errno();
  if (errorNames.get(errno) === "ESRCH") return false;
  throw callError("kill", errno);
}

/** What a child left behind: its exit code, or 128 plus the signal that ended it. */
export interface ReapedChild {
  readonly pid: number;
  readonly code: number;
}

/** Collects one ended child, whichever; undefined when none has ended. */
export function reapChild(): ReapedChild | undefined {
  const status = [0];
  const pid = cWaitpid(-1, status, WNOHANG);
  if (pid <= 0) return undefined;
  const word = status[0] ?? 0;
  const signal = word & 0x7f;
  return { pid, code: signal === 0 ? (word >> 8) & 0xff : 128 + signal };
}

/** A program to start: `fds` become its 0, 1 and 2; nothing else is inherited. */
export interface SpawnRequest {
  readonly path: string;
  readonly argv: readonly string[];
  readonly env: readonly string[];
  readonly fds: readonly [number, number, number];
}

let spawnAttributes: Uint8Array | undefined;

/** Attributes for a process group of its own, no blocked signal and default handling of all. */
function attributes(): Uint8Array {
  if (spawnAttributes) return spawnAttributes;
  const made = new Uint8Array(OPAQUE_BYTES);
  const signals = new Uint8Array(OPAQUE_BYTES);
  cSigfill(signals);
  cAttrInit(made);
  cAttrDefault(made, signals);
  cAttrFlags(made, SPAWN_SETPGROUP | SPAWN_SETSIGDEF | SPAWN_SETSIGMASK);
  spawnAttributes = made;
  return made;
}

/** Starts a program with posix_spawn, whose cost doesn't grow with this process's memory; returns its pid. */
export function spawnProgram(request: SpawnRequest): number {
  const actions = new Uint8Array(OPAQUE_BYTES);
  cActionsInit(actions);
  try {
    request.fds.forEach((fd, as) => {
      cActionsDup(actions, fd, as);
    });
    const pid = [0];
    const errno = cSpawn(
      pid,
      request.path,
      actions,
      attributes(),
      [...request.argv, null],
      [...request.env, null],
    );
    if (errno !== 0) throw callError("posix_spawn", errno, request.path);
    return pid[0] ?? 0;
  } finally {
    cActionsDestroy(actions);
  }
}

/** The two ends of a new terminal: the master's descriptor and the path of the slave. */
export interface Pty {
  readonly master: number;
  readonly slavePath: string;
}

/** Opens a pseudo terminal; the caller closes the master. */
export function openPty(): Pty {
  const master = openSync("/dev/ptmx", constants.O_RDWR | constants.O_NOCTTY);
  try {
    check(cIoctl(master, TIOCSPTLCK, new Uint8Array(4)), "ioctl");
    const number = new Uint8Array(4);
    check(cIoctl(master, TIOCGPTN, number), "ioctl");
    return { master, slavePath: `/dev/pts/${new DataView(number.buffer).getUint32(0, true)}` };
  } catch (error) {
    closeSync(master);
    throw error;
  }
}

/** Tells a terminal its size. */
export function setWindowSize(master: number, rows: number, cols: number): void {
  const size = new DataView(new ArrayBuffer(8));
  size.setUint16(0, rows, true);
  size.setUint16(2, cols, true);
  check(cIoctl(master, TIOCSWINSZ, new Uint8Array(size.buffer)), "ioctl");
}

/** Number of the first free loop device, which is made; asks the descriptor of /dev/loop-control. */
export function findFreeLoop(control: number): number {
  return check(cIoctl(control, LOOP_CTL_GET_FREE, new Uint8Array(8)), "ioctl");
}

const AF_INET = 2;
const SOCK_DGRAM_CLOEXEC = 0o2000002;
const SIOCGIFFLAGS = 0x8913;
const SIOCSIFFLAGS = 0x8914;
const SIOCBRDELBR = 0x89a1;
const IFF_UP = 1;
/** `struct ifreq`: a name of 16 bytes and a union. */
const IFREQ_BYTES = 40;
const IFREQ_FLAGS = 16;

/** Takes a network bridge down and deletes it. */
export function deleteBridge(name: string): void {
  const request = Buffer.alloc(IFREQ_BYTES);
  request.write(name, 0, IFREQ_FLAGS - 1, "latin1");
  const socket = check(cSocket(AF_INET, SOCK_DGRAM_CLOEXEC, 0), "socket");
  try {
    check(cIoctl(socket, SIOCGIFFLAGS, request), "ioctl", name);
    request.writeInt16LE(request.readInt16LE(IFREQ_FLAGS) & ~IFF_UP, IFREQ_FLAGS);
    check(cIoctl(socket, SIOCSIFFLAGS, request), "ioctl", name);
    check(cIoctl(socket, SIOCBRDELBR, request), "ioctl", name);
  } finally {
    closeSync(socket);
  }
}

// These numbers are the same on every architecture.
const SYS_OPEN_TREE = 428;
const SYS_MOVE_MOUNT = 429;
const SYS_PIDFD_OPEN = 434;
const SYS_PIDFD_GETFD = 438;
const AT_FDCWD = -100;
const AT_RECURSIVE = 0x8000;
const OPEN_TREE_CLONE = 1;
const OPEN_TREE_CLOEXEC = 0o2000000;
const MOVE_MOUNT_F_EMPTY_PATH = 4;

/** A copy of the mounts at `path`, attached nowhere; gone when the last descriptor of it is. */
export function copyMounts(path: string): number {
  const flags = (OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE) >>> 0;
  return check(Number(cOpenTree(SYS_OPEN_TREE, AT_FDCWD, path, flags)), "open_tree", path);
}

/** Attaches what {@link copyMounts} gave at `target`, in this thread's mount namespace. */
export function attachMounts(fd: number, target: string): void {
  const result = cMoveMount(SYS_MOVE_MOUNT, fd, "", AT_FDCWD, target, MOVE_MOUNT_F_EMPTY_PATH);
  check(Number(result), "move_mount", target);
}

/** A descriptor that stands for this process. */
export function ownPidfd(): number {
  return check(Number(cSyscall3(SYS_PIDFD_OPEN, process.pid, 0, 0)), "pidfd_open");
}

/** A duplicate of descriptor `fd` of the process behind `pidfd`. */
export function takeDescriptor(pidfd: number, fd: number): number {
  return check(Number(cSyscall3(SYS_PIDFD_GETFD, pidfd, fd, 0)), "pidfd_getfd");
}

/** Switches the loopback device of this thread's network namespace on. */
export function enableLoopback(): void {
  const request = Buffer.alloc(IFREQ_BYTES);
  request.write("lo", 0, "latin1");
  const socket = check(cSocket(AF_INET, SOCK_DGRAM_CLOEXEC, 0), "socket");
  try {
    check(cIoctl(socket, SIOCGIFFLAGS, request), "ioctl", "lo");
    request.writeInt16LE(request.readInt16LE(IFREQ_FLAGS) | IFF_UP, IFREQ_FLAGS);
    check(cIoctl(socket, SIOCSIFFLAGS, request), "ioctl", "lo");
  } finally {
    closeSync(socket);
  }
}

const AF_INET6 = 10;
const SOCK_STREAM_CLOEXEC = 0o2000001;
const SOCK_NONBLOCK = 0o4000;
const BACKLOG = 511;

/** `struct sockaddr_in` or `sockaddr_in6`; addresses are in network order. */
function socketAddress(address: Uint8Array, port: number): Buffer {
  const isV4 = address.length === 4;
  const bytes = Buffer.alloc(isV4 ? 16 : 28);
  bytes.writeUInt16LE(isV4 ? AF_INET : AF_INET6, 0);
  bytes.writeUInt16BE(port, 2);
  bytes.set(address, isV4 ? 4 : 8);
  return bytes;
}

/** A socket that listens on a free port of 127.0.0.1 in this thread's network namespace. */
export function listenLoopback(): { fd: number; port: number } {
  const fd = check(cSocket(AF_INET, SOCK_STREAM_CLOEXEC | SOCK_NONBLOCK, 0), "socket");
  try {
    const any = socketAddress(Buffer.from([127, 0, 0, 1]), 0);
    check(cBind(fd, any, any.length), "bind");
    check(cListen(fd, BACKLOG), "listen");
    const bound = Buffer.alloc(16);
    check(cGetsockname(fd, bound, [bound.length]), "getsockname");
    return { fd, port: bound.readUInt16BE(2) };
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

/** Begins to connect from this thread's network namespace; the descriptor doesn't block. */
export function startConnect(address: Uint8Array, port: number): number {
  const domain = address.length === 4 ? AF_INET : AF_INET6;
  const fd = check(cSocket(domain, SOCK_STREAM_CLOEXEC | SOCK_NONBLOCK, 0), "socket");
  const target = socketAddress(address, port);
  if (cConnect(fd, target, target.length) < 0 && errorNames.get(koffi.errno()) !== "EINPROGRESS") {
    const error = callError("connect", koffi.errno());
    closeSync(fd);
    throw error;
  }
  return fd;
}
