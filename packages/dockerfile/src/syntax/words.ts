import { latinFromText, textFromLatin } from "../base/bytes.ts";
import { isSpace } from "../base/go-text.ts";

/** Splits the arguments of ENV, LABEL and ARG into words; quotes and escapes stay in them. */
export function splitWords(text: string, escapeToken: string): string[] {
  const words: string[] = [];
  let start = -1;
  let quote = "";
  let at = 0;
  for (; at < text.length; at++) {
    const char = text[at]!;
    if (quote === "" && isSpace(text.charCodeAt(at))) {
      if (start >= 0) words.push(text.slice(start, at));
      start = -1;
      continue;
    }
    if (start < 0) start = at;
    if (char === escapeToken && quote !== "'") {
      // An escape at the end goes; any other takes the next character along.
      if (at + 1 === text.length) break;
      at++;
    } else if (quote === "" && (char === "'" || char === '"')) quote = char;
    else if (char === quote) quote = "";
  }
  if (start >= 0 && at > start) words.push(text.slice(start, at));
  return words;
}

/**
 * Takes the `--flag` words off the start of an instruction's arguments. It works on bytes, so that
 * characters beyond ASCII in flags come out as BuildKit's parser mangles them.
 */
export function splitFlags(text: string, escapeToken: string): { flags: string[]; rest: string } {
  if (!/^[\t\v\f\r \n\u0085\u00a0]*--/.test(text)) return { flags: [], rest: text };
  const line = latinFromText(text);
  const flags: string[] = [];
  for (let at = 0; ; ) {
    while (at < line.length && isSpace(line.charCodeAt(at))) at++;
    if (at === line.length) return { flags, rest: "" };
    if (line[at] !== "-" || line[at + 1] !== "-") return { flags, rest: textFromLatin(line.slice(at)) };
    const { word, end, keep } = flagWord(line, at, escapeToken);
    at = end;
    if (word === "--") return { flags, rest: textFromLatin(line.slice(at)) };
    if (keep) flags.push(word);
  }
}

function flagWord(
  line: string,
  start: number,
  escapeToken: string,
): { word: string; end: number; keep: boolean } {
  let word = "";
  let quote = "";
  let blankOk = false;
  let at = start;
  for (; at < line.length; at++) {
    let char = line[at]!;
    if (quote === "") {
      if (isSpace(char.charCodeAt(0))) break;
      if (char === "'" || char === '"') {
        quote = char;
        blankOk = true;
        continue;
      }
    } else if (char === quote) {
      quote = "";
      continue;
    }
    if (char === escapeToken) {
      if (at + 1 === line.length) continue;
      char = line[++at]!;
    }
    word += char;
  }
  return { word, end: at, keep: blankOk || word !== "" };
}
