/**
 * The files of a git revision, without a checkout: those of the working tree with what has changed since put back.
 * Git itself says what has changed, so line ends and filters (LFS and the like) count as git sees them.
 */
import { execFileSync } from "node:child_process";
import { lstatSync, realpathSync } from "node:fs";
import { join, posix, relative, resolve, sep } from "node:path";
import type { BakeHost } from "@kiln/bake";
import { BuildError, isBuildError } from "@kiln/base";
import { GoMode, type SeenInodes, type Stat, type TreeEntry } from "@kiln/session/fsutil";
import { comparePaths, decodePath } from "@kiln/sys";
import type { DiskView, FileView, HashedTree } from "./file-view.ts";
import { type GitBlob, type GitProgram, readBlobs, runGit } from "./git-program.ts";

const MAX_LINKS = 40;
const LARGE_BLOB_BYTES = 1 << 30;

const MODES = { link: "120000", executable: "100755", submodule: "160000" };

/** A file as the revision has it. */
interface RevisionFile {
  readonly mode: string;
  readonly id: string;
}

/** What differs in one directory: files that were another way, files that weren't there, directories with such. */
interface ChangedDir {
  readonly files: Map<string, RevisionFile | undefined>;
  readonly dirs: Set<string>;
}

/** A revision, ready to be read. */
export interface Revision {
  /** The commit. */
  readonly commit: string;
  readonly view: FileView;
}

/** Opens the revision of the repository that `git.cwd` lies in. @throws BuildError for what is no commit. */
export async function openRevision(revision: string, git: GitProgram, disk: DiskView): Promise<Revision> {
  const root = (await inRepository(runGit(git, ["rev-parse", "--show-toplevel"]), git.cwd)).toString();
  const top = root.replace(/\n$/, "");
  const here = { ...git, cwd: top };
  const commit = await commitOf(revision, git);
  const diff = ["diff", "--raw", "-z", "--no-abbrev", "--no-renames", "--no-ext-diff", "--no-textconv"];
  const [changed, untracked] = await Promise.all([
    runGit(here, [...diff, "--ignore-submodules=none", "--no-relative", commit, "--"]),
    runGit(here, ["ls-files", "--others", "--exclude-standard", "-z"]),
  ]);
  const changes = new Map<string, RevisionFile | undefined>();
  for (const path of splitNul(untracked)) changes.set(path.replace(/\/$/, ""), undefined);
  for (const [path, file] of parseRawDiff(splitNul(changed))) changes.set(path, file);
  const files = [...changes.values()].filter((file) => file !== undefined && file.mode !== MODES.submodule);
  const blobs = await readBlobs(
    here,
    files.map((file) => file!.id),
  );
  return { commit, view: new RevisionView({ top: realpathSync(top), changes, blobs, git: here, disk }) };
}

async function inRepository<T>(work: Promise<T>, cwd: string): Promise<T> {
  try {
    return await work;
  } catch (error) {
    if (!isBuildError(error, "invalid_argument")) throw error;
    throw new BuildError(
      "invalid_argument",
      `--changed-since needs a git repository at ${cwd}: ${error.message}`,
      {
        cause: error,
      },
    );
  }
}

async function commitOf(revision: string, git: GitProgram): Promise<string> {
  const refuse = (cause?: unknown): never => {
    throw new BuildError(
      "invalid_argument",
      `invalid git revision ${JSON.stringify(revision)}: no such commit`,
      { cause, hint: "in a shallow clone, fetch the revision first" },
    );
  };
  // Nothing that could be an option reaches git, and nothing that it would read as several revisions.
  if (revision === "" || revision.startsWith("-") || /[\0\n]/.test(revision)) return refuse();
  try {
    const found = await runGit(git, [
      "rev-parse",
      "--verify",
      "--quiet",
      "--end-of-options",
      `${revision}^{commit}`,
    ]);
    const commit = found.toString().trim();
    return /^[0-9a-f]{40,64}$/.test(commit) ? commit : refuse();
  } catch (error) {
    if (isBuildError(error, "invalid_argument")) return refuse(error);
    throw error;
  }
}

function splitNul(data: Buffer): string[] {
  const out: string[] = [];
  for (let at = 0; at < data.length; ) {
    const end = data.indexOf(0, at);
    const stop = end < 0 ? data.length : end;
    out.push(decodePath(data.subarray(at, stop)));
    at = stop + 1;
  }
  return out;
}

/** `:oldmode newmode oldid newid STATUS`, then the path. */
function* parseRawDiff(fields: readonly string[]): Generator<[path: string, file: RevisionFile | undefined]> {
  for (let i = 0; i + 1 < fields.length; i += 2) {
    const [mode = "", , id = "", , status = ""] = fields[i]!.replace(/^:/, "").split(" ");
    // Of a conflict; what the revision has is in a line of its own.
    if (status.startsWith("U")) continue;
    yield [fields[i + 1]!, status.startsWith("A") || /^0+$/.test(id) ? undefined : { mode, id }];
  }
}

interface RevisionParts {
  readonly top: string;
  readonly changes: ReadonlyMap<string, RevisionFile | undefined>;
  readonly blobs: ReadonlyMap<string, GitBlob>;
  readonly git: GitProgram;
  readonly disk: DiskView;
}

class RevisionView implements FileView {
  readonly #parts: RevisionParts;
  readonly #dirs = new Map<string, ChangedDir>();

  constructor(parts: RevisionParts) {
    this.#parts = parts;
    for (const [path, file] of parts.changes) {
      const dir = posix.dirname(path);
      this.#dir(dir === "." ? "" : dir, file !== undefined).files.set(posix.basename(path), file);
    }
  }

  #dir(path: string, exists: boolean): ChangedDir {
    let dir = this.#dirs.get(path);
    if (dir === undefined) {
      dir = { files: new Map(), dirs: new Set() };
      this.#dirs.set(path, dir);
    }
    if (path !== "") {
      const parent = posix.dirname(path);
      const above = this.#dir(parent === "." ? "" : parent, exists);
      if (exists) above.dirs.add(posix.basename(path));
    }
    return dir;
  }

  tree(dir: string): HashedTree {
    const inside = this.#inside(dir);
    if (inside === undefined || !this.#dirs.has(inside)) {
      // Nothing in there has changed, so it is there now if it was there then.
      return this.#parts.disk.tree(dir);
    }
    const { disk, top } = this.#parts;
    const isThere = disk.kindOf(join(top, inside)) === "directory";
    if (!isThere && !this.#hadDirectory(inside))
      throw new BuildError("not_found", `resolve ${dir}: no such file or directory`);
    return new RevisionTree(isThere ? disk.tree(join(top, inside)) : undefined, {
      changed: (path) => this.#dirs.get(inside === "" ? path : path === "" ? inside : `${inside}/${path}`),
      blob: (file) => this.#blob(file),
    });
  }

  readFile(path: string): Uint8Array | undefined {
    return this.#readFile(path, 0);
  }

  #readFile(path: string, links: number): Uint8Array | undefined {
    const found = this.#find(path);
    if (found.kind === "same") return this.#parts.disk.readFile(path);
    if (found.kind !== "file" || links > MAX_LINKS) return undefined;
    const { file } = found;
    if (file.mode === MODES.submodule) return undefined;
    const data = this.#data(file);
    if (file.mode !== MODES.link) return data;
    return this.#readFile(resolve(path, "..", new TextDecoder().decode(data)), links + 1);
  }

  kindOf(path: string): "file" | "directory" | "other" | undefined {
    const found = this.#find(path);
    switch (found.kind) {
      case "same":
        return this.#parts.disk.kindOf(path);
      case "file":
        return found.file.mode === MODES.submodule ? "directory" : "file";
      case "directory":
        return "directory";
      case "none":
        return undefined;
    }
  }

  /** The place inside the repository, with slashes; undefined for one outside. */
  #inside(path: string): string | undefined {
    const { top } = this.#parts;
    const inside = relative(top, existingPath(resolve(path)));
    if (inside === "") return "";
    return inside === ".." || inside.startsWith(`..${sep}`) ? undefined : inside.split(sep).join("/");
  }

  #find(
    path: string,
  ):
    | { readonly kind: "same" | "none" | "directory" }
    | { readonly kind: "file"; readonly file: RevisionFile } {
    const inside = this.#inside(path);
    if (inside === undefined || inside === "") return { kind: "same" };
    const parent = posix.dirname(inside);
    const dir = this.#dirs.get(parent === "." ? "" : parent);
    const name = posix.basename(inside);
    const file = dir?.files.get(name);
    if (file !== undefined) return { kind: "file", file };
    if (dir?.dirs.has(name)) return { kind: "directory" };
    return { kind: dir?.files.has(name) ? "none" : "same" };
  }

  #hadDirectory(path: string): boolean {
    const parent = posix.dirname(path);
    return this.#dirs.get(parent === "." ? "" : parent)?.dirs.has(posix.basename(path)) ?? false;
  }

  #blob({ mode, id }: RevisionFile): {
    readonly sizeBytes: number;
    readonly hash: string;
    readonly text: string;
  } {
    const blob = this.#parts.blobs.get(id);
    if (blob === undefined) return { sizeBytes: 0, hash: `submodule ${id}`, text: "" };
    const text = mode === MODES.link ? decodePath(blob.data ?? new Uint8Array()) : "";
    return { sizeBytes: blob.sizeBytes, hash: blob.hash, text };
  }

  #data({ id }: RevisionFile): Uint8Array {
    const data = this.#parts.blobs.get(id)?.data;
    if (data !== undefined) return data;
    const { cwd, env } = this.#parts.git;
    const options = { cwd, env: { ...env }, maxBuffer: LARGE_BLOB_BYTES };
    return execFileSync("git", ["cat-file", "blob", id], options);
  }
}

/** The path with the links of its existing part resolved. */
function existingPath(path: string): string {
  try {
    return realpathSync(path);
  } catch {
    const parent = resolve(path, "..");
    return parent === path ? path : join(existingPath(parent), posix.basename(path));
  }
}

interface RevisionSource {
  readonly changed: (dir: string) => ChangedDir | undefined;
  readonly blob: (file: RevisionFile) => {
    readonly sizeBytes: number;
    readonly hash: string;
    readonly text: string;
  };
}

class RevisionTree implements HashedTree {
  readonly #disk: (HashedTree & { readonly root?: string }) | undefined;
  readonly #source: RevisionSource;

  constructor(disk: HashedTree | undefined, source: RevisionSource) {
    this.#disk = disk;
    this.#source = source;
  }

  list(dir: string): readonly TreeEntry[] {
    const changed = this.#source.changed(dir);
    const now = this.#isDirectory(dir, changed) ? (this.#disk?.list(dir) ?? []) : [];
    if (changed === undefined) return now;
    const entries = new Map(now.map((entry) => [posix.basename(entry.path), entry]));
    const path = (name: string): string => (dir === "" ? name : `${dir}/${name}`);
    for (const [name, file] of changed.files) {
      if (file === undefined) entries.delete(name);
      else entries.set(name, this.#entry(path(name), file));
    }
    for (const name of changed.dirs) {
      if (entries.get(name)?.isDir !== true) entries.set(name, directoryEntry(path(name)));
    }
    return [...entries.values()].sort((a, b) => comparePaths(a.path, b.path));
  }

  /** What is a directory in the revision may be a link by now, which mustn't be followed. */
  #isDirectory(dir: string, changed: ChangedDir | undefined): boolean {
    const root = this.#disk?.root;
    if (root === undefined || changed === undefined || dir === "") return true;
    const stat = lstatSync(join(root, dir), { throwIfNoEntry: false });
    return stat?.isDirectory() === true;
  }

  #entry(path: string, file: RevisionFile): TreeEntry {
    const isSymlink = file.mode === MODES.link;
    return {
      path,
      isDir: false,
      isSymlink,
      stat: () => {
        const { sizeBytes, text } = this.#source.blob(file);
        const mode = isSymlink ? GoMode.SYMLINK | 0o777 : file.mode === MODES.executable ? 0o755 : 0o644;
        return { ...plainStat(path, mode), size: BigInt(sizeBytes), linkname: text };
      },
    };
  }

  open(path: string): number {
    throw new BuildError("unimplemented", `${path} is in a git revision and can't be opened`);
  }

  contentHash(path: string): string {
    const dir = posix.dirname(path);
    const file = this.#source.changed(dir === "." ? "" : dir)?.files.get(posix.basename(path));
    if (file !== undefined) return this.#source.blob(file).hash;
    if (this.#disk === undefined) throw new BuildError("not_found", `${path}: no such file`);
    return this.#disk.contentHash(path);
  }
}

function directoryEntry(path: string): TreeEntry {
  return {
    path,
    isDir: true,
    isSymlink: false,
    stat: (_seen?: SeenInodes) => plainStat(path, GoMode.DIR + 0o755),
  };
}

function plainStat(path: string, mode: number): Stat {
  return {
    path,
    mode,
    uid: 0,
    gid: 0,
    size: 0n,
    modTime: 0n,
    linkname: "",
    devmajor: 0n,
    devminor: 0n,
    xattrs: {},
  };
}

/** The machine with the files of a view, for reading definitions. */
export function viewHost(host: BakeHost, view: FileView): BakeHost {
  const at = (path: string): string => resolve(host.cwd, path);
  return {
    cwd: host.cwd,
    localPlatform: host.localPlatform,
    readFile: (path) => view.readFile(at(path)),
    stat: (path) => {
      const kind = view.kindOf(at(path));
      if (kind === undefined || kind === "other") return host.stat(path);
      return { kind, size: kind === "file" ? (view.readFile(at(path))?.length ?? 0) : 0 };
    },
    realPath: (path) => host.realPath(path) ?? (view.kindOf(at(path)) === undefined ? undefined : at(path)),
    env: (name) => host.env(name),
    environ: () => host.environ(),
    homeDir: () => host.homeDir(),
    now: () => host.now(),
    randomBytes: (count) => host.randomBytes(count),
  };
}
