import { graphemes, quote } from "../cty/text.ts";
import { type Pos, type Range, rangeBetween } from "../diagnostics.ts";
import type { TokenReader } from "./reader.ts";
import type { Token } from "./token.ts";

const QUOTED_PIECES =
  /\\u[0-9a-fA-F]{0,4}|\\U[0-9a-fA-F]{0,8}|\\[^uU]?|\$(?:\$\{?)?|%(?:%\{?)?|\r\n|\r|\n|[^\\$%\r\n]+/gsu;
const PLAIN_PIECES = /\$(?:\$\{?)?|%(?:%\{?)?|\r\n|\r|\n|[^$%\r\n]+/gsu;
const SIMPLE_ESCAPES = new Map([
  ["n", "\n"],
  ["r", "\r"],
  ["t", "\t"],
  ['"', '"'],
  ["\\", "\\"],
]);
const INVALID_ESCAPE = "Invalid escape sequence";

/** The text that a literal token stands for. */
export function literalText(token: Token, reader: TokenReader): string {
  const quoted = token.type === "quotedLit";
  if (!/[\\$%]/.test(token.text)) return token.text;
  let out = "";
  let at: Pos = token.range.start;
  for (const [piece] of token.text.matchAll(quoted ? QUOTED_PIECES : PLAIN_PIECES)) {
    const start = at;
    at = advance(at, piece);
    const range = { filename: token.range.filename, start, end: at };
    if (quoted && piece.startsWith("\\")) out += escaped(piece, range, reader);
    else if (piece === "$${" || piece === "%%{") out += piece.slice(1);
    else out += piece;
  }
  return out;
}

function advance(from: Pos, text: string): Pos {
  let { line, column } = from;
  for (const cluster of graphemes(text)) {
    if (cluster.startsWith("\n") || cluster.startsWith("\r")) {
      line++;
      column = 1;
    } else column++;
  }
  return { line, column, offset: from.offset + text.length };
}

function escaped(piece: string, range: Range, reader: TokenReader): string {
  const selector = piece.slice(1);
  if (selector === "") {
    reader.complain(
      INVALID_ESCAPE,
      "Backslash must be followed by an escape sequence selector character.",
      range,
    );
    return piece;
  }
  const simple = SIMPLE_ESCAPES.get(selector);
  if (simple !== undefined) return simple;
  const kind = selector.charAt(0);
  if (kind !== "u" && kind !== "U") {
    reader.complain(
      INVALID_ESCAPE,
      `The symbol ${quote(selector)} is not a valid escape sequence selector.`,
      range,
    );
    return selector;
  }
  if (piece.length !== (kind === "u" ? 6 : 10)) {
    const count = kind === "u" ? "four" : "eight";
    reader.complain(
      INVALID_ESCAPE,
      `The \\${kind} escape sequence must be followed by ${count} hexadecimal digits.`,
      range,
    );
    return piece;
  }
  const code = Number.parseInt(selector.slice(1), 16);
  if (code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff)) {
    const hex = code.toString(16).padStart(4, "0");
    reader.complain(INVALID_ESCAPE, `Cannot encode character U+${hex} in UTF-8.`, range);
    return piece;
  }
  return String.fromCodePoint(code);
}

const INVALID_STRING = "Invalid string literal";

/** Reads a quoted string without sequences, such as a block's label. */
export function quotedString(reader: TokenReader): { readonly text: string; readonly range: Range } {
  const open = reader.read();
  if (open.type !== "oQuote") {
    reader.complain(INVALID_STRING, "A quoted string is required here.", open.range);
    return { text: "", range: open.range };
  }
  let text = "";
  for (;;) {
    const token = reader.read();
    const context = rangeBetween(open.range, token.range);
    switch (token.type) {
      case "cQuote":
        return { text, range: context };
      case "quotedLit":
        text += literalText(token, reader);
        break;
      case "control":
      case "interp": {
        const mark = token.type === "control" ? "%" : "$";
        const detail = `Template sequences are not allowed in this string. To include a literal "${mark}", double it (as "${mark}${mark}") to escape it.`;
        reader.complain(INVALID_STRING, detail, token.range, context);
        text += `${mark}{ ... }`;
        reader.recover("seqEnd");
        break;
      }
      case "eof":
        reader.complain(
          "Unterminated string literal",
          "Unable to find the closing quote mark before the end of the file.",
          token.range,
          context,
        );
        return { text, range: context };
      default:
        reader.complain(INVALID_STRING, "This item is not valid in a string literal.", token.range, context);
        reader.recover("cQuote");
        return { text, range: context };
    }
  }
}
