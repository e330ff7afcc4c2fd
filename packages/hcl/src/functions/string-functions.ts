import { compareStrings, graphemes, utf8Length } from "../cty/text.ts";
import { listType, numberType, stringType } from "../cty/type.ts";
import { intValue, listValue, stringValue, type Value } from "../cty/value.ts";
import { ArgumentError, FunctionError } from "../function.ts";
import { checkTextLength } from "../work.ts";
import { any, asInteger, type FunctionTable, fn, num, text, texts, variadic } from "./support.ts";

const MAX_PADDING = 64 * 1024 * 1024;

function substring(args: readonly Value[]): Value {
  const clusters = graphemes(args[0]!.string);
  let offset = asInteger(args[1]!);
  const length = asInteger(args[2]!);
  if (offset < 0) offset += clusters.length;
  else if (length === 0) return stringValue("");
  const rest = offset > 0 ? clusters.slice(offset) : clusters;
  if (length < 0) return stringValue(rest.join(""));
  return stringValue((length === 0 ? rest : rest.slice(0, length)).join(""));
}

function join(args: readonly Value[]): Value {
  const [separator, ...lists] = args;
  if (lists.length === 0) throw new FunctionError("at least one list is required");
  const items: string[] = [];
  for (const [i, list] of lists.entries()) {
    for (const [j, item] of list.elements.entries()) {
      if (item.isNull) {
        const where = lists.length > 1 ? `element ${j} of list ${i + 1}` : `element ${j}`;
        throw new ArgumentError(i + 1, `${where} is null; cannot concatenate null values`);
      }
      items.push(item.string);
    }
  }
  checkTextLength(items.reduce((sum, item) => sum + item.length + separator!.string.length, 0));
  return stringValue(items.join(separator!.string));
}

function sort(args: readonly Value[]): Value {
  const items = args[0]!.elements.map((item, i) => {
    if (item.isNull)
      throw new FunctionError(`given list element ${i} is null; a null string cannot be sorted`);
    return item.string;
  });
  return listValue(items.sort(compareStrings).map(stringValue), stringType);
}

/** As Go's `strings.Split`: an empty separator splits into characters. */
function split(separator: string, given: string): string[] {
  return separator === "" ? [...given] : given.split(separator);
}

function replaceAll(given: string, from: string, to: string): string {
  if (from !== "") {
    const parts = given.split(from);
    checkTextLength(given.length + (parts.length - 1) * to.length);
    return parts.join(to);
  }
  checkTextLength(given.length * (to.length + 1));
  return `${to}${[...given].map((char) => char + to).join("")}`;
}

/** As Go's `strings.Title`. */
function title(given: string): string {
  let out = "";
  let previous = " ";
  for (const char of given) {
    out += isSeparator(previous) ? titleCase(char) : char;
    previous = char;
  }
  return out;
}

function titleCase(char: string): string {
  const upper = char.toUpperCase();
  return [...upper].length === 1 ? upper : char;
}

function isSeparator(char: string): boolean {
  const code = char.codePointAt(0) ?? 0;
  if (code <= 0x7f) return !/[0-9a-zA-Z_]/.test(char);
  if (/[\p{L}\p{N}]/u.test(char)) return false;
  return /\s/u.test(char);
}

/** Maps single characters only, as Go does: `ß` stays. */
function mapCase(given: string, change: (char: string) => string): string {
  let out = "";
  for (const char of given) {
    const changed = change(char);
    out += [...changed].length === 1 ? changed : char;
  }
  return out;
}

function trim(given: string, cutset: string): string {
  const cut = new Set(cutset);
  const chars = [...given];
  let start = 0;
  let end = chars.length;
  while (start < end && cut.has(chars[start]!)) start++;
  while (end > start && cut.has(chars[end - 1]!)) end--;
  return chars.slice(start, end).join("");
}

function indent(args: readonly Value[]): Value {
  const spaces = asInteger(args[0]!);
  if (spaces < 0) throw new FunctionError("panic in function implementation: strings: negative Repeat count");
  const given = args[1]!.string;
  if (spaces * given.split("\n").length > MAX_PADDING) throw new FunctionError("the result is too long");
  return stringValue(given.replaceAll("\n", `\n${" ".repeat(spaces)}`));
}

/** `/` paths, as Go's `path.Base`. */
function baseName(path: string): string {
  if (path === "") return ".";
  const trimmed = path.replace(/\/+$/, "");
  if (trimmed === "") return "/";
  return trimmed.slice(trimmed.lastIndexOf("/") + 1);
}

/** `/` paths, as Go's `path.Clean`. */
export function cleanPath(path: string): string {
  const rooted = path.startsWith("/");
  const out: string[] = [];
  for (const part of path.split("/")) {
    if (part === "" || part === ".") continue;
    if (part !== "..") out.push(part);
    else if (out.length > 0 && out.at(-1) !== "..") out.pop();
    else if (!rooted) out.push("..");
  }
  const joined = out.join("/");
  return rooted ? `/${joined}` : joined === "" ? "." : joined;
}

function dirName(path: string): string {
  return cleanPath(path.slice(0, path.lastIndexOf("/") + 1));
}

function sanitize(name: string): string {
  return [...name].map((char) => (/[a-zA-Z0-9_-]/.test(char) ? char : "_")).join("");
}

/** Goes through text with functions that take and give strings only. */
function map1(description: string, name: string, change: (given: string) => string) {
  return fn(description, [text(name)], stringType, ([given]) => stringValue(change(given!.string)));
}

function map2(
  description: string,
  names: readonly [string, string],
  change: (a: string, b: string) => string,
) {
  return fn(description, names.map(text), stringType, ([a, b]) => stringValue(change(a!.string, b!.string)));
}

/** Text and paths. */
export const stringFunctions: FunctionTable = {
  upper: map1(
    "Returns the given string with all Unicode letters translated to their uppercase equivalents.",
    "str",
    (s) => mapCase(s, (char) => char.toUpperCase()),
  ),
  lower: map1(
    "Returns the given string with all Unicode letters translated to their lowercase equivalents.",
    "str",
    (s) => mapCase(s, (char) => char.toLowerCase()),
  ),
  reverse: map1("Returns the given string with all of its Unicode characters in reverse order.", "str", (s) =>
    graphemes(s).reverse().join(""),
  ),
  strlen: fn(
    "Returns the number of Unicode characters (technically: grapheme clusters) in the given string.",
    [text("str")],
    numberType,
    ([s]) => intValue(graphemes(s!.string).length),
  ),
  substr: fn(
    "Extracts a substring from the given string.",
    [text("str"), num("offset"), num("length")],
    stringType,
    substring,
  ),
  join: variadic(
    fn(
      "Concatenates together the elements of all given lists with a delimiter, producing a single string.",
      [text("separator")],
      stringType,
      join,
    ),
    texts("lists"),
  ),
  sort: fn(
    "Applies a lexicographic sort to the elements of the given list.",
    [texts("list")],
    listType(stringType),
    sort,
  ),
  split: fn(
    "Produces a list of one or more strings by splitting the given string at all instances of a given separator substring.",
    [text("separator"), text("str")],
    listType(stringType),
    ([separator, s]) => listValue(split(separator!.string, s!.string).map(stringValue), stringType),
  ),
  chomp: map1("Removes one or more newline characters from the end of the given string.", "str", (s) =>
    s.replace(/(?:\r\n?|\n)+$/, ""),
  ),
  indent: fn(
    "Adds a given number of spaces after each newline character in the given string.",
    [num("spaces"), text("str")],
    stringType,
    indent,
  ),
  title: map1(
    "Replaces one letter after each non-letter and non-digit character with its uppercase equivalent.",
    "str",
    title,
  ),
  trimspace: map1(
    "Removes any consecutive space characters (as defined by Unicode) from the start and end of the given string.",
    "str",
    (s) => s.replace(/^[\s\u0085]+|[\s\u0085]+$/gu, (found) => found.replace(/[^\ufeff]/g, "")),
  ),
  trim: map2(
    'Removes consecutive sequences of characters in "cutset" from the start and end of the given string.',
    ["str", "cutset"],
    trim,
  ),
  trimprefix: map2(
    "Removes the given prefix from the start of the given string, if present.",
    ["str", "prefix"],
    (s, prefix) => (s.startsWith(prefix) ? s.slice(prefix.length) : s),
  ),
  trimsuffix: map2(
    "Removes the given suffix from the start of the given string, if present.",
    ["str", "suffix"],
    (s, suffix) => (s.endsWith(suffix) ? s.slice(0, s.length - suffix.length) : s),
  ),
  replace: fn(
    "Replaces all instances of the given substring in the given string with the given replacement string.",
    [text("str"), text("substr"), text("replace")],
    stringType,
    ([s, from, to]) => stringValue(replaceAll(s!.string, from!.string, to!.string)),
  ),
  basename: map1("Returns the last element of a path.", "path", baseName),
  dirname: map1("Returns the directory of a path.", "path", dirName),
  sanitize: map1(
    "Replaces all non-alphanumeric characters with a underscore, leaving only characters that are valid for a Bake target name.",
    "name",
    sanitize,
  ),
  byteslen: fn(
    "Returns the total number of bytes in the given buffer.",
    [{ ...any("buf"), type: { kind: "capsule", name: "bytes" } }],
    numberType,
    ([s]) => intValue(utf8Length(s!.string)),
  ),
  bytesslice: fn(
    "Extracts a subslice from the given buffer.",
    [{ ...any("buf"), type: { kind: "capsule", name: "bytes" } }, num("offset"), num("length")],
    stringType,
    ([s]) => s!,
  ),
};
