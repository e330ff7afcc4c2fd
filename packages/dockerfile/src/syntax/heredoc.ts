import { Problem } from "../base/problem.ts";
import { expand, type LexOptions, NO_VARIABLES } from "../shell/lex.ts";
import type { Heredoc } from "./node.ts";

const HEREDOC = /^(\d*)<<(-?)[\t\n\f\r ]*([^<]*)$/;
const WORD: LexOptions = { escapeToken: "\\", skipUnset: true };

/** A heredoc's head, from a word like `<<EOF`; undefined when it is none. Throws problems of its name. */
export function parseHeredoc(word: string): Heredoc | undefined {
  const match = word.includes("<<") ? HEREDOC.exec(word) : null;
  if (match === null || match[3] === "") return undefined;
  const rest = match[3]!;
  const words = expand(rest, NO_VARIABLES, WORD).words;
  if (words.length !== 1) return undefined;
  const raw = expand(rest, NO_VARIABLES, { ...WORD, rawQuotes: true }).words;
  if (raw.length !== 1) {
    throw new Problem(`internal lexing of heredoc produced inconsistent results: ${rest}`);
  }
  return {
    name: words[0]!,
    fileDescriptor: Number(match[1] === "" ? 0 : match[1]),
    expand: quoteCount(words[0]!) === quoteCount(raw[0]!),
    chomp: match[2] === "-",
    content: "",
  };
}

/** {@link parseHeredoc}; undefined also for a malformed one. */
export function heredocIn(word: string): Heredoc | undefined {
  try {
    return parseHeredoc(word);
  } catch (error) {
    if (error instanceof Problem) return undefined;
    throw error;
  }
}

function quoteCount(text: string): number {
  let count = 0;
  for (const char of text) if (char === "'" || char === '"') count++;
  return count;
}

/** Heads of all heredocs of a line. */
export function heredocsOfLine(line: string): Heredoc[] {
  let words: readonly string[] = [];
  try {
    words = expand(line, NO_VARIABLES, { ...WORD, rawQuotes: true, rawEscapes: true }).words;
  } catch (error) {
    // A line that can't be split has no heredocs; what is wrong with it shows up elsewhere.
    if (!(error instanceof Problem)) throw error;
  }
  return words.map(parseHeredoc).filter((doc) => doc !== undefined);
}

/** Without the tabs at the start of each line. */
export function chompTabs(content: string): string {
  return content.replace(/(^|\n)\t+/g, "$1");
}
