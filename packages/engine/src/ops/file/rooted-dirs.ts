import { chmodSync, lchownSync, lstatSync, mkdirSync, statSync } from "node:fs";
import { dirname } from "node:path";
import { AT, fsPath, utimesAt } from "@kiln/sys";
import type { Owner } from "./copier.ts";

/** What new directories get. */
export interface DirTraits {
  readonly mode: number;
  readonly owner: Owner | undefined;
  readonly timeNs: bigint | undefined;
}

/**
 * Makes `path` and its missing parents; `path` has been resolved inside its root.
 *
 * @returns the directories that were made, outermost first.
 */
export function makeDirs(path: string, traits: DirTraits): string[] {
  const stat = statSync(fsPath(path), { throwIfNoEntry: false });
  if (stat !== undefined) {
    if (stat.isDirectory()) return [];
    throw Object.assign(new Error(`ENOTDIR: not a directory, mkdir '${path}'`), {
      code: "ENOTDIR",
      syscall: "mkdir",
      path,
    });
  }
  const parent = dirname(path);
  const made = parent === path ? [] : makeDirs(parent, traits);
  if (lstatSync(fsPath(path), { throwIfNoEntry: false })?.isDirectory()) return made;
  mkdirSync(fsPath(path), traits.mode);
  chmodSync(fsPath(path), traits.mode);
  applyOwner(path, traits.owner);
  if (traits.timeNs !== undefined) utimesAt(AT.FDCWD, path, traits.timeNs, traits.timeNs);
  return [...made, path];
}

/** Gives `path` (never a link's target) an owner: root when none is named. */
export function applyOwner(path: string, owner: Owner | undefined): void {
  if (owner !== undefined) lchownSync(fsPath(path), owner.uid, owner.gid);
}

/** Sets the times of directories that were made, innermost first, after their contents are there. */
export function restoreTimes(dirs: readonly string[], timeNs: bigint | undefined): void {
  if (timeNs === undefined) return;
  for (const dir of [...dirs].reverse()) utimesAt(AT.FDCWD, dir, timeNs, timeNs);
}
