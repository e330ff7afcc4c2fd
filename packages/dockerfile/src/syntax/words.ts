import { latinFromText, textFromLatin } from "../base/bytes.ts";
import { isSpace } from "../base/go-text.ts";

/** Splits the arguments of ENV, LABEL and ARG into words; quotes and escapes stay in them. */
export function splitWords(text: string, escapeToken: string): string[] {
  const words: string[] = [];
  let word = "";
  let inWord = false;
  let blankOk = false;
  let quote = "";
  const flush = (): void => {
    if (blankOk || word !== "") words.push(word);
    word = "";
    blankOk = false;
  };
  for (let at = 0; at < text.length; at++) {
    let char = text[at]!;
    if (quote === "") {
      if (isSpace(char.charCodeAt(0))) {
        if (inWord) flush();
        inWord = false;
        continue;
      }
      inWord = true;
      if (char === "'" || char === '"') {
        quote = char;
        blankOk = true;
      }
    } else if (char === quote) quote = "";
    const wasQuoted = quote !== "" && char !== quote;
    if (char === escapeToken && !(wasQuoted && quote === "'")) {
      if (at + 1 === text.length) break;
      word += char;
      char = text[++at]!;
    }
    word += char;
  }
  if (inWord) flush();
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
