import { isAbsolute, join, normalize } from "node:path";
import { isSymlink, readlinkAt, tryLstat } from "./at.ts";
import { sysError } from "./errno.ts";
import { AT } from "./flags.ts";

/** As in the kernel and in containerd's `fs.RootPath`. */
const MAX_LINKS = 255;

/**
 * Where `path` leads inside `root` when links are followed as in a chroot: `..` stops at the root and
 * absolute targets start from it. What doesn't exist is kept as it is written. `root` itself may be reached
 * through links.
 *
 * Only for trees that nobody changes meanwhile; use {@link RootedFs} where others can.
 *
 * @throws `ELOOP` after 255 links
 */
export function rootPath(root: string, path: string): string {
  const pending = splitPath(path).reverse();
  let resolved: string[] = [];
  let links = 0;
  while (pending.length > 0) {
    const part = pending.pop() as string;
    if (part === "..") {
      resolved.pop();
      continue;
    }
    const full = join(root, ...resolved, part);
    const stat = tryLstat(full);
    if (!stat || !isSymlink(stat)) {
      resolved.push(part);
      continue;
    }
    if (++links > MAX_LINKS) throw sysError(40, "rootPath", path);
    const target = readlinkAt(AT.FDCWD, full);
    if (isAbsolute(target)) resolved = [];
    pending.push(...splitPath(target).reverse());
  }
  return resolved.length === 0 ? root : join(root, ...resolved);
}

/** Components of a path without the empty ones and `.`; `..` stays. */
export function splitPath(path: string): string[] {
  return path.split("/").filter((part) => part !== "" && part !== ".");
}

/**
 * A path as it is inside a root, by its text alone: absolute, `.` and `..` worked out, `..` stopping at the
 * root (Go's `filepath.Join("/", path)`).
 */
export function cleanInRoot(path: string): string {
  return normalize(`/${path}`).replace(/(?<=.)\/+$/, "");
}
