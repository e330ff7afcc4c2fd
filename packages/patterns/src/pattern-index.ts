import type { Step } from "./automaton.ts";
import { type CompiledPattern, matchesPattern } from "./pattern.ts";

/**
 * Finds the patterns that match a path without trying each.
 *
 * Every pattern is filed under something that a matching path must have: the whole path, a prefix, a suffix
 * (both in tries), one whole path segment, or a substring. Only those found that way are compared in full.
 */
export class PatternIndex {
  readonly #patterns: readonly CompiledPattern[];
  readonly #exact = new Map<string, number[]>();
  readonly #prefixes = newNode();
  readonly #suffixes = newNode();
  readonly #segments = new Map<string, number[]>();
  readonly #substrings: [text: string, index: number][] = [];

  constructor(patterns: readonly CompiledPattern[]) {
    this.#patterns = patterns;
    for (const [index, pattern] of patterns.entries()) this.#file(pattern, index);
  }

  #file(pattern: CompiledPattern, index: number): void {
    switch (pattern.kind) {
      case "exact":
        append(this.#exact, pattern.text, index);
        break;
      case "prefix":
        insert(this.#prefixes, pattern.prefix, index);
        break;
      case "suffix":
        insert(this.#suffixes, reversed(pattern.suffix), index);
        if (pattern.suffix.startsWith("/")) append(this.#exact, pattern.suffix.slice(1), index);
        break;
      case "steps":
        this.#fileSteps(pattern.alternatives, index);
        break;
    }
  }

  #fileSteps(alternatives: readonly (readonly Step[])[], index: number): void {
    const [steps] = alternatives;
    if (steps === undefined || alternatives.length > 1) {
      this.#substrings.push(["", index]);
      return;
    }
    const segment = requiredSegment(steps);
    if (segment !== undefined) {
      append(this.#segments, segment, index);
      return;
    }
    const runs = literalRuns(steps);
    const prefix = runs.find((run) => run.start === 0)?.text ?? "";
    const suffix = runs.find((run) => run.end === steps.length)?.text ?? "";
    if (prefix !== "" && prefix.length >= suffix.length) insert(this.#prefixes, prefix, index);
    else if (suffix !== "") insert(this.#suffixes, reversed(suffix), index);
    else {
      const longest = runs.reduce((best, run) => (run.text.length > best.length ? run.text : best), "");
      this.#substrings.push([longest, index]);
    }
  }

  /** Indexes of all patterns that match `path`, ascending. */
  find(path: string): number[] {
    const candidates = new Set<number>(this.#exact.get(path));
    collect(this.#prefixes, path, 0, candidates);
    collect(this.#suffixes, path, path.length - 1, candidates);
    if (this.#segments.size > 0) {
      for (const segment of path.split("/")) {
        for (const index of this.#segments.get(segment) ?? []) candidates.add(index);
      }
    }
    for (const [text, index] of this.#substrings) if (path.includes(text)) candidates.add(index);
    if (candidates.size === 0) return [];
    const found: number[] = [];
    for (const index of candidates) if (matchesPattern(this.#patterns[index]!, path)) found.push(index);
    return found.length > 1 ? found.sort((a, b) => a - b) : found;
  }
}

interface Run {
  readonly start: number;
  readonly end: number;
  readonly text: string;
}

/** Longest stretches of literal characters, as step positions. */
function literalRuns(steps: readonly Step[]): Run[] {
  const runs: Run[] = [];
  let start = 0;
  let text = "";
  for (let i = 0; i <= steps.length; i++) {
    const step = steps[i];
    const literal = step?.kind === "one" ? step.literal : undefined;
    if (literal !== undefined) {
      if (text === "") start = i;
      text += literal;
    } else if (text !== "") {
      runs.push({ start, end: i, text });
      text = "";
    }
  }
  return runs;
}

/** A path segment that every match contains whole: bounded by `/`, `**​/` or the ends on both sides. */
function requiredSegment(steps: readonly Step[]): string | undefined {
  let best: string | undefined;
  for (const run of literalRuns(steps)) {
    const parts = run.text.split("/");
    const opens = run.start === 0 || steps[run.start - 1]!.kind === "dirs";
    const closes = run.end === steps.length;
    for (const [i, part] of parts.entries()) {
      const bounded = (i > 0 || opens) && (i < parts.length - 1 || closes);
      if (bounded && part !== "" && part.length > (best?.length ?? 0)) best = part;
    }
  }
  return best;
}

interface TrieNode {
  readonly children: Map<number, TrieNode>;
  readonly indexes: number[];
}

function newNode(): TrieNode {
  return { children: new Map(), indexes: [] };
}

function insert(root: TrieNode, text: string, index: number): void {
  let node = root;
  for (let i = 0; i < text.length; i++) {
    const unit = text.charCodeAt(i);
    let child = node.children.get(unit);
    if (!child) {
      child = newNode();
      node.children.set(unit, child);
    }
    node = child;
  }
  node.indexes.push(index);
}

/** Collects along `path` from `start`: forwards from 0, backwards from its end. */
function collect(root: TrieNode, path: string, start: number, into: Set<number>): void {
  const direction = start === 0 ? 1 : -1;
  let node: TrieNode | undefined = root;
  for (let at = start; node; at += direction) {
    for (const index of node.indexes) into.add(index);
    if (at < 0 || at >= path.length) return;
    node = node.children.get(path.charCodeAt(at));
  }
}

function append(map: Map<string, number[]>, key: string, index: number): void {
  const list = map.get(key);
  if (list) list.push(index);
  else map.set(key, [index]);
}

/** By UTF-16 units, as the tries are. */
function reversed(text: string): string {
  return text.split("").reverse().join("");
}
