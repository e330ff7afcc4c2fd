import { isCollection, listType, objectType, stringType, type Type, tupleType } from "../cty/type.ts";
import { listValue, nullValue, objectValue, stringValue, tupleValue, type Value } from "../cty/value.ts";
import { ArgumentError, FunctionError } from "../function.ts";
import { type Captures, Regex } from "../regex/regex.ts";
import { RegexError } from "../regex/syntax.ts";
import { type FunctionTable, fn, text } from "./support.ts";

function patternOf(source: string): Regex {
  try {
    return new Regex(source);
  } catch (error) {
    if (error instanceof RegexError)
      throw new ArgumentError(0, `invalid regexp pattern: ${error.code} in ${error.expr}`);
    throw error;
  }
}

/** A string without groups, a tuple of unnamed ones, an object of named ones. */
function resultType(source: string): Type {
  const { groups } = patternOf(source);
  if (groups.length === 0) return stringType;
  const named = groups.filter((name) => name !== "");
  if (named.length === 0) return tupleType(groups.map(() => stringType));
  if (named.length === groups.length) return objectType(new Map(named.map((name) => [name, stringType])));
  throw new ArgumentError(0, "invalid regexp pattern: cannot mix both named and unnamed capture groups");
}

function result(regex: Regex, given: string, found: Captures, type: Type): Value {
  const part = (index: number): Value => {
    const capture = found[index];
    return capture === undefined ? nullValue(stringType) : stringValue(given.slice(capture[0], capture[1]));
  };
  if (type.kind === "string") return part(0);
  if (type.kind === "tuple") return tupleValue(regex.groups.map((_, i) => part(i + 1)));
  return objectValue(new Map(regex.groups.map((name, i) => [name, part(i + 1)])));
}

/** Regular expressions. */
export const regexFunctions: FunctionTable = {
  regex: fn(
    "Applies the given regular expression pattern to the given string and returns information about a single match, or raises an error if there is no match.",
    [text("pattern"), text("string")],
    (args) => resultType(args[0]!.string),
    ([source, given], type) => {
      const regex = patternOf(source!.string);
      const found = regex.find(given!.string);
      if (found === undefined) throw new FunctionError("pattern did not match any part of the given string");
      return result(regex, given!.string, found, type);
    },
  ),
  regexall: fn(
    "Applies the given regular expression pattern to the given string and returns a list of information about all non-overlapping matches, or an empty list if there are no matches.",
    [text("pattern"), text("string")],
    (args) => listType(resultType(args[0]!.string)),
    ([source, given], type) => {
      const regex = patternOf(source!.string);
      const elem = isCollection(type) ? type.elem : stringType;
      return listValue(
        regex.findAll(given!.string).map((found) => result(regex, given!.string, found, elem)),
        elem,
      );
    },
  ),
  regex_replace: fn(
    "Applies the given regular expression pattern to the given string and replaces all matches with the given replacement string.",
    [text("str"), text("pattern"), text("replace")],
    stringType,
    ([given, source, replacement]) => {
      try {
        return stringValue(new Regex(source!.string).replaceAll(given!.string, replacement!.string));
      } catch (error) {
        throw error instanceof RegexError ? new FunctionError(error.message) : error;
      }
    },
  ),
};
