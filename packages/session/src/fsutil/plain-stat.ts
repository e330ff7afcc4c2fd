import { lstatSync, readlinkSync } from "node:fs";
import { fsPath, isErrno } from "@kiln/sys";
import { GoMode, goModeFromPosix } from "./mode.ts";
import type { Stat } from "./stat.ts";

/**
 * The entry for what lies at `fullPath`, named `path`, as far as Node tells about it: without extended attributes,
 * devices' numbers and other links to the same inode. Undefined when nothing is there.
 */
export function plainEntry(fullPath: string, path: string): Stat | undefined {
  const file = fsPath(fullPath);
  try {
    const st = lstatSync(file, { bigint: true });
    return {
      path,
      mode: (goModeFromPosix(Number(st.mode)) & ~GoMode.SOCKET) >>> 0,
      uid: Number(st.uid),
      gid: Number(st.gid),
      size: st.isDirectory() ? 0n : st.size,
      modTime: st.mtimeNs,
      linkname: st.isSymbolicLink() ? readlinkSync(file) : "",
      devmajor: 0n,
      devminor: 0n,
      xattrs: {},
    };
  } catch (error) {
    if (isErrno(error, "ENOENT", "ENOTDIR")) return undefined;
    throw error;
  }
}
