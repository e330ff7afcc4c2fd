import type { InstructionNode } from "../syntax/node.ts";

/** A replacement of `text.slice(start, end)`. */
export interface Edit {
  readonly start: number;
  readonly end: number;
  readonly text: string;
  readonly rule: string;
}

/** A piece of the file. */
export interface Span {
  readonly start: number;
  readonly end: number;
}

/** A word of an instruction. */
export interface Word extends Span {
  readonly text: string;
}

/** Where an instruction stands in the file. */
export interface InstructionText {
  readonly node: InstructionNode;
  readonly keyword: Span;
  /** Everything behind the keyword, up to the end of the last line without its line end. */
  readonly body: Span;
  /** The body when it is on one line; undefined with continuation lines or heredocs. */
  readonly line: string | undefined;
  /** Words behind the flags, also across continuation lines. */
  words(): Word[];
}

interface Where {
  readonly node: InstructionNode;
  readonly escapeToken: string;
}

/** Finds an instruction in the file. */
export function textOf(
  text: string,
  starts: readonly number[],
  { node, escapeToken }: Where,
): InstructionText {
  let start = starts[node.startLine - 1]!;
  if (text.startsWith("\ufeff", start)) start++;
  const at = text.indexOf(node.keyword, start);
  const keyword = { start: at, end: at + node.keyword.length };
  const next = starts[node.endLine];
  let end = next === undefined ? text.length : next;
  while (end > keyword.end && (text[end - 1] === "\n" || text[end - 1] === "\r")) end--;
  const body = { start: keyword.end, end };
  const isOneLine = node.startLine === node.endLine && node.heredocs.length === 0;
  return {
    node,
    keyword,
    body,
    line: isOneLine ? text.slice(body.start, body.end) : undefined,
    words: () => findWords(text, body, escapeToken),
  };
}

/** Words separated by white space; comments and line ends inside a continuation are skipped. */
function findWords(text: string, body: Span, escapeToken: string): Word[] {
  const words: Word[] = [];
  let at = body.start;
  while (at < body.end) {
    const char = text[at]!;
    if (/\s/.test(char)) {
      at++;
      continue;
    }
    if (char === escapeToken && /^[ \t]*\r?\n/.test(text.slice(at + 1, at + 200))) {
      at = text.indexOf("\n", at) + 1;
      at = skipComments(text, at, body.end);
      continue;
    }
    let end = at;
    while (end < body.end && !/\s/.test(text[end]!)) end++;
    const word = text.slice(at, end);
    if (!word.startsWith("--") || words.length > 0) words.push({ start: at, end, text: word });
    at = end;
  }
  return words;
}

function skipComments(text: string, from: number, end: number): number {
  let at = from;
  for (;;) {
    const match = /^[ \t]*(?:#[^\n]*)?\r?\n/.exec(text.slice(at, end));
    if (match === null) return at;
    at += match[0].length;
  }
}
