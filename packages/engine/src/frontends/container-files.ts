import { closeSync, constants } from "node:fs";
import { posix } from "node:path";
import { BuildError, codeOfNodeError } from "@kiln/base";
import { matchPath } from "@kiln/patterns";
import { type Stat, statEntry } from "@kiln/session/fsutil";
import { fstat, isSymlink, RootedFs, readdirFd, readlinkAt, tryStatAt } from "@kiln/sys";
import { readTreeFile } from "./tree-files.ts";

const O_PATH = 0o10000000;
/** Entries of one directory listing. */
const MAX_ENTRIES = 1_000_000;

// Files of trees that a container may be changing at the same moment: every name is resolved by descriptor, never
// by a path that was found out before.

/** Reads a regular file of a container; see {@link readTreeFile}. */
export function readContainerFile(
  root: string,
  path: string,
  range?: { readonly offset: number; readonly length: number },
): Uint8Array {
  return readTreeFile(root, absolute(path), range);
}

/** Entries of a directory of a container, in order of their names. */
export function readContainerDir(root: string, path: string, pattern: string): Stat[] {
  using fs = new RootedFs(root);
  const fd = openIn(fs, path, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    const names = readdirFd(fd).sort();
    if (names.length > MAX_ENTRIES) {
      throw new BuildError("resource_exhausted", `${path} has more than ${MAX_ENTRIES} entries`);
    }
    const wanted = pattern === "" ? names : names.filter((name) => matchPath(posix.normalize(pattern), name));
    return wanted.flatMap((name) => {
      const stat = tryStatAt(fd, name);
      return stat === undefined ? [] : [statEntry(`/proc/self/fd/${fd}/${name}`, name, stat)];
    });
  } finally {
    closeSync(fd);
  }
}

/**
 * What a path of a container leads to. A link with an absolute target is answered itself, for it may lead into
 * another mount, which the client knows and this tree doesn't.
 */
export function statContainerFile(root: string, path: string): Stat {
  const wanted = absolute(path);
  const base = posix.basename(wanted) || "/";
  using fs = new RootedFs(root);
  {
    using parent = inWords(path, () => fs.openParent(wanted));
    const { fd, name } = parent;
    const stat = name === undefined ? fstat(fd) : tryStatAt(fd, name);
    if (stat !== undefined && name !== undefined && isSymlink(stat) && readlinkAt(fd, name).startsWith("/")) {
      return statEntry(`/proc/self/fd/${fd}/${name}`, base, stat);
    }
  }
  const fd = openIn(fs, path, O_PATH);
  try {
    return statEntry(`/proc/self/fd/${fd}`, base, fstat(fd));
  } finally {
    closeSync(fd);
  }
}

function openIn(fs: RootedFs, path: string, flags: number): number {
  const wanted = absolute(path);
  return inWords(path, () => fs.open(wanted, flags));
}

function absolute(path: string): string {
  if (path.startsWith("/")) return posix.normalize(path);
  throw new BuildError("invalid_argument", `can't make ${path} relative to /`);
}

/** Errors with the path that was asked for, not with the place where the tree is mounted. */
function inWords<T>(path: string, open: () => T): T {
  try {
    return open();
  } catch (error) {
    const code = error instanceof Error && "code" in error ? String(error.code) : "";
    const text = TEXTS[code];
    if (text === undefined) throw error;
    throw new BuildError(codeOfNodeError(error), `open ${path}: ${text}`, { cause: error });
  }
}

const TEXTS: Readonly<Record<string, string>> = {
  ENOENT: "no such file or directory",
  ENOTDIR: "not a directory",
  ELOOP: "too many levels of symbolic links",
  EACCES: "permission denied",
  ENAMETOOLONG: "file name too long",
};
