import { type Diagnostic, errorAt, type Range } from "../diagnostics.ts";
import type { Node } from "./nodes.ts";
import type { Token, TokenType } from "./token.ts";

/** Deepest nesting of expressions, templates and blocks. */
const MAX_NESTING = 200;

/** Thrown when a text is nested too deeply to be parsed. */
export class NestingError extends Error {}

const OPPOSITES = new Map<TokenType, TokenType>([
  ["{", "}"],
  ["[", "]"],
  ["(", ")"],
  ["oQuote", "cQuote"],
  ["oHeredoc", "cHeredoc"],
  ["}", "{"],
  ["]", "["],
  [")", "("],
  ["cQuote", "oQuote"],
  ["cHeredoc", "oHeredoc"],
  ["control", "seqEnd"],
  ["interp", "seqEnd"],
  ["seqEnd", "interp"],
]);

/** The bracket that belongs to another. */
export function oppositeBracket(type: TokenType): TokenType | undefined {
  return OPPOSITES.get(type);
}

/** Hands out tokens, keeps the problems found, and finds its way again after one. */
export class TokenReader {
  readonly #tokens: readonly Token[];
  readonly #newlines: boolean[] = [true];
  readonly #parse: (reader: TokenReader) => Node;
  #next = 0;
  #depth = 0;
  /** After a problem: what follows from it isn't worth a complaint. */
  recovery = false;
  readonly diagnostics: Diagnostic[] = [];

  constructor(tokens: readonly Token[], parseExpression: (reader: TokenReader) => Node) {
    this.#tokens = tokens;
    this.#parse = parseExpression;
  }

  /** Parses an expression here; `failed` when there were problems that derailed the parser. */
  expression(): { readonly node: Node; readonly failed: boolean } {
    const before = this.diagnostics.length;
    const node = this.nested(() => this.#parse(this));
    return { node, failed: this.recovery && this.diagnostics.length > before };
  }

  /** Runs `parse` one level deeper. */
  nested<T>(parse: () => T): T {
    if (++this.#depth > MAX_NESTING) throw new NestingError("nesting too deep");
    try {
      return parse();
    } finally {
      this.#depth--;
    }
  }

  complain(summary: string, detail: string, subject: Range, context?: Range): void {
    this.diagnostics.push(errorAt(summary, detail, subject, context));
  }

  peek(): Token {
    return this.#find().token;
  }

  read(): Token {
    const { token, next } = this.#find();
    this.#next = next;
    return token;
  }

  /** True when the next token is this word. */
  atWord(word: string): boolean {
    const token = this.peek();
    return token.type === "ident" && token.text === word;
  }

  get previousRange(): Range {
    return this.#next === 0 ? this.peek().range : this.#tokens[this.#next - 1]!.range;
  }

  #find(): { readonly token: Token; readonly next: number } {
    const newlines = this.#newlines.at(-1) === true;
    for (let i = this.#next; i < this.#tokens.length; i++) {
      const token = this.#tokens[i]!;
      if (token.type === "comment") {
        if (newlines && token.text.endsWith("\n")) {
          return { token: { type: "newline", text: "\n", range: token.range }, next: i + 1 };
        }
        continue;
      }
      if (token.type === "newline" && !newlines) continue;
      return { token, next: i + 1 };
    }
    return { token: this.#tokens.at(-1)!, next: this.#tokens.length };
  }

  pushNewlines(significant: boolean): void {
    this.#newlines.push(significant);
  }

  popNewlines(): void {
    this.#newlines.pop();
  }

  /** Skips to the closing bracket of the level at hand and returns it (or the end of the file). */
  recover(end: TokenType): Token {
    const open = oppositeBracket(end);
    this.recovery = true;
    let nesting = 0;
    for (;;) {
      const token = this.read();
      const type = end === "seqEnd" && token.type === "control" ? "interp" : token.type;
      if (type === end) {
        if (nesting < 1) return token;
        nesting--;
      } else if (type === open) nesting++;
      else if (type === "eof") return token;
    }
  }

  /** Skips past a pair of brackets that opens somewhere ahead. */
  recoverOver(open: TokenType): void {
    for (;;) {
      const { type } = this.read();
      if (type === open || type === "eof") break;
    }
    this.recover(oppositeBracket(open) ?? "eof");
  }

  /** Skips to the end of the line on which the item at hand ends. */
  recoverAfterItem(): void {
    this.recovery = true;
    const open: TokenType[] = [];
    const close = (matches: (type: TokenType) => boolean): void => {
      while (open.length > 0 && !matches(open.at(-1)!)) open.pop();
      open.pop();
    };
    for (;;) {
      const { type } = this.read();
      if (type === "eof" || (type === "newline" && open.length === 0)) return;
      if (["{", "[", "(", "oQuote", "oHeredoc", "interp", "control"].includes(type)) open.push(type);
      else if (type === "seqEnd") close((other) => other === "interp" || other === "control");
      else if (["}", "]", ")", "cQuote", "cHeredoc"].includes(type))
        close((other) => other === oppositeBracket(type));
    }
  }
}
