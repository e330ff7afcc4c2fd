import { quoteGo } from "@kiln/formats";
import { latinFromText, textFromLatin } from "../base/bytes.ts";
import { isSpace, splitFirst, trimLeftSpace, WHITESPACE } from "../base/go-text.ts";
import { Problem } from "../base/problem.ts";
import { splitWords } from "./words.ts";

/** Arguments of an instruction as its grammar splits them. */
export interface Arguments {
  readonly args: readonly string[];
  readonly json: boolean;
  /** ONBUILD: keyword of the instruction inside, to find heredocs. */
  readonly nested?: { readonly keyword: string; readonly json: boolean } | undefined;
}

type Splitter = (rest: string, escapeToken: string) => Arguments;

const NONE: Arguments = { args: [], json: false };
/** Splits of the instructions; ONBUILD is the parser's. */
export const splitters: ReadonlyMap<string, Splitter> = new Map<string, Splitter>([
  ["add", jsonOrList],
  ["arg", (rest, escapeToken) => ({ args: splitWords(rest, escapeToken), json: false })],
  ["cmd", jsonOrText],
  ["copy", jsonOrList],
  ["entrypoint", jsonOrText],
  ["env", (rest, escapeToken) => nameValues(rest, "ENV", escapeToken)],
  ["expose", list],
  ["from", list],
  ["healthcheck", healthcheck],
  ["label", (rest, escapeToken) => nameValues(rest, "LABEL", escapeToken)],
  ["maintainer", text],
  ["run", jsonOrText],
  ["shell", jsonOrText],
  ["stopsignal", text],
  ["user", text],
  ["volume", jsonOrList],
  ["workdir", text],
]);

function text(rest: string): Arguments {
  return rest === "" ? NONE : { args: [rest], json: false };
}

function list(rest: string): Arguments {
  return rest === "" ? NONE : { args: rest.split(WHITESPACE), json: false };
}

function jsonOrText(rest: string): Arguments {
  return rest === "" ? NONE : (jsonArray(rest) ?? text(rest));
}

function jsonOrList(rest: string): Arguments {
  return jsonArray(rest) ?? list(rest);
}

/** Undefined for what is no JSON array. Throws a problem for an array with anything but strings. */
function jsonArray(rest: string): Arguments | undefined {
  const trimmed = trimLeftSpace(rest);
  if (!trimmed.startsWith("[")) return undefined;
  let parsed: unknown;
  try {
    parsed = JSON.parse(trimmed);
  } catch {
    return undefined;
  }
  if (!Array.isArray(parsed)) return undefined;
  if (!parsed.every((item) => typeof item === "string")) {
    if (hasHugeNumber(parsed)) return undefined;
    throw new Problem("when using JSON array syntax, arrays must be comprised of strings only");
  }
  return { args: parsed.map((item) => item.toWellFormed()), json: true };
}

/** Go refuses documents with numbers beyond its range. */
function hasHugeNumber(value: readonly unknown[]): boolean {
  const stack: unknown[] = [value];
  while (stack.length > 0) {
    const item = stack.pop();
    if (item === Number.POSITIVE_INFINITY || item === Number.NEGATIVE_INFINITY) return true;
    if (typeof item !== "object" || item === null) continue;
    for (const child of Object.values(item)) stack.push(child);
  }
  return false;
}

/** Name, value and separator (`=`, or nothing for the old form) of each pair, one after the other. */
function nameValues(rest: string, keyword: string, escapeToken: string): Arguments {
  const words = splitWords(rest, escapeToken);
  if (words.length === 0) return NONE;
  if (!words[0]!.includes("=")) {
    const [name, value] = splitFirst(rest);
    if (value === undefined) throw new Problem(`${keyword} must have two arguments`);
    return { args: [name, value, ""], json: false };
  }
  const args: string[] = [];
  for (const word of words) {
    const equals = word.indexOf("=");
    if (equals < 0) {
      throw new Problem(`Syntax error - can't find = in ${quoteGo(word)}. Must be of the form: name=value`);
    }
    args.push(word.slice(0, equals), word.slice(equals + 1), "=");
  }
  return { args, json: false };
}

/** The type, then the command. It is split by bytes. */
function healthcheck(rest: string): Arguments {
  const line = latinFromText(rest);
  let end = 0;
  while (end < line.length && !isSpace(line.charCodeAt(end))) end++;
  if (end === 0) return NONE;
  let next = end;
  while (next < line.length && isSpace(line.charCodeAt(next))) next++;
  const command = jsonOrText(textFromLatin(line.slice(next)));
  return { args: [textFromLatin(line.slice(0, end)), ...command.args], json: command.json };
}
