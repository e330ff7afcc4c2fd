import { Problem } from "../base/problem.ts";

type Element = { readonly kind: "char"; readonly char: string } | { readonly kind: "any" | "star" };

/** A shell pattern of `${v#p}` and its kin: `*`, `?`, and `\` before `*`, `?`, `\`, `}` and `/`. */
export interface ShellPattern {
  readonly elements: readonly Element[];
  /** Whether `*` takes as much as it can. */
  readonly greedy: boolean;
}

/** Compiles a pattern. Throws a problem for an escape of any other character. */
export function compilePattern(pattern: string, greedy: boolean): ShellPattern {
  const elements: Element[] = [];
  const chars = Array.from(pattern);
  for (let i = 0; i < chars.length; i++) {
    const char = chars[i]!;
    if (char === "*") elements.push({ kind: "star" });
    else if (char === "?") elements.push({ kind: "any" });
    else if (char !== "\\") elements.push({ kind: "char", char });
    else {
      const next = chars[i + 1];
      if (next === "}" || next === "/") continue;
      if (next !== "*" && next !== "?" && next !== "\\") {
        throw new Problem(
          `invalid pattern (${pattern}) in substitution: invalid escape '\\${next ?? "\ufffd"}'`,
        );
      }
      elements.push({ kind: "char", char: next });
      i++;
    }
  }
  return { elements, greedy };
}

/** Start and end of a match, counted in characters. */
export interface PatternMatch {
  readonly start: number;
  readonly end: number;
}

/**
 * The leftmost match in `text` from `from` on, preferring as a backtracking matcher would, in time
 * proportional to text times pattern. `anchored` matches only at `from`.
 */
export function findMatch(
  pattern: ShellPattern,
  text: readonly string[],
  options: { readonly from?: number; readonly anchored?: boolean } = {},
): PatternMatch | undefined {
  const from = options.from ?? 0;
  const machine = new Machine(pattern);
  let threads: Thread[] = [];
  let best: PatternMatch | undefined;
  for (let at = from; at <= text.length; at++) {
    machine.begin();
    const now: Thread[] = [];
    for (const thread of threads) machine.add(now, thread.state, thread.start);
    if (best === undefined && (at === from || !options.anchored)) machine.add(now, 0, at);
    if (now.length === 0 && (best !== undefined || options.anchored)) break;
    threads = [];
    for (const thread of now) {
      if (thread.state === pattern.elements.length) {
        best = { start: thread.start, end: at };
        break;
      }
      const char = text[at];
      if (char !== undefined && machine.takes(thread.state, char)) threads.push(machine.step(thread));
    }
  }
  return best;
}

interface Thread {
  readonly state: number;
  readonly start: number;
}

/** Threads in order of preference; each state is held once. */
class Machine {
  readonly #pattern: ShellPattern;
  readonly #seen: Uint32Array;
  #round = 0;

  constructor(pattern: ShellPattern) {
    this.#pattern = pattern;
    this.#seen = new Uint32Array(pattern.elements.length + 1);
  }

  begin(): void {
    this.#round++;
  }

  add(threads: Thread[], from: number, start: number): void {
    const passed: number[] = [];
    for (let state = from; ; state++) {
      if (this.#seen[state] === this.#round) break;
      this.#seen[state] = this.#round;
      const star = this.#pattern.elements[state]?.kind === "star";
      if (!star || this.#pattern.greedy) threads.push({ state, start });
      else passed.push(state);
      if (!star) break;
    }
    for (const state of passed.reverse()) threads.push({ state, start });
  }

  takes(state: number, char: string): boolean {
    const element = this.#pattern.elements[state]!;
    return element.kind === "char" ? element.char === char : char !== "\n";
  }

  step(thread: Thread): Thread {
    const star = this.#pattern.elements[thread.state]!.kind === "star";
    return star ? thread : { state: thread.state + 1, start: thread.start };
  }
}

/** Removes the shortest or (greedy) longest match from the start of `value`. */
export function trimPrefix(pattern: string, value: string, greedy: boolean): string {
  const chars = Array.from(value);
  const match = findMatch(compilePattern(pattern, greedy), chars, { anchored: true });
  return match === undefined ? value : chars.slice(match.end).join("");
}

/** Removes the shortest or (greedy) longest match from the end of `value`. */
export function trimSuffix(pattern: string, value: string, greedy: boolean): string {
  const chars = Array.from(value).reverse();
  const match = findMatch(compilePattern(reversePattern(pattern), greedy), chars, { anchored: true });
  return match === undefined ? value : chars.slice(match.end).reverse().join("");
}

/** Back to front, with each `\` still before what it escapes. */
function reversePattern(pattern: string): string {
  const chars = Array.from(pattern);
  const out: string[] = [];
  for (let i = 0; i < chars.length; i++) {
    if (chars[i] === "\\" && i + 1 < chars.length) out.push(chars[i]! + chars[++i]!);
    else out.push(chars[i]!);
  }
  return out.reverse().join("");
}

/** Replaces the first match by the text `replacement`, as it is. */
export function replaceFirst(pattern: string, value: string, replacement: string): string {
  const chars = Array.from(value);
  const match = findMatch(compilePattern(pattern, true), chars);
  if (match === undefined) return value;
  return chars.slice(0, match.start).join("") + replacement + chars.slice(match.end).join("");
}

/** Replaces every match; `$0` in the replacement is the match, other `$name` are empty, `$$` is a dollar. */
export function replaceAll(pattern: string, value: string, replacement: string): string {
  const compiled = compilePattern(pattern, true);
  const chars = Array.from(value);
  const out: string[] = [];
  let copied = 0;
  let lastEnd = -1;
  for (let at = 0; at <= chars.length; ) {
    const match = findMatch(compiled, chars, { from: at });
    if (match === undefined) break;
    out.push(chars.slice(copied, match.start).join(""));
    copied = match.end;
    if (match.end > match.start || match.start !== lastEnd) {
      out.push(expandTemplate(replacement, chars.slice(match.start, match.end).join("")));
    }
    lastEnd = match.end;
    if (match.end > at) at = match.end;
    else {
      at++;
    }
  }
  out.push(chars.slice(copied).join(""));
  return out.join("");
}

/** Go's `Regexp.Expand` for an expression without groups. */
function expandTemplate(template: string, whole: string): string {
  if (!template.includes("$")) return template;
  return template.replace(/\$(?:\$|(\w+)|\{(\w+)\}|)/gu, (token: string, bare?: string, braced?: string) => {
    if (token === "$$") return "$";
    const name = bare ?? braced;
    if (name === undefined) return "$";
    return /^0+$/.test(name) ? whole : "";
  });
}
