import { closeSync, mkdtempSync, openSync, rmSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { BuildError } from "@kiln/base";
import { comparePaths } from "@kiln/sys";
import type { Stat } from "./stat.ts";
import type { FileTree } from "./tree.ts";

/**
 * A directory that exists in memory only: files by their single names, mode 0600. Nothing of it lies in the file
 * system, so nothing of it is left when this process is killed.
 */
export function treeOfFiles(files: ReadonlyMap<string, Uint8Array>): FileTree {
  const modTime = BigInt(Date.now()) * 1_000_000n;
  const names = [...files.keys()].sort(comparePaths);
  return {
    list: (dir) =>
      dir !== ""
        ? []
        : names.map((path) => ({
            path,
            isDir: false,
            isSymlink: false,
            stat: () => fileStat(path, files.get(path)?.length ?? 0, modTime),
          })),
    open: (path) => {
      const content = files.get(path);
      if (content === undefined) throw new BuildError("not_found", `open ${path}: no such file`);
      return openCopy(content);
    },
  };
}

function fileStat(path: string, size: number, modTime: bigint): Stat {
  return {
    path,
    mode: 0o600,
    uid: process.getuid?.() ?? 0,
    gid: process.getgid?.() ?? 0,
    size: BigInt(size),
    modTime,
    linkname: "",
    devmajor: 0n,
    devminor: 0n,
    xattrs: {},
  };
}

/** Descriptor of a file with that content, at its start, whose name is gone already. */
function openCopy(content: Uint8Array): number {
  const dir = mkdtempSync(join(tmpdir(), "kiln-file-"));
  let fd: number;
  try {
    fd = openSync(join(dir, "file"), "wx+", 0o600);
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
  try {
    for (let at = 0; at < content.length; ) at += writeSync(fd, content, at, content.length - at, at);
    return fd;
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}
