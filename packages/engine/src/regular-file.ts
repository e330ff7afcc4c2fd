import { closeSync, constants, fstatSync, openSync, readSync } from "node:fs";
import { BuildError } from "@kiln/base";
import { RootedFs } from "@kiln/sys";

/**
 * The bytes of a regular file of a tree, links followed as in a chroot. A FIFO or a device in its place
 * never blocks.
 *
 * @throws BuildError `not_found`, or `invalid_argument` for anything but a regular file up to `maxBytes`.
 */
export function readRegularFile(
  root: string,
  path: string,
  maxBytes: number,
  range?: { readonly offset: number; readonly length: number },
): Uint8Array {
  using fs = new RootedFs(root);
  let fd: number;
  try {
    fd = openRegular(fs, path);
  } catch (error) {
    const code = error instanceof Error && "code" in error ? error.code : undefined;
    if (code !== "ENOENT" && code !== "ENOTDIR") throw error;
    const text = code === "ENOENT" ? "no such file or directory" : "not a directory";
    throw new BuildError("not_found", `open ${path}: ${text}`, { cause: error });
  }
  try {
    const stat = fstatSync(fd);
    if (stat.size > maxBytes) {
      throw new BuildError("invalid_argument", `${path} exceeds maximum allowed size of ${maxBytes} bytes`);
    }
    const start = range?.offset ?? 0;
    const data = Buffer.alloc(Math.max(0, Math.min(stat.size - start, range?.length ?? stat.size)));
    let at = 0;
    while (at < data.length) {
      const read = readSync(fd, data, at, data.length - at, start + at);
      if (read === 0) break;
      at += read;
    }
    return data.subarray(0, at);
  } finally {
    closeSync(fd);
  }
}

const O_PATH = 0o10000000;

/** Opens a file only if it is a regular one: the driver of a device isn't even asked. */
function openRegular(fs: RootedFs, path: string): number {
  const found = fs.open(path, O_PATH);
  try {
    if (!fstatSync(found).isFile())
      throw new BuildError("invalid_argument", `open ${path}: not a regular file`);
    return openSync(`/proc/self/fd/${found}`, constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOCTTY);
  } finally {
    closeSync(found);
  }
}
