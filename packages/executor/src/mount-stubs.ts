import { errnoOf, isMissing, RootDir } from "./root-dir.ts";

/** Files of its own that every container gets mounted; their mount points are cleaned like those of a step's mounts. */
const OWN_FILES = ["/etc/resolv.conf", "/etc/hosts"];

/** Normalised absolute form of a mount's destination. */
export function cleanPath(path: string): string {
  const names: string[] = [];
  for (const name of path.split("/")) {
    if (name === "" || name === ".") continue;
    if (name === "..") names.pop();
    else names.push(name);
  }
  return `/${names.join("/")}`;
}

/**
 * The mount points among `dests` that don't exist yet in the root, so that someone has to make them; with
 * `recursive` also the directories above them that are missing. In the order in which they can be removed.
 */
export function missingMountPoints(root: RootDir, dests: readonly string[], recursive: boolean): string[] {
  const missing: string[] = [];
  for (const dest of [...OWN_FILES, ...dests]) {
    let path = resolveOrSkip(root, dest);
    while (path !== undefined && path !== "/" && root.lstat(path) === undefined) {
      missing.push(path);
      if (!recursive) break;
      path = path.slice(0, path.lastIndexOf("/")) || "/";
    }
  }
  return missing;
}

function resolveOrSkip(root: RootDir, dest: string): string | undefined {
  try {
    return root.resolve(dest);
  } catch {
    return undefined;
  }
}

/**
 * Removes what {@link missingMountPoints} named, where it is still empty; the times of the directories above
 * stay. A path that by now leads somewhere else through a link is left alone: nothing outside is touched.
 */
export function removeMountPoints(root: RootDir, paths: readonly string[]): void {
  for (const path of paths) {
    try {
      const parent = path.slice(0, path.lastIndexOf("/")) || "/";
      if (root.resolve(parent) !== parent) continue;
      root.removeEmpty(path);
    } catch (error) {
      if (!isMissing(error)) process.emitWarning(`mount point ${path} stays: ${String(error)}`);
    }
  }
}

/** A mount as far as its mount point is concerned. */
export interface MountPoint {
  readonly dest: string;
  readonly isFile: boolean;
  /** The directory that is bound there; undefined for another file system. */
  readonly bound: string | undefined;
}

/**
 * Makes the mount points of a container before the runtime would, so that every runtime leaves the same behind:
 * directories 0755, files empty. Those inside of other mounts are made in what is bound there; in file systems
 * that don't outlive the container they are left to the runtime.
 */
export function makeMountPoints(root: RootDir, mounts: readonly MountPoint[]): void {
  const points = mounts.map((mount) => ({ ...mount, dest: cleanPath(mount.dest) }));
  for (const { dest, isFile } of points) {
    if (dest === "/") continue;
    const around = points
      .filter((other) => other.dest !== "/" && dest.startsWith(`${other.dest}/`))
      .reduce<MountPoint | undefined>(
        (best, other) => (best && best.dest.length > other.dest.length ? best : other),
        undefined,
      );
    if (around === undefined) makeMountPoint(root, dest, isFile);
    else if (around.bound !== undefined && !around.isFile) {
      using inner = new RootDir(around.bound);
      makeMountPoint(inner, dest.slice(around.dest.length), isFile);
    }
  }
}

function makeMountPoint(root: RootDir, path: string, isFile: boolean): void {
  const resolved = root.resolve(path);
  if (root.lstat(resolved) !== undefined) return;
  try {
    if (!isFile) {
      root.mkdirAll(resolved, 0o755, { uid: 0, gid: 0 });
      return;
    }
    root.mkdirAll(resolved.slice(0, resolved.lastIndexOf("/")) || "/", 0o755, { uid: 0, gid: 0 });
    root.touch(resolved, 0o755);
  } catch (error) {
    // On a read-only file system the runtime is to say so.
    if (errnoOf(error) !== "EROFS") throw error;
  }
}
