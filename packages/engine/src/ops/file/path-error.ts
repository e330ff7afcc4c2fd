import { BuildError, codeOfNodeError, errorMessage, isBuildError } from "@kiln/base";

/** Texts of Go's `syscall.Errno`, which users and tools know from BuildKit. */
const ERRNO_TEXTS: Readonly<Record<string, string>> = {
  EACCES: "permission denied",
  EBUSY: "device or resource busy",
  EDQUOT: "disk quota exceeded",
  EEXIST: "file exists",
  EINVAL: "invalid argument",
  EISDIR: "is a directory",
  ELOOP: "too many levels of symbolic links",
  EMFILE: "too many open files",
  ENAMETOOLONG: "file name too long",
  ENOENT: "no such file or directory",
  ENOSPC: "no space left on device",
  ENOTDIR: "not a directory",
  ENOTEMPTY: "directory not empty",
  EPERM: "operation not permitted",
  EROFS: "read-only file system",
  EXDEV: "invalid cross-device link",
  ENXIO: "no such device or address",
};

const SYSCALL_NAMES: Readonly<Record<string, string>> = { copyfile: "open", scandir: "open" };

/**
 * An error of Node's file system in Go's words (`mkdir /a: file exists`), or one of our own, without the place
 * where the tree is mounted. Other errors pass as they are.
 */
export function pathError(error: unknown, roots: readonly string[]): unknown {
  if (isBuildError(error)) {
    const message = roots.reduce((text, root) => text.replaceAll(`${root}/`, "/"), error.message);
    if (message === error.message) return error;
    return new BuildError(error.code, message, { cause: error, wire: error.wire });
  }
  if (!(error instanceof Error) || !("syscall" in error) || !("code" in error)) return error;
  const text = ERRNO_TEXTS[String(error.code)];
  if (text === undefined) return error;
  let path = "path" in error ? String(error.path) : "";
  for (const root of roots) {
    if (path === root) path = "/";
    else if (path.startsWith(`${root}/`)) path = path.slice(root.length);
  }
  const name = SYSCALL_NAMES[String(error.syscall)] ?? String(error.syscall);
  return new BuildError(codeOfNodeError(error), `${name} ${path}: ${text}`, { cause: error });
}

/** Text and code of an error, for the way between threads. */
export function plainError(error: unknown): { code: ReturnType<typeof codeOfNodeError>; message: string } {
  return { code: codeOfNodeError(error), message: errorMessage(error) };
}
