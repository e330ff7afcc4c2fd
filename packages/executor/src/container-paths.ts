/** Paths below a container's root, while it is being prepared. */
import {
  accessSync,
  closeSync,
  constants,
  fstatSync,
  mkdirSync,
  rmdirSync,
  unlinkSync,
  writeFileSync,
} from "node:fs";
import { BuildError } from "@kiln/base";
import { mountOne, unmount } from "@kiln/sys";
import type { PooledMount } from "./mount-pool.ts";
import { injectCa } from "./proxy-ca.ts";
import { errnoOf, RootDir } from "./root-dir.ts";

const O_PATH = 0o10000000;

/** Adds the proxy's certificate; what takes it out again opens the root anew, for this one is closed by then. */
export function addCa(root: RootDir, path: string, caPem: string): () => void {
  const clean = injectCa(root, caPem);
  return () => {
    using again = new RootDir(path);
    clean(again);
  };
}

/** The place of a mount's sub-path: bound from a descriptor, so that no later rename can redirect it. */
export function selectPath(
  pooled: PooledMount,
  selector: string,
  place: string,
  undo: (() => void)[],
): string {
  if (/^[./]*$/.test(selector)) return pooled.path;
  using root = new RootDir(pooled.path);
  let fd: number;
  try {
    fd = root.open(selector, O_PATH);
  } catch (error) {
    throw new BuildError("not_found", `${selector}: ${errnoText(error)}`, { cause: error });
  }
  try {
    const isDir = fstatSync(fd).isDirectory();
    if (isDir) mkdirSync(place, { mode: 0o700 });
    else writeFileSync(place, "", { flag: "wx" });
    // Never recursively: if unmounting failed, what is mounted here would go.
    undo.push(() => (isDir ? rmdirSync(place) : unlinkSync(place)));
    mountOne({ type: "bind", source: `/proc/self/fd/${fd}`, options: ["rbind"] }, place);
    undo.push(() => {
      unmount(place, { detach: true });
    });
  } finally {
    closeSync(fd);
  }
  return place;
}

/** Why a path can't be had, in the words of Go. */
export function errnoText(error: unknown): string {
  const code = errnoOf(error);
  if (code === "ENOENT") return "no such file or directory";
  if (code === "ENOTDIR") return "not a directory";
  return error instanceof Error ? error.message : String(error);
}

/** Makes what is missing of a working directory. */
export function makeWorkingDir(root: RootDir, cwd: string, uid: number, gid: number): void {
  const path = root.resolve(cwd);
  refuseProcDescriptors(path);
  if (root.exists(path)) return;
  try {
    root.mkdirAll(path, 0o755, { uid, gid });
  } catch (error) {
    throw new BuildError(
      "invalid_argument",
      `failed to create working directory ${cwd}: ${errnoText(error)}`,
      {
        cause: error,
      },
    );
  }
}

/** A working directory that is an open descriptor of the runtime would lead out of the container (CVE-2024-21626). */
export function refuseProcDescriptors(path: string): void {
  if (!/^\/+proc\/+[^/]+\/+(fd|cwd|root|exe|task|map_files)(\/|$)/.test(path)) return;
  throw new BuildError("invalid_argument", `working dir ${path} points to invalid target`);
}

/** False on a read-only file system; the superuser may write everywhere else. */
export function isWritable(path: string): boolean {
  try {
    accessSync(path, constants.W_OK);
    return true;
  } catch {
    return false;
  }
}
