import { type MatchInfo, PatternMatcher } from "@kiln/patterns";
import { isErrno } from "@kiln/sys";
import { dropCovered, followLinks } from "./follow-links.ts";
import { isGoDir, isGoSymlink } from "./mode.ts";
import type { SeenInodes, Stat } from "./stat.ts";
import type { FileTree, TreeEntry } from "./tree.ts";

/** What a map function decides: send the entry, leave it out, or leave out all below it too. */
export type MapResult = "keep" | "exclude" | "skipDir";

/** Which part of a tree to walk. Patterns are those of `.dockerignore`. */
export interface FilterOptions {
  /** Only what matches one of these, with the directories above. */
  readonly include?: readonly string[] | undefined;
  /** Nothing that matches these. */
  readonly exclude?: readonly string[] | undefined;
  /** Paths that are added to `include` with the links on their way. */
  readonly followPaths?: readonly string[] | undefined;
  /** May change each entry's stat, and decides about it. */
  readonly map?: ((path: string, stat: Stat) => MapResult) | undefined;
}

interface Level {
  readonly path: string;
  readonly entry: TreeEntry | undefined;
  readonly entries: Iterator<TreeEntry>;
  readonly include: MatchInfo | undefined;
  readonly exclude: MatchInfo | undefined;
  /** The directory itself was sent; one that wasn't may be unreadable. */
  emitted: boolean;
  skip: boolean;
}

/** Walks a tree, filtered, in fsutil's order, with the hard links put right for what is left. */
export function* walkFiltered(tree: FileTree, opts: FilterOptions = {}): Generator<Stat, void, undefined> {
  for (const stat of stepsOfWalk(tree, opts)) if (stat !== undefined) yield stat;
}

/** The same, with undefined now and then where much is left out, so that the caller can let others work. */
export function stepsOfWalk(
  tree: FileTree,
  opts: FilterOptions = {},
): Generator<Stat | undefined, void, undefined> {
  return resetHardLinks(new FilteredWalk(tree, opts).walk());
}

/** Entries that are looked at without result before a walk shows that it is still there. */
const entriesPerStep = 256;

class FilteredWalk {
  readonly #tree: FileTree;
  readonly #include: PatternMatcher | undefined;
  readonly #exclude: PatternMatcher | undefined;
  readonly #includePrefixes: readonly string[] | undefined;
  readonly #excludePrefixes: readonly string[] | undefined;
  readonly #map: FilterOptions["map"];
  readonly #stack: Level[] = [];
  readonly #seen: SeenInodes = new Map();

  constructor(tree: FileTree, opts: FilterOptions) {
    this.#tree = tree;
    this.#map = opts.map;
    const include = includePatterns(tree, opts);
    if (include.length > 0) {
      this.#include = new PatternMatcher(include);
      this.#includePrefixes = prefixesOf(this.#include, false);
    }
    if (opts.exclude && opts.exclude.length > 0) {
      this.#exclude = new PatternMatcher(opts.exclude);
      this.#excludePrefixes = prefixesOf(this.#exclude, true);
    }
  }

  *walk(): Generator<Stat | undefined, void, undefined> {
    this.#push(undefined, undefined, undefined, true);
    for (let looked = 0; this.#stack.length > 0; looked++) {
      if (looked % entriesPerStep === entriesPerStep - 1) yield undefined;
      const level = this.#stack.at(-1) as Level;
      const next = level.skip ? undefined : level.entries.next();
      if (next === undefined || next.done) this.#stack.pop();
      else yield* this.#visit(next.value, level);
    }
  }

  #push(
    entry: TreeEntry | undefined,
    include: MatchInfo | undefined,
    exclude: MatchInfo | undefined,
    emitted: boolean,
  ): void {
    const path = entry?.path ?? "";
    let entries: readonly TreeEntry[];
    try {
      entries = this.#tree.list(path);
    } catch (error) {
      if (emitted || !isErrno(error, "EACCES", "EPERM")) throw error;
      return;
    }
    this.#stack.push({
      path,
      entry,
      entries: entries[Symbol.iterator](),
      include,
      exclude,
      emitted,
      skip: false,
    });
  }

  *#visit(entry: TreeEntry, level: Level): Generator<Stat, void, undefined> {
    const { path, isDir } = entry;
    const include = this.#include?.next(path, level.include ?? { matched: [] });
    const exclude = this.#exclude?.next(path, level.exclude ?? { matched: [] });
    if (include && !include.matched && isDir && noneBelow(path, this.#includePrefixes)) return;
    if (exclude?.matched && isDir) {
      if (!this.#exclude?.hasExclusions || noneBelow(path, this.#excludePrefixes)) return;
    }
    const wanted = (include?.matched ?? true) && !exclude?.matched;
    let emitted = false;
    if (wanted) {
      const stat = entry.stat(this.#seen);
      if (stat === undefined) return;
      const result = this.#map?.(path, stat) ?? "keep";
      if (result === "skipDir") return;
      if (result === "keep") {
        if (!(yield* this.#emitParents())) return;
        yield stat;
      }
      emitted = true;
    }
    if (isDir) this.#push(entry, include?.info, exclude?.info, emitted);
  }

  /** Sends directories above that weren't wanted for themselves; false when one is refused. */
  *#emitParents(): Generator<Stat, boolean, undefined> {
    for (const level of this.#stack) {
      if (level.emitted) continue;
      const stat = level.entry?.stat(this.#seen);
      if (stat === undefined) return false;
      const result = this.#map?.(level.path, stat) ?? "keep";
      if (result === "skipDir") {
        level.skip = true;
        return false;
      }
      if (result === "exclude") continue;
      level.emitted = true;
      yield stat;
    }
    return true;
  }
}

function includePatterns(tree: FileTree, opts: FilterOptions): readonly string[] {
  const include = opts.include ?? [];
  if (!opts.followPaths || opts.followPaths.length === 0) return include;
  const targets = followLinks(tree, opts.followPaths);
  if (targets === undefined) return include;
  return dropCovered([...include, ...targets]) ?? [];
}

/**
 * When all patterns (of the kind that can select something below a directory) are plain paths: those paths.
 * Directories that none of them leads into need no walk.
 */
function prefixesOf(matcher: PatternMatcher, exclusions: boolean): readonly string[] | undefined {
  const out: string[] = [];
  for (const pattern of matcher.patterns) {
    if (pattern.exclusion !== exclusions) continue;
    const text = pattern.text.replace(/\/\*\*$/, "").replace(/\/\*$/, "");
    if (/[*[\]?^\\]/.test(text)) return undefined;
    out.push(`${text}/`);
  }
  return out;
}

function noneBelow(dir: string, prefixes: readonly string[] | undefined): boolean {
  if (prefixes === undefined) return false;
  const prefix = `${dir}/`;
  return !prefixes.some((p) => p.startsWith(prefix));
}

/**
 * Makes hard links whole again after filtering: the first file that is left of a set becomes the one with the
 * contents, the others link to it.
 */
export function* resetHardLinks<T extends Stat | undefined>(
  stats: Iterable<T>,
): Generator<T, void, undefined> {
  const sent = new Map<string, string>();
  for (const stat of stats) {
    if (stat !== undefined && !isGoDir(stat.mode) && !isGoSymlink(stat.mode)) {
      if (stat.linkname !== "") {
        const first = sent.get(stat.linkname);
        if (first === undefined) {
          sent.set(stat.linkname, stat.path);
          stat.linkname = "";
        } else stat.linkname = first;
      }
      sent.set(stat.path, stat.path);
    }
    yield stat;
  }
}
