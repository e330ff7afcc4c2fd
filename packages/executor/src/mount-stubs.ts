import { isMissing, type RootDir } from "./root-dir.ts";

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

/**
 * Makes the mount points of a root file system before the runtime would, so that every runtime leaves the same
 * behind: directories 0755, files empty. Mount points inside other mounts are left to the runtime.
 */
export function makeMountPoints(root: RootDir, mounts: readonly { dest: string; isFile: boolean }[]): void {
  const dests = mounts.map((mount) => cleanPath(mount.dest)).filter((dest) => dest !== "/");
  for (const { dest, isFile } of mounts) {
    const path = cleanPath(dest);
    if (path === "/" || dests.some((other) => path.startsWith(`${other}/`))) continue;
    const resolved = root.resolve(path);
    if (root.lstat(resolved) !== undefined) continue;
    if (!isFile) {
      root.mkdirAll(resolved, 0o755, { uid: 0, gid: 0 });
      continue;
    }
    root.mkdirAll(resolved.slice(0, resolved.lastIndexOf("/")) || "/", 0o755, { uid: 0, gid: 0 });
    root.touch(resolved, 0o755);
  }
}
