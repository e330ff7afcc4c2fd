import { type Diagnostic, errorAt, type Range } from "../diagnostics.ts";

/** Kinds of tokens. Operators and brackets are named by their text. */
export type TokenType =
  | "{"
  | "}"
  | "["
  | "]"
  | "("
  | ")"
  | "oQuote"
  | "cQuote"
  | "oHeredoc"
  | "cHeredoc"
  | "*"
  | "/"
  | "+"
  | "-"
  | "%"
  | "="
  | "=="
  | "!="
  | "<"
  | "<="
  | ">"
  | ">="
  | "&&"
  | "||"
  | "!"
  | "."
  | ","
  | "::"
  | "..."
  | "=>"
  | "?"
  | ":"
  | "interp"
  | "control"
  | "seqEnd"
  | "quotedLit"
  | "stringLit"
  | "number"
  | "ident"
  | "comment"
  | "newline"
  | "eof"
  | "&"
  | "|"
  | "~"
  | "^"
  | "'"
  | "`"
  | ";"
  | "invalid"
  | "badUtf8"
  | "quotedNewline";

/** One token of the native syntax. */
export interface Token {
  readonly type: TokenType;
  readonly text: string;
  readonly range: Range;
}

const BITWISE = new Map<TokenType, string>([
  ["&", ' Did you mean boolean AND ("&&")?'],
  ["|", ' Did you mean boolean OR ("||")?'],
  ["~", ' Did you mean boolean NOT ("!")?'],
  ["^", ""],
]);

const MAX_BITWISE_COMPLAINTS = 4;
const INVALID = "Invalid character";

/** Complains about tokens that the language doesn't have, each kind a few times at most. */
export function checkInvalidTokens(tokens: readonly Token[]): Diagnostic[] {
  const out: Diagnostic[] = [];
  const told = new Map<TokenType, number>();
  for (const token of tokens) {
    const count = told.get(token.type) ?? 0;
    const complaint = complaintAbout(token, count);
    if (complaint === undefined) continue;
    told.set(token.type, count + 1);
    if (complaint !== null) out.push(complaint);
  }
  return out;
}

/** `null`: the token is wrong, but enough has been said. */
function complaintAbout(token: Token, count: number): Diagnostic | null | undefined {
  const { range } = token;
  const bitwise = BITWISE.get(token.type);
  if (bitwise !== undefined) {
    if (count >= MAX_BITWISE_COMPLAINTS) return null;
    return errorAt("Unsupported operator", `Bitwise operators are not supported.${bitwise}`, range);
  }
  switch (token.type) {
    case "`":
      if (count % 2 !== 0 || count > 2) return null;
      return errorAt(
        INVALID,
        'The "`" character is not valid. To create a multi-line string, use the "heredoc" syntax, like "<<EOT".',
        range,
      );
    case "'":
      if (count % 2 !== 0 || count > 2) return null;
      return errorAt(
        INVALID,
        'Single quotes are not valid. Use double quotes (") to enclose strings.',
        range,
      );
    case ";":
      if (count > 0) return null;
      return errorAt(
        INVALID,
        'The ";" character is not valid. Use newlines to separate arguments and blocks, and commas to separate items in collection values.',
        range,
      );
    case "badUtf8":
      if (count > 0) return null;
      return errorAt(
        "Invalid character encoding",
        "All input files must be UTF-8 encoded. Ensure that UTF-8 encoding is selected in your editor.",
        range,
      );
    case "quotedNewline":
      return errorAt(
        "Invalid multi-line string",
        'Quoted strings may not be split over multiple lines. To produce a multi-line string, either use the \\n escape to represent a newline character or use the "heredoc" multi-line template syntax.',
        range,
      );
    case "invalid":
      if (token.text === "“" || token.text === "”") {
        return errorAt(
          INVALID,
          '"Curly quotes" are not valid here. These can sometimes be inadvertently introduced when sharing code via documents or discussion forums. It might help to replace the character with a "straight quote".',
          range,
        );
      }
      return errorAt(INVALID, "This character is not used within the language.", range);
    default:
      return undefined;
  }
}
