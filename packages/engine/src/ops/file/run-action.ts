import { randomBytes } from "node:crypto";
import {
  chmodSync,
  lstatSync,
  mkdirSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { basename, dirname, join } from "node:path";
import { BuildError, unreachable } from "@kiln/base";
import { matchPath } from "@kiln/patterns";
import { AT, fsPath, rootPath, utimesAt } from "@kiln/sys";
import { listNames, TreeCopier } from "./copier.ts";
import type { PlainAction, PlainCopy } from "./file-action.ts";
import { applyOwner, makeDirs, restoreTimes } from "./rooted-dirs.ts";
import { parseSymbolicMode } from "./symbolic-mode.ts";
import { unpackArchive } from "./unpack.ts";

const DEFAULT_DIR_MODE = 0o755;

/**
 * Carries out one file action on mounted trees. Every path is resolved inside its tree as in a chroot, as
 * the files there, links included, may be an attacker's (rules: buildkit `solver/llbsolver/file/backend.go`).
 */
export async function runAction(action: PlainAction): Promise<void> {
  switch (action.kind) {
    case "mkdir":
      return runMkdir(action);
    case "mkfile":
      return runMkfile(action);
    case "symlink":
      return runSymlink(action);
    case "rm":
      return runRm(action);
    case "copy":
      return runCopy(action);
    default:
      return unreachable(action, "file action");
  }
}

function runMkdir(action: Extract<PlainAction, { kind: "mkdir" }>): void {
  const path = rootPath(action.root, action.path);
  const mode = action.mode & 0o777;
  if (action.makeParents) {
    makeDirs(path, { mode, owner: action.owner, timeNs: action.timeNs });
    return;
  }
  try {
    mkdirSync(fsPath(path), mode);
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "EEXIST") return;
    throw error;
  }
  chmodSync(fsPath(path), mode);
  applyOwner(path, action.owner);
  if (action.timeNs !== undefined) utimesAt(AT.FDCWD, path, action.timeNs, action.timeNs);
}

/** Written beside its place and renamed: what is there, a device perhaps, is never opened. */
function runMkfile(action: Extract<PlainAction, { kind: "mkfile" }>): void {
  const path = rootPath(action.root, join("/", action.path));
  if (path === action.root) {
    throw new BuildError("unknown", `mkfile ${join("/", action.path)}: is a directory`);
  }
  const temporary = join(dirname(path), `.tmp-mkfile${randomBytes(6).toString("hex")}`);
  try {
    writeFileSync(fsPath(temporary), action.data, { flag: "wx", mode: 0o600 });
    applyOwner(temporary, action.owner);
    chmodSync(fsPath(temporary), action.mode & 0o777);
    if (action.timeNs !== undefined) utimesAt(AT.FDCWD, temporary, action.timeNs, action.timeNs);
    renameSync(fsPath(temporary), fsPath(path));
  } catch (error) {
    rmSync(fsPath(temporary), { force: true });
    if (error instanceof Error && "path" in error) Object.assign(error, { path });
    throw error;
  }
}

function runSymlink(action: Extract<PlainAction, { kind: "symlink" }>): void {
  const path = rootPath(action.root, join("/", action.newpath));
  try {
    symlinkSync(fsPath(action.oldpath), fsPath(path));
  } catch (error) {
    const where = `${action.oldpath} ${path.slice(action.root.length) || "/"}`;
    if (error instanceof Error && "code" in error && error.code === "EEXIST") {
      throw new BuildError("already_exists", `symlink ${where}: file exists`, { cause: error });
    }
    throw error;
  }
  applyOwner(path, action.owner);
  if (action.timeNs !== undefined) utimesAt(AT.FDCWD, path, action.timeNs, action.timeNs);
}

function runRm(action: Extract<PlainAction, { kind: "rm" }>): void {
  if (!action.allowWildcard) {
    removePath(action.root, action.path, action.allowNotFound);
    return;
  }
  for (const match of resolveWildcards(action.root, cleanPath(action.path), false)) {
    removePath(action.root, match, action.allowNotFound);
  }
}

function removePath(root: string, path: string, allowNotFound: boolean): void {
  const clean = join("/", path);
  const name = clean.endsWith("/") ? "" : basename(clean);
  if (name === "") throw new BuildError("invalid_argument", "rmPath: invalid empty path");
  const target = join(rootPath(root, dirname(clean)), name);
  // the last component is never followed: a link goes, not what it points at
  if (!allowNotFound) lstatSync(fsPath(target));
  rmSync(fsPath(target), { recursive: true, force: true });
}

async function runCopy(action: PlainCopy): Promise<void> {
  const src = cleanPath(action.src);
  const dest = cleanPath(action.dest);
  if (!action.createDestPath) {
    const parent = dirname(rootPath(action.root, join("/", action.dest)));
    if (lstatSync(fsPath(parent), { throwIfNoEntry: false }) === undefined) {
      const shown = parent.slice(action.root.length) || "/";
      throw new BuildError(
        "not_found",
        `failed to stat ${action.dest}: lstat ${shown}: no such file or directory`,
      );
    }
  }
  let sources = [src];
  if (action.allowWildcard) {
    sources = resolveWildcards(action.source, src, action.followSymlink);
    if (sources.length === 0) {
      if (action.allowEmptyWildcard) return;
      throw new BuildError("unknown", `${src} not found`);
    }
  }
  for (const source of sources) {
    if (action.attemptUnpack && (await unpackArchive(action, source, dest))) continue;
    copyOne(action, source, dest);
  }
}

function copyOne(action: PlainCopy, src: string, dest: string): void {
  const mode = modeChange(action);
  const dirTraits = {
    mode: action.mode === -1 || action.modeStr !== "" ? DEFAULT_DIR_MODE : action.mode & 0o777,
    owner: action.owner,
    timeNs: action.timeNs,
  };
  const last = dest.slice(dest.lastIndexOf("/") + 1);
  const destDir = last === "" || last === "." ? dest : dest.slice(0, dest.lastIndexOf("/") + 1);
  const made = makeDirs(rootPath(action.root, destDir), dirTraits);

  let target = rootPath(action.root, join("/", dest));
  const from = sourcePath(action.source, src, action.followSymlink);
  const isDir = lstatSync(fsPath(from)).isDirectory();
  const before = statSync(fsPath(target), { throwIfNoEntry: false });
  const contentsOnly = action.dirCopyContents && isDir;
  if (before !== undefined && (isDir ? !contentsOnly : before.isDirectory())) {
    target = join(target, basename(src));
  }
  made.push(...makeDirs(contentsOnly && before === undefined ? target : dirname(target), dirTraits));

  new TreeCopier({
    owner: action.owner,
    timeNs: action.timeNs,
    mode,
    includePatterns: action.includePatterns,
    excludePatterns: action.excludePatterns,
    alwaysReplace: action.alwaysReplace,
  }).copy(from, target);
  restoreTimes(made, action.timeNs);
}

function modeChange(action: PlainCopy): ((mode: number, isDir: boolean) => number) | undefined {
  if (action.modeStr !== "") return parseSymbolicMode(action.modeStr);
  if (action.mode === -1) return undefined;
  const fixed = action.mode & 0o7777;
  return () => fixed;
}

/** Where `path` of a tree is: its directories' links followed, its own only with `followLast`. */
function sourcePath(root: string, path: string, followLast: boolean): string {
  const clean = join("/", path);
  if (clean === "/") return root;
  const trimmed = clean.endsWith("/") ? clean.slice(0, -1) : clean;
  if (followLast) return rootPath(root, trimmed);
  return join(rootPath(root, dirname(trimmed)), basename(trimmed));
}

/**
 * Paths in the tree that match a pattern, in order. As in Go's `filepath.Match` no wildcard crosses a
 * slash, and what lies below a matching directory isn't looked at.
 */
function resolveWildcards(root: string, pattern: string, followLinks: boolean): string[] {
  const parts = pattern.split("/").filter((part) => part !== "" && part !== ".");
  const at = parts.findIndex(hasWildcard);
  if (at < 0) return [`/${parts.join("/")}`];
  const fixed = sourcePath(root, `/${parts.slice(0, at).join("/")}`, followLinks);
  const matches: string[] = [];
  // nothing is below a file, or a link that isn't to be followed
  if (lstatSync(fsPath(fixed)).isDirectory()) collectMatches(fixed, parts.slice(at), matches);
  return matches.map((match) => match.slice(root.length));
}

function collectMatches(dir: string, parts: readonly string[], out: string[]): void {
  const [first, ...rest] = parts as [string, ...string[]];
  for (const name of listNames(dir)) {
    if (!matchPath(first, name)) continue;
    const path = `${dir}/${name}`;
    if (rest.length === 0) out.push(path);
    else if (lstatSync(fsPath(path)).isDirectory()) collectMatches(path, rest, out);
  }
}

/** True when a path component is a pattern of Go's `filepath.Match`. */
export function hasWildcard(part: string): boolean {
  for (let i = 0; i < part.length; i++) {
    const c = part[i];
    if (c === "*" || c === "?" || c === "[") return true;
    if (c === "\\") i++;
  }
  return false;
}

/** Absolute and clean, keeping a slash or `/.` at the end, which says that a directory is meant. */
function cleanPath(path: string): string {
  let clean = join("/", path);
  if (clean !== "/" && clean.endsWith("/")) clean = clean.slice(0, -1);
  if (path.endsWith("/.")) return clean === "/" ? "/." : `${clean}/.`;
  return path.endsWith("/") && clean !== "/" ? `${clean}/` : clean;
}
