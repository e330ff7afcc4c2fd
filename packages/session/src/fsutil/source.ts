import { posix } from "node:path";
import { BuildError } from "@kiln/base";
import { comparePaths } from "@kiln/sys";
import { type FilterOptions, stepsOfWalk, walkFiltered } from "./filter.ts";
import { isGoDir, isGoSymlink } from "./mode.ts";
import { cloneStat, type Stat } from "./stat.ts";
import { DiskTree, type FileTree } from "./tree.ts";

/** Something to send: entries in fsutil's order, and their contents. Each call of `stats` walks anew. */
export interface TreeSource {
  stats(): Iterable<Stat>;
  /** The same with undefined now and then, where a walk takes long between entries. */
  steps?(): Iterable<Stat | undefined>;
  /** Descriptor of a regular file, to be closed by the caller. */
  open(path: string): number;
}

/** A tree, or the part of it that `filter` leaves. */
export function sourceOfTree(tree: FileTree, filter: FilterOptions = {}): TreeSource {
  return {
    stats: () => walkFiltered(tree, filter),
    steps: () => stepsOfWalk(tree, filter),
    open: (path) => tree.open(path),
  };
}

/** A directory of this machine, see {@link DiskTree}. */
export function sourceOfDir(
  dir: string,
  filter: FilterOptions = {},
  opts: { readonly plain?: boolean } = {},
): TreeSource {
  return sourceOfTree(new DiskTree(dir, opts), filter);
}

/** One part of {@link joinSources}: a directory's own entry (a single name as path) and what is in it. */
export interface SubSource {
  readonly stat: Stat;
  readonly source: TreeSource;
}

/**
 * Several sources, each in a directory of its own at the top. Absolute links stay inside their part. Throws
 * `invalid_argument` for names that aren't single or come twice.
 */
export function joinSources(parts: readonly SubSource[]): TreeSource {
  const sorted = [...parts].sort((a, b) => comparePaths(a.stat.path, b.stat.path));
  const byName = new Map<string, TreeSource>();
  for (const { stat, source } of sorted) {
    if (
      stat.path === "" ||
      stat.path.includes("/") ||
      stat.path === "." ||
      stat.path === ".." ||
      !isGoDir(stat.mode)
    ) {
      throw new BuildError("invalid_argument", `invalid path ${JSON.stringify(stat.path)}`);
    }
    if (byName.has(stat.path))
      throw new BuildError("invalid_argument", `duplicate path ${JSON.stringify(stat.path)}`);
    byName.set(stat.path, source);
  }
  return {
    *stats() {
      for (const { stat, source } of sorted) {
        yield cloneStat(stat);
        for (const entry of source.stats()) yield moveBelow(entry, stat.path);
      }
    },
    open(path) {
      const slash = path.indexOf("/");
      const source = byName.get(path.slice(0, Math.max(slash, 0)));
      if (slash < 0 || source === undefined) throw new BuildError("not_found", `open ${path}: no such file`);
      return source.open(path.slice(slash + 1));
    },
  };
}

function moveBelow(stat: Stat, dir: string): Stat {
  const out = cloneStat(stat);
  out.path = `${dir}/${stat.path}`;
  if (stat.linkname === "") return out;
  if (!isGoSymlink(stat.mode)) out.linkname = `${dir}/${stat.linkname}`;
  else if (stat.linkname.startsWith("/")) out.linkname = posix.join(`/${dir}`, stat.linkname);
  return out;
}
