import { existsSync, readdirSync, readFileSync, rmdirSync } from "node:fs";
import { isMissing } from "./root-dir.ts";

const CGROUP_ROOT = "/sys/fs/cgroup";

/** How the machine's control groups are set up: one v2 tree, v1 trees, or v1 trees with a v2 tree beside them. */
export type CgroupMode = "unified" | "legacy" | "hybrid";

/** Looks at the machine. */
export function cgroupMode(): CgroupMode {
  if (existsSync(`${CGROUP_ROOT}/cgroup.controllers`)) return "unified";
  return existsSync(`${CGROUP_ROOT}/unified/cgroup.controllers`) ? "hybrid" : "legacy";
}

/** Whether containers get a cgroup namespace: only v2 has usable ones. */
export function hasCgroupNamespaces(): boolean {
  return existsSync("/proc/self/ns/cgroup") && existsSync(`${CGROUP_ROOT}/cgroup.subtree_control`);
}

/** The cgroup of a container below a parent; systemd's `slice:prefix:` form is completed with the id. */
export function cgroupsPathOf(parent: string, id: string): string {
  if (parent === "") return `/buildkit/${id}`;
  if (parent.includes(".slice") && parent.endsWith(":")) return parent + id;
  return `/${parent}/buildkit/${id}`.replace(/\/+/g, "/");
}

/** How often the kernel killed a process of a cgroup for lack of memory; 0 when that can't be told. */
export function readOomKills(cgroupsPath: string): number {
  for (const file of [
    `${CGROUP_ROOT}${cgroupsPath}/memory.events`,
    `${CGROUP_ROOT}/memory${cgroupsPath}/memory.oom_control`,
  ]) {
    try {
      const line = readFileSync(file, "utf8").match(/^oom_kill (\d+)$/m);
      if (line) return Number(line[1]);
    } catch (error) {
      if (!isMissing(error)) throw error;
    }
  }
  return 0;
}

/** Removes the cgroups that a container left at a path of {@link cgroupsPathOf}, in every hierarchy. */
export function removeCgroups(cgroupsPath: string): void {
  if (!/^(\/[^/]+)+$/.test(cgroupsPath) || cgroupsPath.split("/").includes("..")) return;
  const hierarchies = [CGROUP_ROOT];
  if (cgroupMode() !== "unified") {
    for (const entry of readdirSync(CGROUP_ROOT, { withFileTypes: true })) {
      if (entry.isDirectory()) hierarchies.push(`${CGROUP_ROOT}/${entry.name}`);
    }
  }
  for (const hierarchy of hierarchies) removeTree(`${hierarchy}${cgroupsPath}`);
}

/** Cgroup directories are removed from the leaves up; their files go by themselves. */
function removeTree(dir: string): void {
  let entries: string[];
  try {
    entries = readdirSync(dir, { withFileTypes: true }).flatMap((entry) =>
      entry.isDirectory() ? [entry.name] : [],
    );
  } catch (error) {
    if (isMissing(error)) return;
    throw error;
  }
  for (const name of entries) removeTree(`${dir}/${name}`);
  try {
    rmdirSync(dir);
  } catch (error) {
    if (!isMissing(error)) throw error;
  }
}
