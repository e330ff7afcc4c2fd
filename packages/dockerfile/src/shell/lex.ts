import { quoteGo } from "@kiln/formats";
import { isSpace } from "../base/go-text.ts";
import { Problem } from "../base/problem.ts";
import { replaceAll, replaceFirst, trimPrefix, trimSuffix } from "./pattern.ts";

/** Variables that words are expanded with. */
export interface Variables {
  get(name: string): string | undefined;
  keys(): readonly string[];
}

/** No variables. */
export const NO_VARIABLES: Variables = { get: () => undefined, keys: () => [] };

/** How words are read. */
export interface LexOptions {
  /** `\` or a backtick. */
  readonly escapeToken: string;
  /** Keeps quotes in the result. */
  readonly rawQuotes?: boolean | undefined;
  /** Keeps escape characters in the result. */
  readonly rawEscapes?: boolean | undefined;
  /** Takes quotes for ordinary characters. */
  readonly skipQuotes?: boolean | undefined;
  /** Leaves references to unset variables as they are. */
  readonly skipUnset?: boolean | undefined;
}

/** An expanded word. */
export interface Expansion {
  readonly text: string;
  /** The text split at unquoted white space, also at that of values. */
  readonly words: readonly string[];
  /** Names that were looked up and found, or not found. */
  readonly matched: ReadonlySet<string>;
  readonly unmatched: ReadonlySet<string>;
}

const NOTHING: ReadonlySet<string> = new Set();
/** Characters that make a word more than its own text. */
const PLAIN = /^[^$'"\\`<\s\x00\ufeff\u0085\ud800-\udfff]*$/;

/** An expansion, or what is wrong with it; the names that were looked up are known either way. */
export interface TriedExpansion extends Expansion {
  readonly problem?: Problem | undefined;
}

/** Expands a word. Throws a problem `failed to process "<word>": …`. */
export function expand(word: string, variables: Variables, options: LexOptions): Expansion {
  const tried = tryExpand(word, variables, options);
  if (tried.problem !== undefined) throw tried.problem;
  return tried;
}

/** {@link expand} without throwing; the text is empty when there is a problem. */
export function tryExpand(word: string, variables: Variables, options: LexOptions): TriedExpansion {
  if (PLAIN.test(word)) {
    return { text: word, words: word === "" ? [] : [word], matched: NOTHING, unmatched: NOTHING };
  }
  return new WordReader(word, variables, options).run();
}

/** Expansions nest at most so deep; the recursion of the reader must end somewhere. */
const MAX_DEPTH = 1000;
const LETTER = /^\p{L}$/u;
const DIGIT = /^\p{Nd}$/u;
const SPECIAL = "@*#?-$!0";

class WordReader {
  readonly #source: string;
  readonly #word: string;
  readonly #variables: Variables;
  readonly #options: LexOptions;
  readonly #matched = new Set<string>();
  readonly #unmatched = new Set<string>();
  #at = 0;
  #depth = 0;
  /** Shared by all levels, as nested expansions start it anew. */
  #pending: string[] = [];

  constructor(word: string, variables: Variables, options: LexOptions) {
    this.#source = word;
    // A byte order mark at the start is skipped, and what isn't UTF-8 is replaced.
    this.#word = (word.startsWith("\ufeff") ? word.slice(1) : word).toWellFormed();
    this.#variables = variables;
    this.#options = options;
  }

  run(): TriedExpansion {
    const names = { matched: this.#matched, unmatched: this.#unmatched };
    try {
      return { ...this.#until(undefined, this.#options.rawEscapes ?? false), ...names };
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      const problem = new Problem(`failed to process ${quoteGo(this.#source)}: ${error.message}`);
      return { text: "", words: [], ...names, problem };
    }
  }

  #peek(): string | undefined {
    const code = this.#word.codePointAt(this.#at);
    return code === undefined ? undefined : String.fromCodePoint(code);
  }

  #next(): string | undefined {
    const char = this.#peek();
    if (char !== undefined) this.#at += char.length;
    return char;
  }

  /** Reads up to `stop`, which is consumed, or to the end. */
  #until(stop: string | undefined, rawEscapes: boolean): { text: string; words: string[] } {
    if (++this.#depth > MAX_DEPTH) throw new Problem("expansions nested too deeply");
    const result: string[] = [];
    this.#pending = [];
    const words = new Splitter(() => this.#pending);
    for (let char = this.#peek(); char !== undefined; char = this.#peek()) {
      if (char === stop) {
        this.#next();
        this.#depth--;
        return { text: result.join(""), words: words.finish() };
      }
      const special = this.#special(char, rawEscapes);
      if (special !== undefined) {
        result.push(special);
        if (char === "$") words.addText(special);
        else words.addRaw(special);
        continue;
      }
      this.#next();
      if (char !== this.#options.escapeToken) {
        words.addChar(char);
        result.push(char);
        continue;
      }
      if (rawEscapes) {
        words.addRaw(char);
        result.push(char);
      }
      const escaped = this.#next();
      if (escaped === undefined) break;
      words.addRaw(escaped);
      result.push(escaped);
    }
    this.#depth--;
    if (stop !== undefined) {
      throw new Problem(`unexpected end of statement while looking for matching ${stop}`);
    }
    return { text: result.join(""), words: words.finish() };
  }

  #special(char: string, rawEscapes: boolean): string | undefined {
    if (char === "$") return this.#dollar();
    if (char === "<") return this.#lessThan();
    if (this.#options.skipQuotes) return undefined;
    if (char === "'") return this.#singleQuoted();
    return char === '"' ? this.#doubleQuoted(rawEscapes) : undefined;
  }

  #singleQuoted(): string {
    const end = this.#word.indexOf("'", this.#at + 1);
    if (end < 0) {
      this.#at = this.#word.length;
      throw new Problem("unexpected end of statement while looking for matching single-quote");
    }
    const raw = this.#options.rawQuotes
      ? this.#word.slice(this.#at, end + 1)
      : this.#word.slice(this.#at + 1, end);
    this.#at = end + 1;
    return raw;
  }

  #doubleQuoted(rawEscapes: boolean): string {
    const { escapeToken, rawQuotes } = this.#options;
    const result: string[] = [];
    this.#next();
    if (rawQuotes) result.push('"');
    for (;;) {
      const char = this.#peek();
      if (char === undefined) {
        throw new Problem("unexpected end of statement while looking for matching double-quote");
      }
      if (char === "$") {
        result.push(this.#dollar());
        continue;
      }
      this.#next();
      if (char === '"') {
        if (rawQuotes) result.push('"');
        return result.join("");
      }
      if (char !== escapeToken) {
        result.push(char);
        continue;
      }
      if (rawEscapes) result.push(char);
      const escaped = this.#peek();
      if (escaped === undefined) continue;
      if (escaped === '"' || escaped === "$" || escaped === escapeToken) result.push(this.#next()!);
      else result.push(char);
    }
  }

  #lessThan(): string {
    this.#next();
    if (this.#peek() !== "<") return "<";
    this.#next();
    let space = "";
    for (let char = this.#peek(); char === "\t" || char === "\r" || char === " "; char = this.#peek()) {
      space += this.#next()!;
    }
    return `<<${space}`;
  }

  #dollar(): string {
    this.#next();
    if (this.#peek() !== "{") {
      const name = this.#name();
      if (name === "") return "$";
      const value = this.#lookUp(name);
      return value === undefined && this.#options.skipUnset ? `$${name}` : (value ?? "");
    }
    this.#next();
    const first = this.#peek();
    if (first === undefined) throw new Problem("syntax error: missing '}'");
    if (first === "{" || first === "}" || first === ":") throw new Problem("syntax error: bad substitution");
    return this.#braced(this.#name());
  }

  #braced(name: string): string {
    const operator = this.#next();
    switch (operator) {
      case "}": {
        const value = this.#lookUp(name);
        return value === undefined && this.#options.skipUnset ? `\${${name}}` : (value ?? "");
      }
      case ":": {
        const modifier = this.#next();
        if (modifier === "#" || modifier === "%") throw unsupported(`:${modifier}`);
        return this.#modified(name, modifier, true);
      }
      case "+":
      case "-":
      case "?":
      case "#":
      case "%":
        return this.#modified(name, operator, false);
      case "/":
        return this.#replaced(name);
      default:
        // What comes after the end reads as U+FFFD.
        throw unsupported(operator ?? "\ufffd");
    }
  }

  #modified(name: string, modifier: string | undefined, nullIsUnset: boolean): string {
    const word = this.#operand("}", modifier === "#" || modifier === "%", "syntax error: missing '}'");
    const value = this.#lookUp(name);
    const chars = `${nullIsUnset ? ":" : ""}${modifier ?? "\ufffd"}`;
    if (this.#options.skipUnset && value === undefined) return `\${${name}${chars}${word}}`;
    const missing = value === undefined || (nullIsUnset && value === "");
    switch (modifier) {
      case "-":
        return missing ? word : value;
      case "+":
        return missing ? "" : word;
      case "?":
        if (!missing) return value;
        throw new Problem(
          `${name}: ${word !== "" ? word : `is not allowed to be ${value === undefined ? "unset" : "empty"}`}`,
        );
      case "%":
      case "#": {
        const greedy = word.startsWith(modifier);
        const pattern = greedy ? word.slice(1) : word;
        return modifier === "%"
          ? trimSuffix(pattern, value ?? "", greedy)
          : trimPrefix(pattern, value ?? "", greedy);
      }
      default:
        throw unsupported(chars);
    }
  }

  #replaced(name: string): string {
    const all = this.#peek() === "/";
    if (all) this.#next();
    const pattern = this.#operand("/", true, `syntax error: missing '/' in \${}`);
    const replacement = this.#operand("}", true, "syntax error: missing '}'");
    const value = this.#lookUp(name);
    if (this.#options.skipUnset && value === undefined) return `\${${name}/${pattern}/${replacement}}`;
    return (all ? replaceAll : replaceFirst)(pattern, value ?? "", replacement);
  }

  #operand(stop: string, rawEscapes: boolean, missing: string): string {
    try {
      return this.#until(stop, rawEscapes).text;
    } catch (error) {
      if (error instanceof Problem && this.#at >= this.#word.length) throw new Problem(missing);
      throw error;
    }
  }

  #name(): string {
    const start = this.#at;
    let char = this.#peek();
    if (char !== undefined && DIGIT.test(char)) {
      for (; char !== undefined && DIGIT.test(char); char = this.#peek()) this.#next();
      return this.#word.slice(start, this.#at);
    }
    if (char !== undefined && SPECIAL.includes(char)) return this.#next()!;
    for (; char !== undefined && isNameChar(char); char = this.#peek()) this.#next();
    return this.#word.slice(start, this.#at);
  }

  #lookUp(name: string): string | undefined {
    const value = this.#variables.get(name);
    (value === undefined ? this.#unmatched : this.#matched).add(name);
    return value;
  }
}

function isNameChar(char: string): boolean {
  if (char.charCodeAt(0) < 0x80) return /^\w$/.test(char);
  return LETTER.test(char) || DIGIT.test(char);
}

function unsupported(modifier: string): Problem {
  return new Problem(`unsupported modifier (${modifier}) in substitution`);
}

/** Collects words; `pending` is the shared buffer of the word in progress. */
class Splitter {
  readonly #pending: () => string[];
  readonly #words: string[] = [];
  #inWord = false;

  constructor(pending: () => string[]) {
    this.#pending = pending;
  }

  addChar(char: string): void {
    if (!isSpace(char.charCodeAt(0))) this.addRaw(char);
    else if (this.#inWord) this.#flush();
  }

  addRaw(text: string): void {
    if (text !== "") this.#pending().push(text);
    this.#inWord = true;
  }

  addText(text: string): void {
    for (const char of text) this.addChar(char);
  }

  finish(): string[] {
    this.#flush();
    return this.#words;
  }

  #flush(): void {
    const pending = this.#pending();
    if (pending.length === 0) return;
    this.#words.push(pending.join(""));
    pending.length = 0;
    this.#inWord = false;
  }
}
