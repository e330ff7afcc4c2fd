import { graphemes, isPlainAscii } from "../cty/text.ts";
import type { Pos, Range } from "../diagnostics.ts";

export type JsonTokenType =
  | "{"
  | "}"
  | "["
  | "]"
  | ","
  | ":"
  | "="
  | "keyword"
  | "string"
  | "number"
  | "eof"
  | "invalid";

export interface JsonToken {
  readonly type: JsonTokenType;
  readonly text: string;
  readonly range: Range;
}

const PUNCTUATION = "{}[],:=";
const SPACE = /[ \n\r\t]+/y;
const STRING = /"(?:\\[\s\S]?|[^"\\\x00-\x1f])*"?/y;
const NUMBER = /[-+.0-9][-+.eE0-9]*/y;
const KEYWORD = /[a-zA-Z][a-zA-Z_]*/y;

/** Splits JSON into tokens; stops at the first character that can't be one. The last token is `eof`. */
export function scanJson(text: string, filename: string, start: Pos): JsonToken[] {
  const tokens: JsonToken[] = [];
  let at = 0;
  let pos = start;
  const match = (pattern: RegExp): string => {
    pattern.lastIndex = at;
    return pattern.exec(text)?.[0] ?? "";
  };
  const emit = (type: JsonTokenType, token: string): void => {
    const from = pos;
    pos = { line: pos.line, column: pos.column + columns(token), offset: pos.offset + token.length };
    at += token.length;
    tokens.push({ type, text: token, range: { filename, start: from, end: pos } });
  };
  while (at < text.length) {
    const space = match(SPACE);
    if (space !== "") {
      pos = skip(pos, space);
      at += space.length;
      continue;
    }
    const char = text.charAt(at);
    if (PUNCTUATION.includes(char)) emit(char as JsonTokenType, char);
    else if (char === '"') emit("string", match(STRING));
    else if (/[-+.0-9]/.test(char)) emit("number", match(NUMBER));
    else if (/[a-zA-Z]/.test(char)) emit("keyword", match(KEYWORD));
    else {
      emit("invalid", char);
      break;
    }
  }
  tokens.push({ type: "eof", text: "", range: { filename, start: pos, end: pos } });
  return tokens;
}

function columns(token: string): number {
  return isPlainAscii(token) ? token.length : graphemes(token).length;
}

/** Blanks as HCL counts them: a tab is two columns, a carriage return none. */
function skip(from: Pos, space: string): Pos {
  let { line, column } = from;
  for (const char of space) {
    if (char === "\n") {
      line++;
      column = 1;
    } else if (char === "\t") column += 2;
    else if (char === " ") column++;
  }
  return { line, column, offset: from.offset + space.length };
}
