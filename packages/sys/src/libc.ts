import { createRequire } from "node:module";
import { type SysError, sysError } from "./errno.ts";
import { encodePath, type PathLike } from "./path-bytes.ts";

/** C declarations of everything that is called; a name maps to the function of that name in libc. */
const DECLARATIONS = {
  mount:
    "int mount(const char *source, const char *target, const char *type, unsigned long flags, const char *data)",
  umount2: "int umount2(const char *target, int flags)",
  mkdirat: "int mkdirat(int fd, const char *path, uint mode)",
  mknodat: "int mknodat(int fd, const char *path, uint mode, uint64_t dev)",
  unlinkat: "int unlinkat(int fd, const char *path, int flags)",
  symlinkat: "int symlinkat(const char *target, int fd, const char *path)",
  linkat: "int linkat(int fromFd, const char *from, int toFd, const char *to, int flags)",
  renameat: "int renameat(int fromFd, const char *from, int toFd, const char *to)",
  fchownat: "int fchownat(int fd, const char *path, uint uid, uint gid, int flags)",
  fchmodat: "int fchmodat(int fd, const char *path, uint mode, int flags)",
  fchmod: "int fchmod(int fd, uint mode)",
  fchown: "int fchown(int fd, uint uid, uint gid)",
  utimensat: "int utimensat(int fd, const char *path, const void *times, int flags)",
  futimens: "int futimens(int fd, const void *times)",
  readlinkat: "long readlinkat(int fd, const char *path, _Out_ uint8_t *buffer, size_t size)",
  statx: "int statx(int fd, const char *path, int flags, uint mask, _Out_ uint8_t *buffer)",
  openat: "int openat(int fd, const char *path, int flags, uint mode)",
  flock: "int flock(int fd, int operation)",
  lgetxattr: "long lgetxattr(const char *path, const char *name, _Out_ uint8_t *value, size_t size)",
  lsetxattr: "int lsetxattr(const char *path, const char *name, const void *value, size_t size, int flags)",
  llistxattr: "long llistxattr(const char *path, _Out_ uint8_t *list, size_t size)",
  lremovexattr: "int lremovexattr(const char *path, const char *name)",
  fgetxattr: "long fgetxattr(int fd, const char *name, _Out_ uint8_t *value, size_t size)",
  fsetxattr: "int fsetxattr(int fd, const char *name, const void *value, size_t size, int flags)",
  flistxattr: "long flistxattr(int fd, _Out_ uint8_t *list, size_t size)",
  fremovexattr: "int fremovexattr(int fd, const char *name)",
  prctl: "int prctl(int option, unsigned long a, unsigned long b, unsigned long c, unsigned long d)",
  syncfs: "int syncfs(int fd)",
  sync: "void sync()",
  socket: "int socket(int domain, int type, int protocol)",
  sendto:
    "long sendto(int fd, const void *data, size_t size, int flags, const void *address, uint addressSize)",
  fcntl: "int fcntl(int fd, int command, long value)",
  mallopt: "int mallopt(int option, int value)",
  malloc_trim: "int malloc_trim(size_t pad)",
  fallocate: "int fallocate(int fd, int mode, int64_t offset, int64_t length)",
} as const;

/** The kernel's calls that libc of Debian 12 or musl has no wrapper for. */
const SYSCALLS = {
  openat2: [437, "long syscall(long n, int fd, const char *path, const void *how, size_t size)"],
  pidfdOpen: [434, "long syscall(long n, int pid, uint flags)"],
  pidfdSendSignal: [424, "long syscall(long n, int fd, int signal, void *info, uint flags)"],
  fsopen: [430, "long syscall(long n, const char *type, uint flags)"],
  fsconfig: [431, "long syscall(long n, int fd, uint command, const char *key, const char *value, int aux)"],
  fsmount: [432, "long syscall(long n, int fd, uint flags, uint attributes)"],
  moveMount: [
    429,
    "long syscall(long n, int fromFd, const char *from, int toFd, const char *to, uint flags)",
  ],
  mountSetattr: [
    442,
    "long syscall(long n, int fd, const char *path, uint flags, const void *attributes, size_t size)",
  ],
} as const;

type LibcName = keyof typeof DECLARATIONS;
type SyscallName = keyof typeof SYSCALLS;
type Argument = number | bigint | string | Uint8Array | null;

interface NativeFunction {
  (...args: readonly Argument[]): unknown;
  async(...args: readonly unknown[]): void;
}

interface Libc {
  readonly functions: Map<string, NativeFunction>;
  readonly errno: () => number;
  readonly load: (declaration: string) => NativeFunction;
}

let libc: Libc | undefined;

function open(): Libc {
  if (libc) return libc;
  const koffi = loadKoffi();
  const library = koffi.load(null);
  libc = {
    functions: new Map(),
    errno: () => koffi.errno(),
    load: (text) => library.func(text) as unknown as NativeFunction,
  };
  return libc;
}

/**
 * Koffi's native part alone: what its main module adds is deprecated, and takes ten times as long to load. Where that
 * part doesn't fit, as with musl, the main module finds the one that does.
 */
function loadKoffi(): typeof import("koffi") {
  const require = createRequire(import.meta.url);
  const { platform, arch } = process;
  try {
    return require(`@koromix/koffi-${platform}-${arch}/${platform}_${arch}/koffi.node`);
  } catch {
    return require("koffi");
  }
}

function functionOf(name: string, declaration: string): NativeFunction {
  const lib = open();
  let fn = lib.functions.get(name);
  if (!fn) {
    fn = lib.load(declaration);
    lib.functions.set(name, fn);
  }
  return fn;
}

/** Calls libc; the result may be negative, `errnoNow` then says why. */
export function callRaw(name: LibcName, ...args: readonly Argument[]): number {
  return Number(functionOf(name, DECLARATIONS[name])(...args));
}

/** Calls the kernel directly; the result may be negative, `errnoNow` then says why. */
export function syscallRaw(name: SyscallName, ...args: readonly Argument[]): number {
  const [number, declaration] = SYSCALLS[name];
  return Number(functionOf(`syscall:${name}`, declaration)(number, ...args));
}

/** errno of the last call. */
export function errnoNow(): number {
  return open().errno();
}

/** Calls libc. @throws {@link SysError} naming `subject` */
export function call(name: LibcName, subject: string | undefined, ...args: readonly Argument[]): number {
  for (;;) {
    const result = callRaw(name, ...args);
    if (result >= 0) return result;
    const errno = errnoNow();
    if (errno !== EINTR) throw sysError(errno, name, subject);
  }
}

/** Calls the kernel. @throws {@link SysError} naming `subject` */
export function syscall(
  name: SyscallName,
  subject: string | undefined,
  ...args: readonly Argument[]
): number {
  for (;;) {
    const result = syscallRaw(name, ...args);
    if (result >= 0) return result;
    const errno = errnoNow();
    if (errno !== EINTR) throw sysError(errno, name, subject);
  }
}

/** Calls libc on a thread of Node's pool, for the few calls that may take long. */
export function callAsync(
  name: LibcName,
  subject: string | undefined,
  ...args: readonly Argument[]
): Promise<number> {
  const fn = functionOf(name, DECLARATIONS[name]);
  return new Promise((resolve, reject) => {
    fn.async(...args, (error: unknown, result: unknown) => {
      if (error) return reject(error as Error);
      const value = Number(result ?? 0);
      if (value < 0) reject(sysError(errnoNow(), name, subject));
      else resolve(value);
    });
  });
}

const EINTR = 4;

/** A path for libc: NUL-terminated. @throws `EINVAL` for one that holds a NUL (libc would cut it there) */
export function cPath(path: PathLike): string | Buffer {
  if (typeof path === "string") {
    if (path.includes("\0")) throw nulInPath(path);
    if (path.isWellFormed()) return path;
  }
  const bytes = encodePath(path);
  if (bytes.includes(0)) throw nulInPath(bytes.toString("latin1"));
  return Buffer.concat([bytes, Buffer.of(0)]);
}

function nulInPath(path: string): SysError {
  return sysError(22, "path", path);
}
