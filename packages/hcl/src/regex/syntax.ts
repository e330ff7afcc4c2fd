/** A pattern that isn't RE2. `expr` is the part that is wrong. */
export class RegexError extends Error {
  readonly code: string;
  readonly expr: string;

  constructor(code: string, expr: string) {
    super(`error parsing regexp: ${code}: \`${expr}\``);
    this.code = code;
    this.expr = expr;
  }
}

/** True for the characters that a class holds. */
export type CharTest = (code: number) => boolean;

export type RegexNode =
  | { readonly kind: "empty" }
  | { readonly kind: "char"; readonly test: CharTest }
  | { readonly kind: "assert"; readonly what: "start" | "end" | "lineStart" | "lineEnd" | "word" | "notWord" }
  | { readonly kind: "group"; readonly index: number; readonly node: RegexNode }
  | { readonly kind: "sequence" | "choice"; readonly nodes: readonly RegexNode[] }
  | {
      readonly kind: "repeat";
      readonly node: RegexNode;
      readonly min: number;
      readonly max: number;
      readonly greedy: boolean;
    };

interface Flags {
  readonly fold: boolean;
  readonly multiline: boolean;
  readonly dotAll: boolean;
  readonly ungreedy: boolean;
}

const NO_FLAGS: Flags = { fold: false, multiline: false, dotAll: false, ungreedy: false };
const MAX_REPEAT = 1000;
const MAX_DEPTH = 200;

const PERL_CLASSES = new Map<string, CharTest>([
  ["d", (c) => c >= 48 && c <= 57],
  ["s", (c) => c === 32 || c === 9 || c === 10 || c === 12 || c === 13],
  ["w", isWord],
]);

/** A word character for `\w` and `\b`. */
export function isWord(code: number): boolean {
  return (
    (code >= 48 && code <= 57) || (code >= 65 && code <= 90) || (code >= 97 && code <= 122) || code === 95
  );
}

const POSIX_CLASSES = new Map<string, RegExp>([
  ["alnum", /[0-9A-Za-z]/],
  ["alpha", /[A-Za-z]/],
  ["ascii", /[\x00-\x7f]/],
  ["blank", /[\t ]/],
  ["cntrl", /[\x00-\x1f\x7f]/],
  ["digit", /[0-9]/],
  ["graph", /[!-~]/],
  ["lower", /[a-z]/],
  ["print", /[ -~]/],
  ["punct", /[!-/:-@[-`{-~]/],
  ["space", /[\t\n\v\f\r ]/],
  ["upper", /[A-Z]/],
  ["word", /[0-9A-Za-z_]/],
  ["xdigit", /[0-9A-Fa-f]/],
]);

const CONTROL = new Map([
  ["a", 7],
  ["f", 12],
  ["n", 10],
  ["r", 13],
  ["t", 9],
  ["v", 11],
]);

/** What a pattern consists of. */
export interface ParsedRegex {
  readonly node: RegexNode;
  /** Names of the groups, "" for unnamed ones; the whole match isn't among them. */
  readonly groups: readonly string[];
}

/** Parses RE2 syntax. */
export function parseRegex(pattern: string): ParsedRegex {
  const parser = new RegexParser(pattern);
  return { node: parser.parse(), groups: parser.groups };
}

function literal(code: number, fold: boolean): RegexNode {
  if (!fold) return { kind: "char", test: (c) => c === code };
  const variants = foldings(code);
  return { kind: "char", test: (c) => variants.has(c) };
}

function foldings(code: number): ReadonlySet<number> {
  const char = String.fromCodePoint(code);
  const codes = [char, char.toLowerCase(), char.toUpperCase()]
    .filter((text) => [...text].length === 1)
    .map((text) => text.codePointAt(0) ?? code);
  return new Set(codes);
}

class RegexParser {
  readonly #text: string;
  readonly groups: string[] = [];
  #at = 0;
  #flags: Flags = NO_FLAGS;
  #depth = 0;

  constructor(text: string) {
    this.#text = text;
  }

  parse(): RegexNode {
    const node = this.#choice();
    if (this.#at < this.#text.length) throw new RegexError("unexpected )", this.#text);
    return node;
  }

  #looking(at: string): boolean {
    return this.#text.startsWith(at, this.#at);
  }

  #choice(): RegexNode {
    if (++this.#depth > MAX_DEPTH) throw new RegexError("expression nests too deeply", this.#text);
    const nodes = [this.#sequence()];
    while (this.#looking("|")) {
      this.#at++;
      nodes.push(this.#sequence());
    }
    this.#depth--;
    return nodes.length === 1 ? nodes[0]! : { kind: "choice", nodes };
  }

  #sequence(): RegexNode {
    const nodes: RegexNode[] = [];
    while (this.#at < this.#text.length && !this.#looking("|") && !this.#looking(")")) {
      const node = this.#atom();
      if (node !== undefined) nodes.push(this.#repeated(node));
    }
    return nodes.length === 1 ? nodes[0]! : { kind: "sequence", nodes };
  }

  #repeated(atom: RegexNode): RegexNode {
    let node = atom;
    let previous = -1;
    for (;;) {
      const start = this.#at;
      const bounds = this.#bounds();
      if (bounds === undefined) return node;
      let greedy = !this.#flags.ungreedy;
      if (this.#looking("?")) {
        this.#at++;
        greedy = !greedy;
      }
      if (previous >= 0) {
        throw new RegexError("invalid nested repetition operator", this.#text.slice(previous, this.#at));
      }
      previous = start;
      node = { kind: "repeat", node, ...bounds, greedy };
    }
  }

  #bounds(): { min: number; max: number } | undefined {
    const char = this.#text.charAt(this.#at);
    if (char === "*" || char === "+" || char === "?") {
      this.#at++;
      return { min: char === "+" ? 1 : 0, max: char === "?" ? 1 : Number.POSITIVE_INFINITY };
    }
    const match = /^\{(\d+)(,(\d*))?\}/.exec(this.#text.slice(this.#at, this.#at + 24));
    if (match === null) return undefined;
    const min = Number(match[1]);
    const max = match[2] === undefined ? min : match[3] === "" ? Number.POSITIVE_INFINITY : Number(match[3]);
    if (min > MAX_REPEAT || (Number.isFinite(max) && (max > MAX_REPEAT || max < min))) {
      throw new RegexError("invalid repeat count", match[0]);
    }
    this.#at += match[0].length;
    return { min, max };
  }

  #atom(): RegexNode | undefined {
    const char = this.#text.charAt(this.#at);
    switch (char) {
      case "(":
        return this.#group();
      case "[":
        return { kind: "char", test: this.#class() };
      case ".":
        this.#at++;
        return { kind: "char", test: this.#flags.dotAll ? () => true : (c) => c !== 10 };
      case "^":
        this.#at++;
        return { kind: "assert", what: this.#flags.multiline ? "lineStart" : "start" };
      case "$":
        this.#at++;
        return { kind: "assert", what: this.#flags.multiline ? "lineEnd" : "end" };
      case "*":
      case "+":
      case "?":
        throw new RegexError("missing argument to repetition operator", char);
      case "\\":
        return this.#escape();
      default:
        return literal(this.#code(), this.#flags.fold);
    }
  }

  #code(): number {
    const code = this.#text.codePointAt(this.#at) ?? 0;
    this.#at += code > 0xffff ? 2 : 1;
    return code;
  }

  #group(): RegexNode | undefined {
    const outer = this.#flags;
    if (this.#looking("(?")) {
      const named = /^\(\?P?<([^>]*)>/.exec(this.#text.slice(this.#at));
      if (named !== null) return this.#capture(this.#groupName(named[1] ?? "", named[0]), named[0].length);
      if (!this.#setFlags()) return undefined;
      const node = this.#choice();
      this.#close();
      this.#flags = outer;
      return node;
    }
    return this.#capture("", 1);
  }

  #groupName(name: string, written: string): string {
    if (!/^[A-Za-z0-9_]+$/.test(name)) throw new RegexError("invalid named capture", written);
    if (this.groups.includes(name)) throw new RegexError("duplicate capture group name", name);
    return name;
  }

  #capture(name: string, skip: number): RegexNode {
    const outer = this.#flags;
    this.#at += skip;
    this.groups.push(name);
    const index = this.groups.length;
    const node = this.#choice();
    this.#close();
    this.#flags = outer;
    return { kind: "group", index, node };
  }

  #close(): void {
    if (!this.#looking(")")) throw new RegexError("missing closing )", this.#text);
    this.#at++;
  }

  /** `(?flags)` or `(?flags:`; true when a group begins. */
  #setFlags(): boolean {
    const match = /^\(\?([imsU]*)(?:(-)([imsU]+))?([:)])/.exec(this.#text.slice(this.#at));
    if (match === null) {
      if (!this.#text.includes(")", this.#at)) throw new RegexError("missing closing )", this.#text);
      throw new RegexError("invalid or unsupported Perl syntax", this.#text.slice(this.#at, this.#at + 3));
    }
    const on = match[1] ?? "";
    const off = match[3] ?? "";
    const flag = (letter: string, now: boolean): boolean =>
      (on.includes(letter) || now) && !off.includes(letter);
    this.#flags = {
      fold: flag("i", this.#flags.fold),
      multiline: flag("m", this.#flags.multiline),
      dotAll: flag("s", this.#flags.dotAll),
      ungreedy: flag("U", this.#flags.ungreedy),
    };
    this.#at += match[0].length;
    return match[4] === ":";
  }

  #escape(): RegexNode | undefined {
    const next = this.#text.charAt(this.#at + 1);
    const asserts = new Map<string, RegexNode>([
      ["A", { kind: "assert", what: "start" }],
      ["z", { kind: "assert", what: "end" }],
      ["b", { kind: "assert", what: "word" }],
      ["B", { kind: "assert", what: "notWord" }],
    ]);
    const assert = asserts.get(next);
    if (assert !== undefined) {
      this.#at += 2;
      return assert;
    }
    if (next === "Q") return this.#quoted();
    const test = this.#classEscape();
    if (test !== undefined) return { kind: "char", test };
    return literal(this.#escapedCode(), this.#flags.fold);
  }

  #quoted(): RegexNode {
    const end = this.#text.indexOf("\\E", this.#at + 2);
    const quoted = this.#text.slice(this.#at + 2, end < 0 ? undefined : end);
    this.#at = end < 0 ? this.#text.length : end + 2;
    return {
      kind: "sequence",
      nodes: [...quoted].map((char) => literal(char.codePointAt(0) ?? 0, this.#flags.fold)),
    };
  }

  /** `\d`, `\pL` and the like; `undefined` for other escapes. */
  #classEscape(): CharTest | undefined {
    const next = this.#text.charAt(this.#at + 1);
    const perl = PERL_CLASSES.get(next.toLowerCase());
    if (perl !== undefined) {
      this.#at += 2;
      return next === next.toLowerCase() ? perl : (c) => !perl(c);
    }
    if (next !== "p" && next !== "P") return undefined;
    const match = /^\\[pP](?:\{(\^?)([A-Za-z_]+)\}|([A-Za-z]))/.exec(this.#text.slice(this.#at));
    const name = match?.[2] ?? match?.[3] ?? "";
    const range = new RegexError(
      "invalid character class range",
      match?.[0] ?? this.#text.slice(this.#at, this.#at + 2),
    );
    if (match === null) throw range;
    this.#at += match[0].length;
    const property = unicodeProperty(name);
    if (property === undefined) throw range;
    const negated = (next === "P") !== (match[1] === "^");
    return (c) => property.test(String.fromCodePoint(c)) !== negated;
  }

  #escapedCode(): number {
    this.#at++;
    if (this.#at >= this.#text.length) throw new RegexError("trailing backslash at end of expression", "");
    const rest = this.#text.slice(this.#at);
    const numeric = /^(?:x\{([0-9a-fA-F]{1,6})\}|x([0-9a-fA-F]{2})|(0[0-7]{0,2}|[1-7][0-7]{1,2}))/.exec(rest);
    if (numeric !== null) {
      this.#at += numeric[0].length;
      return numeric[3] === undefined
        ? Number.parseInt(numeric[1] ?? numeric[2] ?? "0", 16)
        : Number.parseInt(numeric[3], 8);
    }
    const char = rest.charAt(0);
    const control = CONTROL.get(char);
    if (control !== undefined) {
      this.#at++;
      return control;
    }
    if (/[0-9A-Za-z]/.test(char) || char > "\u007f")
      throw new RegexError("invalid escape sequence", `\\${char}`);
    return this.#code();
  }

  #class(): CharTest {
    const start = this.#at;
    this.#at++;
    const negated = this.#looking("^");
    if (negated) this.#at++;
    const tests: CharTest[] = [];
    let first = true;
    while (first || !this.#looking("]")) {
      if (this.#at >= this.#text.length) throw new RegexError("missing closing ]", this.#text.slice(start));
      first = false;
      tests.push(this.#classItem(start));
    }
    this.#at++;
    const holds = (c: number): boolean => tests.some((test) => test(c));
    const folded = this.#flags.fold ? (c: number): boolean => [...foldings(c)].some(holds) : holds;
    return negated ? (c) => !folded(c) : folded;
  }

  #classItem(start: number): CharTest {
    const posix = /^\[:(\^?)([a-z]+):\]/.exec(this.#text.slice(this.#at));
    if (posix !== null) {
      const test = POSIX_CLASSES.get(posix[2] ?? "");
      if (test === undefined) throw new RegexError("invalid character class range", posix[0]);
      this.#at += posix[0].length;
      const negated = posix[1] === "^";
      return (c) => test.test(String.fromCodePoint(c)) !== negated;
    }
    if (this.#looking("\\")) {
      const test = this.#classEscape();
      if (test !== undefined) return test;
    }
    const from = this.#at;
    const low = this.#classCode(start);
    if (!this.#looking("-") || this.#text.startsWith("-]", this.#at)) return (c) => c === low;
    this.#at++;
    const high = this.#classCode(start);
    if (high < low) throw new RegexError("invalid character class range", this.#text.slice(from, this.#at));
    return (c) => c >= low && c <= high;
  }

  #classCode(start: number): number {
    if (this.#at >= this.#text.length) throw new RegexError("missing closing ]", this.#text.slice(start));
    return this.#looking("\\") ? this.#escapedCode() : this.#code();
  }
}

function unicodeProperty(name: string): RegExp | undefined {
  for (const source of [`\\p{${name}}`, `\\p{Script=${name}}`]) {
    try {
      return new RegExp(`^${source}$`, "u");
    } catch {
      // Not a category; maybe a script.
    }
  }
  return name === "Any" ? /[\s\S]/u : undefined;
}
