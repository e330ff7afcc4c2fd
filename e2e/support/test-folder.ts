import { mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** Makes a folder of one's own for everything that a run writes. */
export function makeTestFolder(name: string): string {
  return mkdtempSync(join(tmpdir(), `kiln-${name}-`));
}

/** Mount points at or below a folder, deepest last. */
export function mountsBelow(folder: string): string[] {
  return readFileSync("/proc/self/mountinfo", "utf8")
    .split("\n")
    .map((line) => line.split(" ")[4] ?? "")
    .filter((point) => point === folder || point.startsWith(`${folder}/`));
}

/** Processes whose program, arguments, root or working folder lie below a folder: `pid command`. */
export function processesBelow(folder: string): string[] {
  const found: string[] = [];
  for (const pid of readdirSync("/proc")) {
    if (!/^\d+$/.test(pid) || Number(pid) === process.pid) continue;
    const command = commandOf(pid);
    const links = ["cwd", "root", "exe"].map((name) => linkOf(`/proc/${pid}/${name}`));
    if (command.includes(folder) || links.some((link) => link.startsWith(`${folder}/`))) {
      found.push(`${pid} ${command}`);
    }
  }
  return found;
}

function commandOf(pid: string): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ");
  } catch {
    return ""; // It has ended meanwhile.
  }
}

function linkOf(path: string): string {
  try {
    return readlinkSync(path);
  } catch {
    return ""; // It has ended meanwhile, or is a thread of the kernel.
  }
}

/** Removes a test's folder. Throws when a mount or a process of the test is left there. */
export function removeTestFolder(folder: string): void {
  const left = [
    ...mountsBelow(folder).map((point) => `mount ${point}`),
    ...processesBelow(folder).map((line) => `process ${line}`),
  ];
  if (left.length > 0) throw new Error(`left in ${folder}:\n${left.join("\n")}`);
  rmSync(folder, { recursive: true, force: true });
}
