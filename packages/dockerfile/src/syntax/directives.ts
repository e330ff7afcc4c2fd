import type { Range } from "@kiln/llb";
import { lower, trimLeftSpace } from "../base/go-text.ts";
import { lineRanges, Problem } from "../base/problem.ts";

/** A parser directive at the top of a file. */
export interface Directive {
  readonly name: "syntax" | "escape" | "check";
  readonly value: string;
  readonly line: number;
}

const DIRECTIVE = /^([a-zA-Z][a-zA-Z0-9]*)[\t\n\f\r ]*=[\t\n\f\r ]*([^\n]+?)[\t\n\f\r ]*$/;

/** Reads directives line by line until something else comes. */
export class DirectiveReader {
  readonly #prefix: string;
  readonly #seen = new Set<string>();
  #line: number;
  #done = false;

  constructor(prefix = "#", firstLine = 0) {
    this.#prefix = prefix;
    this.#line = firstLine;
  }

  get done(): boolean {
    return this.#done;
  }

  /** Undefined for a line that is none. Throws a problem for a repeated one. */
  read(line: string): Directive | undefined {
    this.#line++;
    if (this.#done) return undefined;
    const match = line.startsWith(this.#prefix) ? matchDirective(line.slice(this.#prefix.length)) : null;
    const name = lower(match?.[1] ?? "");
    if (match === null || (name !== "syntax" && name !== "escape" && name !== "check")) {
      this.#done = true;
      return undefined;
    }
    if (this.#seen.has(name)) throw new Problem(`only one ${name} parser directive can be used`);
    this.#seen.add(name);
    return { name, value: match[2]!, line: this.#line };
  }
}

/** The pattern is tried on short lines with `=` only, as it would be slow on long ones without. */
function matchDirective(text: string): RegExpExecArray | null {
  const trimmed = trimLeftSpace(text);
  const equals = trimmed.indexOf("=");
  if (equals < 0 || !/^[a-zA-Z][a-zA-Z0-9]*[\t\n\f\r ]*$/.test(trimmed.slice(0, equals))) return null;
  const value = trimGoSpace(trimmed.slice(equals + 1));
  return value === "" ? null : DIRECTIVE.exec(`${trimmed.slice(0, equals)}=${value}`);
}

/** Without the white space of a regular expression's `\s` at both ends. */
function trimGoSpace(text: string): string {
  const isBlank = (code: number): boolean => code === 32 || (code >= 9 && code <= 13 && code !== 11);
  let start = 0;
  let end = text.length;
  while (start < end && isBlank(text.charCodeAt(start))) start++;
  while (end > start && isBlank(text.charCodeAt(end - 1))) end--;
  return text.slice(start, end);
}

/** A directive that was looked for in a whole file. */
export interface FoundDirective {
  /** The first word of the value. */
  readonly value: string;
  /** The whole value. */
  readonly line: string;
  readonly ranges: readonly Range[];
}

/** The `name` directive of a Dockerfile. */
export function findDirective(name: string, text: string): FoundDirective | undefined {
  const { rest, firstLine } = skipShebang(text);
  return search(name, rest, new DirectiveReader("#", firstLine));
}

/**
 * The `syntax` directive of any kind of build file: also `// syntax=…`, and `{"syntax": "…"}` in a JSON
 * file. A first line with `#!` is skipped.
 */
export function detectSyntax(text: string): FoundDirective | undefined {
  const { rest, firstLine } = skipShebang(text);
  const found =
    search("syntax", rest, new DirectiveReader("#", firstLine)) ??
    search("syntax", rest, new DirectiveReader("//", firstLine));
  if (found !== undefined || !/^\s*\{/.test(rest)) return found;
  const value = jsonKey(rest, "syntax");
  return value === undefined ? undefined : { value, line: value, ranges: lineRanges(firstLine, firstLine) };
}

function jsonKey(text: string, key: string): string | undefined {
  try {
    const parsed: unknown = JSON.parse(text);
    if (typeof parsed !== "object" || parsed === null || Array.isArray(parsed)) return undefined;
    const value = Object.hasOwn(parsed, key) ? (parsed as Record<string, unknown>)[key] : undefined;
    return typeof value === "string" ? value : undefined;
  } catch {
    return undefined;
  }
}

function skipShebang(text: string): { rest: string; firstLine: number } {
  const start = text.startsWith("\ufeff") ? text.slice(1) : text;
  if (!start.startsWith("#!")) return { rest: start, firstLine: 0 };
  const end = start.indexOf("\n");
  return { rest: end < 0 ? "" : start.slice(end + 1), firstLine: 1 };
}

function search(name: string, text: string, reader: DirectiveReader): FoundDirective | undefined {
  for (let at = 0; at < text.length && !reader.done; ) {
    const end = text.indexOf("\n", at);
    const line = text.slice(at, end < 0 ? undefined : end).replace(/\r$/, "");
    at = end < 0 ? text.length : end + 1;
    let directive: Directive | undefined;
    try {
      directive = reader.read(line);
    } catch (error) {
      if (error instanceof Problem) return undefined;
      throw error;
    }
    if (directive?.name !== name) continue;
    return {
      value: directive.value.split(" ", 1)[0]!,
      line: directive.value,
      ranges: lineRanges(directive.line, directive.line),
    };
  }
  return undefined;
}
