import { sysError } from "./errno.ts";
import { callRaw, cPath, errnoNow } from "./libc.ts";
import { decodePath, type PathLike } from "./path-bytes.ts";

const ENODATA = 61;
const ERANGE = 34;
const ENOTSUP = 95;
const FIRST_SIZE = 512;

type Target = PathLike | number;

/**
 * Value of an extended attribute of a path (its final link not followed) or of an open file; undefined when
 * it isn't set or the file system has none.
 */
export function getXattr(target: Target, name: string): Buffer | undefined {
  return readGrowing(String(target), (buffer) =>
    typeof target === "number"
      ? callRaw("fgetxattr", target, name, buffer, buffer.length)
      : callRaw("lgetxattr", cPath(target), name, buffer, buffer.length),
  );
}

/** Names of the extended attributes, in the kernel's order. */
export function listXattrs(target: Target): string[] {
  const list = readGrowing(String(target), (buffer) =>
    typeof target === "number"
      ? callRaw("flistxattr", target, buffer, buffer.length)
      : callRaw("llistxattr", cPath(target), buffer, buffer.length),
  );
  if (!list || list.length === 0) return [];
  return decodePath(list.subarray(0, list.length - 1)).split("\0");
}

/** Sets an extended attribute. @throws SysError */
export function setXattr(target: Target, name: string, value: Uint8Array): void {
  const result =
    typeof target === "number"
      ? callRaw("fsetxattr", target, name, value, value.length, 0)
      : callRaw("lsetxattr", cPath(target), name, value, value.length, 0);
  if (result < 0) throw sysError(errnoNow(), "setxattr", `${String(target)}: ${name}`);
}

/** Removes an extended attribute; nothing happens when it isn't set. @throws SysError */
export function removeXattr(target: Target, name: string): void {
  const result =
    typeof target === "number"
      ? callRaw("fremovexattr", target, name)
      : callRaw("lremovexattr", cPath(target), name);
  if (result >= 0) return;
  const errno = errnoNow();
  if (errno !== ENODATA) throw sysError(errno, "removexattr", `${String(target)}: ${name}`);
}

/** The largest value that Linux stores. */
const MAX_VALUE_BYTES = 65536;

function readGrowing(subject: string, read: (buffer: Buffer) => number): Buffer | undefined {
  for (let size = FIRST_SIZE; ; size = MAX_VALUE_BYTES) {
    const buffer = Buffer.allocUnsafe(size);
    const length = read(buffer);
    if (length >= 0) return buffer.subarray(0, length);
    const errno = errnoNow();
    if (errno === ENODATA || errno === ENOTSUP) return undefined;
    if (errno !== ERANGE || size === MAX_VALUE_BYTES) throw sysError(errno, "getxattr", subject);
  }
}
