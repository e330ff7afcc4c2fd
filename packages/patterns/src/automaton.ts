import { badPattern } from "./path-match.ts";

/** Inclusive code point ranges; `negated` turns them round. */
export interface CharSet {
  readonly negated: boolean;
  readonly ranges: readonly (readonly [number, number])[];
}

/**
 * One step of a compiled pattern: exactly one character of a set, any number of them, one or none, or `(.*​/)?`, which is
 * nothing or anything that ends in a slash.
 */
export type Step =
  | { readonly kind: "one" | "many" | "maybe"; readonly set: CharSet; readonly literal?: string | undefined }
  | { readonly kind: "dirs" };

const NOT_NEWLINE: CharSet = { negated: true, ranges: [[10, 10]] };
const NEVER: CharSet = { negated: false, ranges: [] };
const SLASH = 47;

/** Everything, line ends included. */
const ANYTHING: CharSet = { negated: true, ranges: [] };
const MAX_REPEAT = 1000;
const MAX_STEPS = 20_000;

/**
 * Reads the regular expression that moby's pattern compiler makes, in the subset that it can make: literals,
 * escapes, classes, `.*`, `[…]*`, `(.*​/)?`, and what it forgets to escape, `|` and `{n,m}`. Goes through the
 * text once. Each alternative is a list of steps; only the first is bound to the start of the path, only the
 * last to its end.
 */
export function parseRegexp(source: string): Step[][] {
  const chars = Array.from(source);
  const alternatives: Step[][] = [[]];
  let at = 0;
  let total = 0;
  while (at < chars.length) {
    const steps = alternatives.at(-1)!;
    if (chars[at] === "|") {
      at++;
      steps.push({ kind: "many", set: ANYTHING });
      alternatives.push([{ kind: "many", set: ANYTHING }]);
      continue;
    }
    // At the start of an alternative it binds that to the start of the path.
    if (chars[at] === "^" && (steps.length === 0 || chars[at - 1] === "|")) {
      steps.length = 0;
      at++;
      continue;
    }
    const atom = parseAtom(chars, at);
    at = atom.next;
    const repeat = parseRepeat(chars, at);
    if (repeat !== undefined) {
      // RE2 refuses a repetition of a repetition.
      if (atom.step.kind !== "one" || repeat.min > MAX_REPEAT || repeat.max > MAX_REPEAT) throw badPattern();
      at = repeat.next;
      steps.push(...repeated(atom.step, repeat));
    } else steps.push(atom.step);
    total += repeat === undefined ? 1 : Math.max(repeat.min, repeat.max) + 1;
    if (total > MAX_STEPS) throw badPattern();
  }
  return alternatives;
}

function parseAtom(chars: readonly string[], start: number): { readonly step: Step; readonly next: number } {
  const c = chars[start]!;
  // Only `(.*/)?` is ever generated: parentheses of the pattern arrive escaped.
  if (c === "(") return { step: { kind: "dirs" }, next: start + "(.*/)?".length };
  let set: CharSet;
  let literal: string | undefined;
  let next = start + 1;
  if (c === "[") [set, next] = parseClass(chars, start + 1);
  else if (c === "\\") {
    [set, literal] = parseEscape(chars[start + 1]);
    next = start + 2;
  } else if (c === ".") set = NOT_NEWLINE;
  // An anchor inside the text matches nowhere.
  else if (c === "^") set = NEVER;
  else {
    set = single(c);
    literal = c;
  }
  if (chars[next] === "*") return { step: { kind: "many", set }, next: next + 1 };
  return { step: { kind: "one", set, literal }, next };
}

interface Repeat {
  readonly min: number;
  /** -1 for no bound. */
  readonly max: number;
  readonly next: number;
}

/** `{n}`, `{n,}` or `{n,m}`; anything else with a brace is plain text. */
function parseRepeat(chars: readonly string[], at: number): Repeat | undefined {
  if (chars[at] !== "{") return undefined;
  const match = /^\{(\d{1,6})(,(\d{0,6}))?\}/.exec(chars.slice(at, at + 20).join(""));
  if (!match) return undefined;
  const min = Number(match[1]);
  const max = match[2] === undefined ? min : match[3] === "" ? -1 : Number(match[3]);
  if (max >= 0 && max < min) throw badPattern();
  return { min, max, next: at + match[0].length };
}

function repeated(step: Step, repeat: Repeat): Step[] {
  if (step.kind !== "one") return [step];
  const needed = Array.from({ length: repeat.min }, (): Step => step);
  if (repeat.max < 0) return [...needed, { kind: "many", set: step.set }];
  const more = Array.from(
    { length: repeat.max - repeat.min },
    (): Step => ({ kind: "maybe", set: step.set }),
  );
  return [...needed, ...more];
}

function single(c: string): CharSet {
  const code = c.codePointAt(0)!;
  return { negated: false, ranges: [[code, code]] };
}

const CONTROL: ReadonlyMap<string, string> = new Map([
  ["a", "\x07"],
  ["f", "\f"],
  ["n", "\n"],
  ["r", "\r"],
  ["t", "\t"],
  ["v", "\v"],
]);
const DIGIT: [number, number][] = [[48, 57]];
const SPACE: [number, number][] = [
  [9, 10],
  [12, 13],
  [32, 32],
];
const WORD: [number, number][] = [
  [48, 57],
  [65, 90],
  [95, 95],
  [97, 122],
];
const PERL: ReadonlyMap<string, CharSet> = new Map([
  ["d", { negated: false, ranges: DIGIT }],
  ["D", { negated: true, ranges: DIGIT }],
  ["s", { negated: false, ranges: SPACE }],
  ["S", { negated: true, ranges: SPACE }],
  ["w", { negated: false, ranges: WORD }],
  ["W", { negated: true, ranges: WORD }],
]);
const POSIX: ReadonlyMap<string, readonly (readonly [number, number])[]> = new Map([
  [
    "alnum",
    [
      [48, 57],
      [65, 90],
      [97, 122],
    ],
  ],
  [
    "alpha",
    [
      [65, 90],
      [97, 122],
    ],
  ],
  ["ascii", [[0, 127]]],
  [
    "blank",
    [
      [9, 9],
      [32, 32],
    ],
  ],
  [
    "cntrl",
    [
      [0, 31],
      [127, 127],
    ],
  ],
  ["digit", DIGIT],
  ["graph", [[33, 126]]],
  ["lower", [[97, 122]]],
  ["print", [[32, 126]]],
  [
    "punct",
    [
      [33, 47],
      [58, 64],
      [91, 96],
      [123, 126],
    ],
  ],
  [
    "space",
    [
      [9, 13],
      [32, 32],
    ],
  ],
  ["upper", [[65, 90]]],
  ["word", WORD],
  [
    "xdigit",
    [
      [48, 57],
      [65, 70],
      [97, 102],
    ],
  ],
]);

function parseEscape(c: string | undefined): [CharSet, string | undefined] {
  if (c === undefined) throw badPattern();
  const perl = PERL.get(c);
  if (perl) return [perl, undefined];
  const control = CONTROL.get(c);
  if (control) return [single(control), control];
  if (/[A-Za-z0-9]/.test(c) || c.codePointAt(0)! >= 0x80) throw badPattern();
  return [single(c), c];
}

function parseClass(chars: readonly string[], start: number): [CharSet, number] {
  let at = start;
  const negated = chars[at] === "^";
  if (negated) at++;
  const ranges: (readonly [number, number])[] = [];
  let first = true;
  const member = (): number => {
    let c = chars[at++];
    if (c === "\\") {
      const [set, literal] = parseEscape(chars[at++]);
      if (literal === undefined || set.negated) throw badPattern();
      c = literal;
    }
    if (c === undefined) throw badPattern();
    return c.codePointAt(0)!;
  };
  for (; chars[at] !== "]" || first; first = false) {
    const c = chars[at];
    if (c === undefined) throw badPattern();
    if (c === "-" && !first && chars[at + 1] !== "]") throw badPattern();
    if (c === "[" && chars[at + 1] === ":") {
      const end = chars.indexOf(":", at + 2);
      const named =
        end > 0 && chars[end + 1] === "]" ? POSIX.get(chars.slice(at + 2, end).join("")) : undefined;
      if (!named) throw badPattern();
      ranges.push(...named);
      at = end + 2;
      continue;
    }
    const perl = c === "\\" ? PERL.get(chars[at + 1] ?? "") : undefined;
    if (perl) {
      if (perl.negated) ranges.push(...complement(perl.ranges));
      else ranges.push(...perl.ranges);
      at += 2;
      continue;
    }
    const lo = member();
    let hi = lo;
    if (chars[at] === "-" && chars[at + 1] !== "]") {
      at++;
      hi = member();
      if (hi < lo) throw badPattern();
    }
    ranges.push([lo, hi]);
  }
  return [{ negated, ranges }, at + 1];
}

function complement(ranges: readonly (readonly [number, number])[]): [number, number][] {
  const out: [number, number][] = [];
  let from = 0;
  for (const [lo, hi] of ranges) {
    if (lo > from) out.push([from, lo - 1]);
    from = hi + 1;
  }
  out.push([from, 0x10ffff]);
  return out;
}

function contains(set: CharSet, c: number): boolean {
  for (const [lo, hi] of set.ranges) if (c >= lo && c <= hi) return !set.negated;
  return set.negated;
}

/**
 * True when the steps consume all of `path`.
 *
 * Keeps the set of steps that could come next and goes through the path once, so the time is at most
 * steps × characters whatever the pattern (no backtracking).
 */
export function matchSteps(steps: readonly Step[], path: string): boolean {
  const count = steps.length;
  // Two flags per step: waiting in front of it (1), and inside `dirs` having read something (2).
  let now = new Uint8Array(count + 1);
  let next = new Uint8Array(count + 1);
  enter(steps, now, 0);
  for (let i = 0; i < path.length; i++) {
    const c = path.codePointAt(i)!;
    if (c > 0xffff) i++;
    next.fill(0);
    let alive = false;
    for (let s = 0; s < count; s++) {
      if (now[s] === 0) continue;
      const step = steps[s]!;
      if (step.kind === "dirs") {
        if (c === SLASH) enter(steps, next, s + 1);
        else if (c === 10) continue;
        next[s]! |= 2;
      } else if (!contains(step.set, c)) continue;
      else if (step.kind !== "many") enter(steps, next, s + 1);
      else enter(steps, next, s);
      alive = true;
    }
    if (!alive) return false;
    [now, next] = [next, now];
  }
  return now[count] !== 0;
}

/** Marks step `s` and all those that can be reached from it without reading anything. */
function enter(steps: readonly Step[], flags: Uint8Array, s: number): void {
  for (let i = s; ; i++) {
    if ((flags[i]! & 1) !== 0) return;
    flags[i]! |= 1;
    if (i === steps.length || steps[i]!.kind === "one") return;
  }
}
