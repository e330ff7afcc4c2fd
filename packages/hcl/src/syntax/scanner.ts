import { graphemes, isPlainAscii } from "../cty/text.ts";
import type { Pos } from "../diagnostics.ts";
import type { Token, TokenType } from "./token.ts";

/** What the text is: a configuration or expression, or a template without quotes. */
export type ScanMode = "normal" | "template";

const SPACES = /[ \t]+/y;
const NUMBER = /[0-9](?:(?:[0-9.]|[eE][+-]?[0-9])*(?:[0-9]|[eE][+-]?[0-9]))?/y;
const IDENT = /[\p{ID_Start}_][\p{ID_Continue}-]*/uy;
const LINE_COMMENT = /(?:#|\/\/)[^\n]*\n?/y;
const BLOCK_COMMENT = /\/\*[\s\S]*?\*\//y;
const NEWLINE = /\r?\n/y;
const HEREDOC = /<<-?[\p{ID_Start}_][\p{ID_Continue}-]*\r?\n/uy;
const OPERATOR = /\.\.\.|==|!=|>=|<=|&&|\|\||::|=>|[[\]().,*/%+\-=<>!?:&|~^;`']/y;
const QUOTED_TEXT = /(?:\\[^\r\n]|[^\r\n$%"\\])+/uy;
const LINE_TEXT = /[^\r\n$%]+/y;
const ESCAPED_OPEN = /\$\$\{~?|%%\{~?/y;
const OPEN = /[$%]\{~?/y;
const NEWLINES = /[\r\n]+/y;

interface Heredoc {
  readonly marker: string;
  startOfLine: boolean;
}

type State = "main" | "quoted" | "heredoc" | "bare";

/** Splits a text into tokens. Never fails: what doesn't fit becomes `invalid` tokens. The last one is `eof`. */
export function scanTokens(text: string, filename: string, start: Pos, mode: ScanMode): Token[] {
  return new Scanner(text, filename, start).scan(mode);
}

class Scanner {
  readonly #text: string;
  readonly #filename: string;
  readonly #base: number;
  readonly #tokens: Token[] = [];
  readonly #stack: State[] = [];
  readonly #heredocs: Heredoc[] = [];
  /** Brace levels at which a template sequence ends. */
  readonly #sequences: number[] = [];
  #braces = 0;
  #state: State = "main";
  #at = 0;
  #line: number;
  #column: number;
  #counted = 0;

  constructor(text: string, filename: string, start: Pos) {
    const bom = start.offset === 0 && text.startsWith("\ufeff");
    this.#text = bom ? text.slice(1) : text;
    this.#filename = filename;
    this.#base = start.offset + (bom ? 1 : 0);
    this.#line = start.line;
    this.#column = start.column;
  }

  scan(mode: ScanMode): Token[] {
    this.#state = mode === "template" ? "bare" : "main";
    while (this.#at < this.#text.length) {
      this.#step(this.#state);
    }
    this.#emit("eof", 0);
    return this.#tokens;
  }

  #step(state: State): void {
    if (state === "main") this.#main();
    else if (state === "quoted") this.#quoted();
    else if (state === "heredoc") this.#heredoc();
    else this.#bare();
  }

  #match(pattern: RegExp): number {
    pattern.lastIndex = this.#at;
    return pattern.test(this.#text) ? pattern.lastIndex - this.#at : 0;
  }

  #emit(type: TokenType, length: number): void {
    const text = this.#text.slice(this.#at, this.#at + length);
    this.#column += this.#at - this.#counted;
    const start = { line: this.#line, column: this.#column, offset: this.#at + this.#base };
    this.#count(text);
    this.#at += length;
    this.#counted = this.#at;
    const end = { line: this.#line, column: this.#column, offset: this.#at + this.#base };
    this.#tokens.push({ type, text, range: { filename: this.#filename, start, end } });
  }

  #count(text: string): void {
    if (isPlainAscii(text) && !text.includes("\n")) {
      this.#column += text.length;
      return;
    }
    for (const cluster of graphemes(text)) {
      if (cluster === "\n" || cluster === "\r\n") {
        this.#line++;
        this.#column = 1;
      } else this.#column++;
    }
  }

  #push(state: State): void {
    this.#stack.push(this.#state);
    this.#state = state;
  }

  #pop(): void {
    this.#state = this.#stack.pop() ?? "main";
  }

  #main(): void {
    const char = this.#text.charAt(this.#at);
    if (char === " " || char === "\t") {
      this.#at += this.#match(SPACES);
      return;
    }
    if (char === "{") {
      this.#emit("{", 1);
      this.#braces++;
      return;
    }
    if (char === "}") {
      this.#closeBrace("}", 1);
      return;
    }
    if (char === "~" && this.#text.startsWith("~}", this.#at)) {
      this.#closeBrace("seqEnd", 2);
      return;
    }
    if (char === '"') {
      this.#emit("oQuote", 1);
      this.#push("quoted");
      return;
    }
    if (char === "<") {
      const length = this.#match(HEREDOC);
      if (length > 0) {
        this.#openHeredoc(length);
        return;
      }
    }
    this.#simple();
  }

  #simple(): void {
    for (const [pattern, type] of SIMPLE) {
      const length = this.#match(pattern);
      if (length > 0) {
        this.#emit(type, length);
        return;
      }
    }
    const length = this.#match(OPERATOR);
    if (length > 0) {
      this.#emit(this.#text.slice(this.#at, this.#at + length) as TokenType, length);
      return;
    }
    this.#stray();
  }

  /** One character that nothing else took. */
  #stray(): void {
    const code = this.#text.codePointAt(this.#at) ?? 0;
    this.#emit(code === 0xfffd ? "badUtf8" : "invalid", code > 0xffff ? 2 : 1);
  }

  #closeBrace(otherwise: TokenType, length: number): void {
    const ends = this.#sequences.at(-1) === this.#braces && this.#sequences.length > 0;
    this.#emit(ends ? "seqEnd" : otherwise, length);
    this.#braces--;
    if (!ends) return;
    this.#sequences.pop();
    this.#pop();
  }

  #openHeredoc(length: number): void {
    const intro = this.#text.slice(this.#at, this.#at + length);
    this.#emit("oHeredoc", length);
    this.#heredocs.push({ marker: intro.replace(/^<<-?/, "").trimEnd(), startOfLine: true });
    this.#push("heredoc");
  }

  /** Starts `${` or `%{`; true when there is one here. */
  #sequence(): boolean {
    const length = this.#match(OPEN);
    if (length === 0) return false;
    const control = this.#text.charAt(this.#at) === "%";
    this.#emit(control ? "control" : "interp", length);
    this.#braces++;
    this.#sequences.push(this.#braces);
    const heredoc = this.#heredocs.at(-1);
    if (heredoc !== undefined) heredoc.startOfLine = false;
    this.#push("main");
    return true;
  }

  /** Length of literal text at a `$` or `%` that opens nothing; 0 when it does or isn't one. */
  #dollar(): number {
    const escaped = this.#match(ESCAPED_OPEN);
    if (escaped > 0) return escaped;
    const char = this.#text.charAt(this.#at);
    return (char === "$" || char === "%") && this.#text.charAt(this.#at + 1) !== "{" ? 1 : 0;
  }

  #quoted(): void {
    if (this.#sequence()) return;
    if (this.#text.charAt(this.#at) === '"') {
      this.#emit("cQuote", 1);
      this.#pop();
      return;
    }
    const dollar = this.#dollar();
    if (dollar === 1 && this.#at + 1 === this.#text.length) {
      this.#emit("invalid", 1);
      return;
    }
    const length = dollar > 0 ? dollar : this.#match(QUOTED_TEXT);
    if (length > 0) {
      this.#literal("quotedLit", length);
      return;
    }
    const newlines = this.#match(NEWLINES);
    if (newlines > 0) {
      this.#emit("quotedNewline", newlines);
      return;
    }
    this.#stray();
  }

  /** Text, with what couldn't be decoded set apart. */
  #literal(type: TokenType, length: number): void {
    const bad = this.#text.slice(this.#at, this.#at + length).indexOf("\ufffd");
    if (bad < 0) this.#emit(type, length);
    else if (bad > 0) this.#emit(type, bad);
    else this.#emit("badUtf8", 1);
  }

  #heredoc(): void {
    if (this.#sequence()) return;
    const dollar = this.#dollar();
    const length = dollar > 0 ? dollar : this.#match(LINE_TEXT);
    NEWLINE.lastIndex = this.#at + length;
    const newline = NEWLINE.test(this.#text) ? NEWLINE.lastIndex - this.#at - length : 0;
    const heredoc = this.#heredocs.at(-1)!;
    if (newline === 0) {
      if (length === 0) {
        this.#emit("invalid", this.#text.length - this.#at);
        return;
      }
      heredoc.startOfLine = false;
      this.#emit("stringLit", length);
      return;
    }
    if (heredoc.startOfLine && this.#text.slice(this.#at, this.#at + length).trim() === heredoc.marker) {
      this.#emit("cHeredoc", length);
      this.#emit("newline", newline);
      this.#heredocs.pop();
      this.#pop();
      return;
    }
    heredoc.startOfLine = true;
    this.#emit("stringLit", length + newline);
  }

  #bare(): void {
    if (this.#sequence()) return;
    const dollar = this.#dollar();
    const length = dollar > 0 ? dollar : this.#match(LINE_TEXT);
    NEWLINE.lastIndex = this.#at + length;
    const end = NEWLINE.test(this.#text) ? NEWLINE.lastIndex : this.#at + length;
    if (end === this.#at) {
      this.#emit("invalid", this.#text.length - this.#at);
      return;
    }
    this.#emit("stringLit", end - this.#at);
  }
}

const SIMPLE: readonly (readonly [RegExp, TokenType])[] = [
  [IDENT, "ident"],
  [NUMBER, "number"],
  [LINE_COMMENT, "comment"],
  [BLOCK_COMMENT, "comment"],
  [NEWLINE, "newline"],
];
