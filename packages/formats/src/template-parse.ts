import { BuildError } from "@kiln/base";
import { quoteGo } from "./quote.ts";

/** Parts of a parsed template. */
export type Node =
  | { readonly kind: "text"; readonly text: string }
  | { readonly kind: "action"; readonly pipe: Pipe; readonly source: string }
  | {
      readonly kind: "if" | "with" | "range";
      readonly pipe: Pipe;
      readonly source: string;
      readonly body: readonly Node[];
      readonly otherwise: readonly Node[];
    }
  | { readonly kind: "break" | "continue" }
  | { readonly kind: "template"; readonly name: string; readonly pipe: Pipe | undefined };

/** Commands joined by `|`, whose value may go to variables. */
export interface Pipe {
  readonly variables: readonly string[];
  /** `:=` makes the variables, `=` changes them. */
  readonly declares: boolean;
  readonly commands: readonly (readonly Operand[])[];
}

/** One word of a command, with the fields taken of it. */
export interface Operand {
  readonly base:
    | { readonly kind: "dot" }
    | { readonly kind: "variable"; readonly name: string }
    | { readonly kind: "function"; readonly name: string }
    | { readonly kind: "constant"; readonly value: string | number | boolean | null }
    | { readonly kind: "pipe"; readonly pipe: Pipe };
  readonly fields: readonly string[];
}

/** Main body and the bodies of `define` and `block`. */
export interface ParsedTemplate {
  readonly main: readonly Node[];
  readonly defined: ReadonlyMap<string, readonly Node[]>;
}

const MAX_DEPTH = 100;
const TOKEN =
  /\s+|\$\w*(?:\.\w+)*|\.\w+(?:\.\w+)*|\.|:=|=|\||\(|\)(?:\.\w+)*|,|"(?:[^"\\\n]|\\.)*"|`[^`]*`|'(?:[^'\\\n]|\\.)+'|[+-]?\d[\w.]*|[\p{L}_][\p{L}\p{N}_]*|./gu;

interface Token {
  readonly text: string;
  readonly spaced: boolean;
}

/** Parses; throws `invalid_argument` with a text that begins `template: <name>:<line>:`. */
export function parseNodes(source: string, name: string, functions: ReadonlySet<string>): ParsedTemplate {
  return new Parser(source, name, functions).parse();
}

class Parser {
  readonly #source: string;
  readonly #name: string;
  readonly #functions: ReadonlySet<string>;
  readonly #defined = new Map<string, readonly Node[]>();
  #at = 0;
  #trimNext = false;
  #depth = 0;
  #tokens: Token[] = [];
  #token = 0;

  constructor(source: string, name: string, functions: ReadonlySet<string>) {
    this.#source = source;
    this.#name = name;
    this.#functions = functions;
  }

  parse(): ParsedTemplate {
    const { nodes, end } = this.#list();
    if (end !== undefined) throw this.#error(`unexpected {{${end}}}`);
    return { main: nodes, defined: this.#defined };
  }

  #error(message: string): BuildError {
    const line = this.#source.slice(0, this.#at).split("\n").length;
    return new BuildError("invalid_argument", `template: ${this.#name}:${line}: ${message}`);
  }

  /** Reads up to the `end` or `else` that closes the list; `end` is undefined at the end of the text. */
  #list(): { nodes: Node[]; end: string | undefined } {
    if (++this.#depth > MAX_DEPTH) throw this.#error("exceeded max template depth");
    const nodes: Node[] = [];
    for (;;) {
      const open = this.#source.indexOf("{{", this.#at);
      const raw = this.#source.slice(this.#at, open < 0 ? undefined : open);
      let text = this.#trimNext ? raw.replace(/^[ \t\r\n]+/, "") : raw;
      if (open >= 0 && /^-[ \t\r\n]/.test(this.#source.slice(open + 2, open + 4))) {
        text = text.replace(/[ \t\r\n]+$/, "");
      }
      this.#trimNext = false;
      if (text !== "") nodes.push({ kind: "text", text });
      if (open < 0) {
        this.#at = this.#source.length;
        this.#depth--;
        return { nodes, end: undefined };
      }
      const action = this.#action(open);
      if (action === undefined) continue;
      const word = /^(\w+)/.exec(action)?.[1];
      if (word === "end" || word === "else") {
        this.#depth--;
        return { nodes, end: action };
      }
      const node = this.#statement(word, action);
      if (node) nodes.push(node);
    }
  }

  /** Text between the braces; undefined for a comment. Moves behind them. */
  #action(open: number): string | undefined {
    this.#at = open + 2;
    if (/^-[ \t\r\n]/.test(this.#source.slice(this.#at, this.#at + 2))) this.#at++;
    const rest = this.#source.slice(this.#at);
    const comment = /^\s*\/\*/.exec(rest);
    const end = comment ? rest.indexOf("*/") + 2 : endOfAction(rest);
    if (end < 0 || (comment && end < 2)) throw this.#error(comment ? "unclosed comment" : "unclosed action");
    const close = comment ? rest.indexOf("}}", end) : end;
    if (close < 0) throw this.#error("unclosed action");
    let body = rest.slice(0, close);
    if (/[ \t\r\n]-$/.test(body)) {
      body = body.slice(0, -1);
      this.#trimNext = true;
    }
    this.#at += close + 2;
    return comment ? undefined : body.trim();
  }

  #statement(word: string | undefined, action: string): Node | undefined {
    const rest = action.slice(word?.length ?? 0).trim();
    switch (word) {
      case "if":
      case "with":
      case "range":
        return this.#block(word, rest);
      case "break":
      case "continue":
        return { kind: word };
      case "define":
      case "block":
      case "template":
        return this.#named(word, rest);
      default:
        return { kind: "action", pipe: this.#pipe(action), source: action };
    }
  }

  #block(kind: "if" | "with" | "range", source: string): Node {
    const pipe = this.#pipe(source, kind === "range");
    const { nodes: body, end } = this.#list();
    if (end === undefined) throw this.#error("unexpected EOF");
    let otherwise: Node[] = [];
    if (end.startsWith("else")) {
      const chained = /^else\s+(if|with)\s+(.*)$/s.exec(end);
      if (chained) otherwise = [this.#block(chained[1] as "if" | "with", chained[2]!)];
      else {
        const tail = this.#list();
        if (tail.end !== "end")
          throw this.#error(tail.end ? "expected end; found {{else}}" : "unexpected EOF");
        otherwise = tail.nodes;
      }
    }
    return { kind, pipe, source, body, otherwise };
  }

  #named(word: "define" | "block" | "template", rest: string): Node | undefined {
    const match = /^("(?:[^"\\]|\\.)*"|`[^`]*`)\s*(.*)$/s.exec(rest);
    if (!match) throw this.#error(`unexpected ${quoteGo(rest)} in ${word} clause`);
    const name = String(unquote(match[1]!));
    const pipe = match[2] === "" ? undefined : this.#pipe(match[2]!);
    if (word === "template") return { kind: "template", name, pipe };
    const { nodes, end } = this.#list();
    if (end !== "end") throw this.#error("unexpected EOF");
    this.#defined.set(name, nodes);
    return word === "block" ? { kind: "template", name, pipe } : undefined;
  }

  #pipe(source: string, range = false): Pipe {
    const tokens: Token[] = [];
    let spaced = true;
    for (const [text] of source.matchAll(TOKEN)) {
      if (/^\s/.test(text)) spaced = true;
      else {
        tokens.push({ text, spaced });
        spaced = false;
      }
    }
    const before = { tokens: this.#tokens, token: this.#token };
    this.#tokens = tokens;
    this.#token = 0;
    const pipe = this.#pipeline(range);
    if (this.#token < tokens.length) {
      throw this.#error(`unexpected ${quoteGo(tokens[this.#token]!.text)} in operand`);
    }
    this.#tokens = before.tokens;
    this.#token = before.token;
    return pipe;
  }

  #pipeline(range: boolean): Pipe {
    const variables: string[] = [];
    let declares = false;
    const first = this.#tokens[this.#token]?.text ?? "";
    const second = this.#tokens[this.#token + 1]?.text;
    const pair = range && second === ",";
    const assign = pair ? this.#tokens[this.#token + 3]?.text : second;
    if (/^\$\w*$/.test(first) && (assign === ":=" || assign === "=")) {
      variables.push(first);
      if (pair) variables.push(this.#tokens[this.#token + 2]!.text);
      declares = assign === ":=";
      this.#token += pair ? 4 : 2;
    }
    const commands = [this.#command()];
    while (this.#tokens[this.#token]?.text === "|") {
      this.#token++;
      commands.push(this.#command());
    }
    return { variables, declares, commands };
  }

  #command(): Operand[] {
    const operands: Operand[] = [];
    for (;;) {
      const token = this.#tokens[this.#token];
      if (token === undefined || token.text === "|" || token.text.startsWith(")")) break;
      if (!token.spaced && operands.length > 0)
        throw this.#error(`unexpected ${quoteGo(token.text)} in operand`);
      this.#token++;
      operands.push(this.#operand(token.text));
      // What follows an opening parenthesis or a separator needn't be spaced.
    }
    if (operands.length === 0) throw this.#error("missing value for command");
    return operands;
  }

  #operand(text: string): Operand {
    if (text === ".") return { base: { kind: "dot" }, fields: [] };
    if (text.startsWith(".")) return { base: { kind: "dot" }, fields: text.slice(1).split(".") };
    if (text.startsWith("$")) {
      const [name, ...fields] = text.split(".");
      return { base: { kind: "variable", name: name! }, fields };
    }
    if (text === "(") {
      if (++this.#depth > MAX_DEPTH) throw this.#error("max expression depth exceeded");
      const pipe = this.#pipeline(false);
      this.#depth--;
      const close = this.#tokens[this.#token++];
      if (!close?.text.startsWith(")")) throw this.#error("unclosed left paren");
      return { base: { kind: "pipe", pipe }, fields: close.text.split(".").slice(1) };
    }
    if (/^["`'\d+-]/.test(text)) return this.#constant(text);
    if (text === "true" || text === "false") {
      return { base: { kind: "constant", value: text === "true" }, fields: [] };
    }
    if (text === "nil") return { base: { kind: "constant", value: null }, fields: [] };
    if (!/^[\p{L}_]/u.test(text)) throw this.#error(`unexpected ${quoteGo(text)} in command`);
    if (!this.#functions.has(text)) throw this.#error(`function ${quoteGo(text)} not defined`);
    return { base: { kind: "function", name: text }, fields: [] };
  }

  #constant(text: string): Operand {
    const value = unquote(text);
    if (value === undefined) throw this.#error(`bad number syntax: ${quoteGo(text)}`);
    return { base: { kind: "constant", value }, fields: [] };
  }
}

/** Index of the closing `}}` outside quotes; -1 without one. */
function endOfAction(text: string): number {
  const found = /^(?:"(?:[^"\\\n]|\\.)*"|`[^`]*`|(?!\}\}|["`])[\s\S])*\}\}/.exec(text);
  return found ? found[0].length - 2 : -1;
}

const ESCAPES: ReadonlyMap<string, string> = new Map([
  ["a", "\x07"],
  ["b", "\b"],
  ["f", "\f"],
  ["n", "\n"],
  ["r", "\r"],
  ["t", "\t"],
  ["v", "\v"],
]);

/** Value of a Go string, character or number literal. */
function unquote(text: string): string | number | undefined {
  if (text.startsWith("`")) return text.slice(1, -1);
  if (text.startsWith('"') || text.startsWith("'")) {
    const body = text
      .slice(1, -1)
      .replace(
        /\\(?:x([0-9a-f]{2})|u([0-9a-f]{4})|U([0-9a-f]{8})|(.))/gi,
        (_, ...groups: (string | undefined)[]) => {
          const [x, u, long, c] = groups;
          return c === undefined
            ? String.fromCodePoint(Math.min(0x10ffff, Number.parseInt(x ?? u ?? long!, 16)))
            : (ESCAPES.get(c) ?? c);
        },
      );
    return text.startsWith("'") ? body.codePointAt(0) : body;
  }
  const digits = text.replaceAll("_", "");
  const value = Number(digits.replace(/^\+/, ""));
  return Number.isNaN(value) ? undefined : value;
}
