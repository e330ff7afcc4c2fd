import { existsSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { mountPoints, unmountAll } from "@kiln/sys";
import { removeCgroups } from "./cgroup.ts";

/**
 * Removes what an executor that was killed left in its directory: streams and cgroups of containers, generated
 * files, mounts. Processes and mounts of containers have gone with the zygote already. Call it before the
 * directory is used again, and while no other daemon uses it.
 */
export function cleanupLeftovers(root: string): void {
  if (!existsSync(root)) return;
  for (const path of mountPoints().reverse()) {
    if (path.startsWith(`${root}/`)) unmountAll(path);
  }
  for (const name of readdirSync(root)) {
    const cgroup = join(root, name, "cgroup");
    if (existsSync(cgroup)) removeCgroups(readFileSync(cgroup, "utf8"));
    rmSync(join(root, name), { recursive: true, force: true });
  }
}
