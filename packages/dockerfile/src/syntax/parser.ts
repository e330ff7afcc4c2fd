import { byteLength } from "../base/bytes.ts";
import { lower, splitFirst, trimLeftSpace, trimSpace } from "../base/go-text.ts";
import { lineRanges, Problem, problemOf, withLocation } from "../base/problem.ts";
import { type Arguments, splitters } from "./arguments.ts";
import { DirectiveReader } from "./directives.ts";
import { heredocsOfLine } from "./heredoc.ts";
import type { Heredoc, InstructionNode } from "./node.ts";
import { splitFlags } from "./words.ts";

/** A file after the first parse. */
export interface ParsedFile {
  readonly instructions: readonly InstructionNode[];
  /** `\` or a backtick. */
  readonly escapeToken: string;
  /** Last lines of instructions with an empty continuation line. */
  readonly emptyContinuations: readonly number[];
  /** In order of appearance; BuildKit stops at the first. */
  readonly problems: readonly Problem[];
}

/** Longest line, in bytes without its line feed. */
const MAX_LINE_BYTES = 65535;
/** ONBUILDs in each other that are looked through; two are too many already. */
const MAX_ONBUILD = 16;
const HEREDOC_KEYWORDS: ReadonlySet<string> = new Set(["add", "copy", "run"]);

/** Parses a Dockerfile, going on after mistakes. */
export function parseFile(text: string): ParsedFile {
  return new FileParser(text).parse();
}

class FileParser {
  readonly #text: string;
  readonly #directives = new DirectiveReader();
  readonly #instructions: InstructionNode[] = [];
  readonly #emptyContinuations: number[] = [];
  readonly #problems: Problem[] = [];
  #escapeToken = "\\";
  #at = 0;
  /** Number of lines read. */
  #line = 0;
  #tooLong = false;
  #comments: string[] = [];

  constructor(text: string) {
    this.#text = text;
  }

  parse(): ParsedFile {
    for (let raw = this.#read(); raw !== undefined; raw = this.#read()) {
      const first = this.#line === 0 && raw.startsWith("\ufeff") ? raw.slice(1) : raw;
      this.#line++;
      this.#firstLine(first);
    }
    if (this.#instructions.length === 0 && this.#problems.length === 0) {
      this.#fail(new Problem("file with no instructions"), this.#line, 0);
    }
    if (this.#tooLong) {
      const message = `dockerfile line greater than max allowed size of ${MAX_LINE_BYTES}`;
      this.#fail(new Problem(message), this.#line, 0);
    }
    return {
      instructions: this.#instructions,
      escapeToken: this.#escapeToken,
      emptyContinuations: this.#emptyContinuations,
      problems: this.#problems,
    };
  }

  /** The next line with its line feed. */
  #read(): string | undefined {
    if (this.#at >= this.#text.length || this.#tooLong) return undefined;
    const feed = this.#text.indexOf("\n", this.#at);
    const end = feed < 0 ? this.#text.length : feed;
    if ((end - this.#at) * 3 > MAX_LINE_BYTES && this.#exceeds(end)) {
      this.#tooLong = true;
      return undefined;
    }
    const line = this.#text.slice(this.#at, end + 1);
    this.#at = end + 1;
    return line;
  }

  #exceeds(end: number): boolean {
    return end - this.#at > MAX_LINE_BYTES || byteLength(this.#text.slice(this.#at, end)) > MAX_LINE_BYTES;
  }

  #firstLine(raw: string): void {
    if (isComment(raw)) {
      // The first character goes, whatever it is; an indented comment keeps its mark.
      const comment = trimSpace(raw.slice(1));
      if (comment === "") this.#comments = [];
      else this.#comments.push(comment);
    }
    const line = trimLeftSpace(trimNewline(raw));
    if (!this.#directive(line)) return;
    const [text, ended] = this.#trimContinuation(line.startsWith("#") ? "" : line);
    if (ended && text === "") return;
    this.#instruction(text, ended);
  }

  /** Looks for a directive; false when it was a faulty one. */
  #directive(line: string): boolean {
    if (this.#directives.done) return true;
    try {
      const directive = this.#directives.read(line);
      if (directive !== undefined) this.#comments.pop();
      if (directive?.name === "escape") {
        if (directive.value !== "`" && directive.value !== "\\") {
          throw new Problem(`invalid escape token '${directive.value}' does not match \` or \\`);
        }
        this.#escapeToken = directive.value;
      }
      return true;
    } catch (error) {
      this.#fail(error, this.#line - 1, 0);
      return false;
    }
  }

  #instruction(text: string, isEnded: boolean): void {
    const startLine = this.#line;
    const parts = [text];
    let hasEmpty = false;
    for (let ended = isEnded; !ended; ) {
      const raw = this.#read();
      if (raw === undefined) break;
      const line = trimNewline(raw);
      this.#line++;
      if (isComment(raw)) continue;
      if (trimLeftSpace(line) === "") {
        hasEmpty = true;
        continue;
      }
      const [part, end] = this.#trimContinuation(line);
      parts.push(part);
      ended = end;
    }
    const original = parts.join("");
    if (hasEmpty) this.#emptyContinuations.push(this.#line);
    try {
      this.#add(original, startLine);
    } catch (error) {
      this.#fail(error, startLine, this.#line);
    }
    this.#comments = [];
  }

  #add(original: string, startLine: number): void {
    const { keyword, flags, split } = splitInstruction(original, this.#escapeToken);
    const inner = split.nested ?? { keyword, json: split.json };
    const mayHaveDocs = HEREDOC_KEYWORDS.has(lower(inner.keyword)) && !inner.json && !split.json;
    const heads = mayHaveDocs && original.includes("<<") ? heredocsOfLine(original) : [];
    const heredocs = heads.map((head) => this.#heredoc(head));
    this.#instructions.push({
      keyword,
      args: split.args,
      flags,
      json: split.json,
      heredocs,
      original,
      comments: this.#comments,
      startLine,
      endLine: this.#line,
    });
  }

  #heredoc(head: Heredoc): Heredoc {
    const content: string[] = [];
    for (let raw = this.#read(); raw !== undefined; raw = this.#read()) {
      this.#line++;
      const line = trimNewline(raw);
      if ((head.chomp ? line.replace(/^\t+/, "") : line) === head.name) {
        return { ...head, content: content.join("") };
      }
      content.push(raw);
    }
    throw new Problem("unterminated heredoc");
  }

  #trimContinuation(line: string): [string, boolean] {
    let end = line.length;
    while (end > 0 && (line[end - 1] === " " || line[end - 1] === "\t")) end--;
    if (line[end - 1] !== this.#escapeToken || line[end - 2] === this.#escapeToken) return [line, true];
    return [line.slice(0, end - 1), false];
  }

  #fail(error: unknown, start: number, end: number): void {
    this.#problems.push(problemOf(withLocation(problemOf(error), lineRanges(start, end))));
  }
}

/** Keyword, flags and arguments of an instruction's text. */
export function splitInstruction(
  original: string,
  escapeToken: string,
): { keyword: string; flags: string[]; split: Arguments } {
  let rest = original;
  const outer: string[] = [];
  const flagsOfOuter: string[][] = [];
  // ONBUILD takes an instruction, which may be another ONBUILD (refused later).
  for (;;) {
    const [keyword, tail] = splitFirst(trimSpace(rest));
    const { flags, rest: text } = splitFlags(tail ?? "", escapeToken);
    const args = trimSpace(text);
    if (lower(keyword) === "onbuild" && args !== "" && outer.length < MAX_ONBUILD) {
      outer.push(keyword);
      flagsOfOuter.push(flags);
      rest = args;
      continue;
    }
    const splitter = splitters.get(lower(keyword));
    // An unknown instruction has one empty argument.
    const split = splitter?.(args, escapeToken) ?? {
      args: lower(keyword) === "onbuild" ? [] : [""],
      json: false,
    };
    if (outer.length === 0) return { keyword, flags, split };
    const nested = outer.length === 1 ? { keyword, json: split.json } : { keyword: "", json: false };
    const words = [...outer.slice(1), keyword, ...split.args];
    return { keyword: outer[0]!, flags: flagsOfOuter[0]!, split: { args: words, json: false, nested } };
  }
}

function isComment(line: string): boolean {
  return trimLeftSpace(line).startsWith("#");
}

function trimNewline(line: string): string {
  let end = line.length;
  while (end > 0 && (line[end - 1] === "\n" || line[end - 1] === "\r")) end--;
  return end === line.length ? line : line.slice(0, end);
}
