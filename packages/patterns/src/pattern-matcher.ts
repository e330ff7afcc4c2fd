import { BuildError } from "@kiln/base";
import { cleanPath, trimSpace } from "./clean.ts";
import { matchPath } from "./path-match.ts";
import { type CompiledPattern, compilePattern } from "./pattern.ts";
import { PatternIndex } from "./pattern-index.ts";

/** One pattern of a matcher, cleaned. */
export interface Pattern {
  /** Without its `!`. */
  readonly text: string;
  /** True when it was written with `!`. */
  readonly exclusion: boolean;
  /** Number of path segments. */
  readonly depth: number;
}

/** What a walker keeps of a directory and passes on for each entry in it. */
export interface MatchInfo {
  /** Indexes of the patterns that counted for the directory or above it, ascending. */
  readonly matched: readonly number[];
}

/**
 * Matches slash-separated relative paths against `.dockerignore` patterns, as moby/patternmatcher does: the
 * last pattern that matches wins, `!` turns a match off, and a pattern that matches a directory matches what
 * is below it.
 *
 * Matching takes time in proportion to the path, not to the number of patterns, and no pattern can make it
 * more than pattern × path.
 */
export class PatternMatcher {
  readonly patterns: readonly Pattern[];
  /** True when some pattern begins with `!`. */
  readonly hasExclusions: boolean;
  readonly #index: PatternIndex;

  /** Throws `invalid_argument` for a malformed pattern. Empty ones are skipped. */
  constructor(patterns: readonly string[]) {
    const read: Pattern[] = [];
    const compiled: CompiledPattern[] = [];
    for (const raw of patterns) {
      const trimmed = trimSpace(raw);
      if (trimmed === "") continue;
      const cleaned = cleanPath(trimmed);
      const exclusion = cleaned.startsWith("!");
      if (cleaned === "!") throw new BuildError("invalid_argument", 'illegal exclusion pattern: "!"');
      const text = exclusion ? cleaned.slice(1) : cleaned;
      matchPath(text, ".");
      read.push({ text, exclusion, depth: text.split("/").length });
      compiled.push(compilePattern(text));
    }
    this.patterns = read;
    this.hasExclusions = read.some((pattern) => pattern.exclusion);
    this.#index = new PatternIndex(compiled);
  }

  /** True when the path, or a directory above it, is matched. For single paths; walkers use {@link next}. */
  matchesOrParentMatches(path: string): boolean {
    return this.#decide([], this.#withParents(path)).matched;
  }

  /**
   * moby's `Matches`: a pattern also matches below the directory that has its number of segments, but not
   * below others.
   */
  matches(path: string): boolean {
    const found = new Set(this.#index.find(path));
    for (const [depth, parent] of parentsOf(path).entries()) {
      for (const i of this.#index.find(parent)) if (this.patterns[i]!.depth === depth + 1) found.add(i);
    }
    return this.#decide(
      [],
      [...found].sort((a, b) => a - b),
    ).matched;
  }

  /**
   * The decision for one path from that for its directory (moby's `MatchesUsingParentResults`). Without
   * `parent`, all directories above are looked at. Pass the returned `info` on for entries below.
   */
  next(path: string, parent?: MatchInfo): { readonly matched: boolean; readonly info: MatchInfo } {
    const own = parent === undefined ? this.#withParents(path) : this.#index.find(path);
    return this.#decide(parent?.matched ?? [], own);
  }

  /** Index in {@link patterns} of the one that decided about `path`; undefined when none matched. */
  decidedBy(path: string): number | undefined {
    return this.#decide([], this.#withParents(path)).info.matched.at(-1);
  }

  #withParents(path: string): number[] {
    const found = new Set(this.#index.find(path));
    for (const parent of parentsOf(path)) for (const i of this.#index.find(parent)) found.add(i);
    return [...found].sort((a, b) => a - b);
  }

  /** Goes through both ascending lists in step; patterns that would change nothing don't count. */
  #decide(inherited: readonly number[], own: readonly number[]): { matched: boolean; info: MatchInfo } {
    const counted: number[] = [];
    let matched = false;
    let a = 0;
    let b = 0;
    while (a < inherited.length || b < own.length) {
      const x = inherited[a] ?? Number.POSITIVE_INFINITY;
      const y = own[b] ?? Number.POSITIVE_INFINITY;
      const index = Math.min(x, y);
      if (x === index) a++;
      if (y === index) b++;
      const { exclusion } = this.patterns[index]!;
      if (x !== index && exclusion !== matched) continue;
      counted.push(index);
      matched = !exclusion;
    }
    return { matched, info: { matched: counted } };
  }
}

/** `a/b/c` gives `a`, `a/b`. */
function parentsOf(path: string): string[] {
  const parents: string[] = [];
  for (let at = path.indexOf("/"); at >= 0; at = path.indexOf("/", at + 1)) parents.push(path.slice(0, at));
  return parents;
}

/** True when `path` or a directory above it is matched by `patterns`; `.` never is. */
export function matchesOrParentMatches(path: string, patterns: readonly string[]): boolean {
  const matcher = new PatternMatcher(patterns);
  const cleaned = cleanPath(path);
  return cleaned !== "." && matcher.matchesOrParentMatches(cleaned);
}
