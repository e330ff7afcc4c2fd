import { ConversionError, convert } from "../cty/convert.ts";
import { JsonError, marshalJson } from "../cty/json.ts";
import type { Num } from "../cty/number.ts";
import { graphemes, jsonString, quote, quoteChar } from "../cty/text.ts";
import { boolType, listType, numberType, stringType } from "../cty/type.ts";
import { listValue, stringValue, type Value } from "../cty/value.ts";
import { ArgumentError, FunctionError } from "../function.ts";
import { type FunctionTable, fn, open, text, variadic } from "./support.ts";

const MAX_WIDTH = 1_000_000;

interface Verb {
  readonly raw: string;
  readonly offset: number;
  readonly flags: string;
  readonly width: number;
  readonly precision: number;
  readonly argument: number;
  readonly mode: string;
}

const VERB = /%([0#\-+ ]*)([1-9][0-9]*)?(?:\.([0-9]*))?(?:\[([1-9][0-9]*)\])?([a-zA-Z])/y;

/** Formats values as cty's `format` does. */
export function formatText(format: string, args: readonly Value[]): string {
  let out = "";
  let next = 1;
  let highest = 0;
  for (let at = 0; at < format.length; ) {
    const percent = format.indexOf("%", at);
    if (percent < 0) {
      out += format.slice(at);
      break;
    }
    out += format.slice(at, percent);
    if (format.charAt(percent + 1) === "%") {
      out += "%";
      at = percent + 2;
      continue;
    }
    const verb = readVerb(format, percent, next);
    highest = Math.max(highest, verb.argument);
    out += apply(verb, args);
    next = verb.argument + 1;
    at = percent + verb.raw.length;
  }
  if (highest < args.length) {
    const used = highest === 0 ? "no verbs in format string" : `only ${highest} used by format string`;
    throw new ArgumentError(highest + 1, `too many arguments; ${used}`);
  }
  return out;
}

function readVerb(format: string, at: number, next: number): Verb {
  VERB.lastIndex = at;
  const match = VERB.exec(format);
  if (match === null) throw badFormat(format, at);
  const width = Number(match[2] ?? "-1");
  const precision = match[3] === undefined ? -1 : Number(match[3] || "0");
  if (width > MAX_WIDTH || precision > MAX_WIDTH) throw new FunctionError("width or precision too large");
  return {
    raw: match[0],
    offset: at,
    flags: match[1] ?? "",
    width,
    precision,
    argument: match[4] === undefined ? next : Number(match[4]),
    mode: match[5] ?? "",
  };
}

function badFormat(format: string, at: number): FunctionError {
  const partial =
    /^%[0#\-+ ]*(?:[1-9][0-9]*)?(?:\.[0-9]*)?(?:\[(?:[1-9][0-9]*\]?)?)?/.exec(format.slice(at))?.[0] ?? "%";
  const bad = at + partial.length;
  if (bad >= format.length) return new FunctionError(`invalid format string starting at offset ${bad}`);
  const char = String.fromCodePoint(format.codePointAt(bad) ?? 0);
  return new FunctionError(`unrecognized format character ${quoteChar(char)} at offset ${bad}`);
}

function apply(verb: Verb, args: readonly Value[]): string {
  const arg = args[verb.argument - 1];
  const place = `${quote(verb.raw)} at ${verb.offset}`;
  if (arg === undefined) {
    throw new FunctionError(
      `not enough arguments for ${place}: need index ${verb.argument} but have ${args.length} total`,
    );
  }
  const unsupported = (why: string): FunctionError =>
    new FunctionError(`unsupported value for ${place}: ${why}`);
  if (verb.mode !== "v" && arg.isNull) throw unsupported("null value cannot be formatted");
  try {
    switch (verb.mode) {
      case "v":
        return asIs(verb, arg);
      case "t":
        return convert(arg, boolType).isTrue ? "true" : "false";
      case "b":
      case "d":
      case "o":
      case "x":
      case "X": {
        const { number } = convert(arg, numberType);
        if (!number.isInteger) throw unsupported("an integer is required");
        return integer(verb, number.toBigInt());
      }
      case "e":
      case "E":
      case "f":
      case "g":
      case "G":
        return float(verb, convert(arg, numberType).number, verb.mode);
      case "s":
      case "q":
        return formatString(verb, convert(arg, stringType).string);
      default: {
        const mode = quoteChar(verb.mode);
        throw new FunctionError(
          `unsupported format verb ${mode} in ${quote(verb.raw)} at offset ${verb.offset}`,
        );
      }
    }
  } catch (error) {
    if (error instanceof ConversionError || error instanceof JsonError) throw unsupported(error.message);
    throw error;
  }
}

function asIs(verb: Verb, arg: Value): string {
  if (!verb.flags.includes("#") && !arg.isNull) {
    if (arg.type.kind === "string") return padText(verb, arg.string);
    if (arg.type.kind === "number") return padText(verb, arg.number.text("g", -1));
  }
  return padText(verb, marshalJson(arg, arg.type));
}

function formatString(verb: Verb, given: string): string {
  const cut = verb.precision > 0 ? graphemes(given).slice(0, verb.precision).join("") : given;
  return padText(verb, verb.mode === "q" ? jsonString(cut) : cut);
}

function padText(verb: Verb, given: string): string {
  const missing = verb.width - graphemes(given).length;
  if (missing <= 0) return given;
  const pad = (verb.flags.includes("0") ? "0" : " ").repeat(missing);
  return verb.flags.includes("-") ? given + pad : pad + given;
}

const BASES = new Map([
  ["b", 2],
  ["o", 8],
  ["d", 10],
  ["x", 16],
  ["X", 16],
]);
const PREFIXES = new Map([
  ["b", "0b"],
  ["o", "0"],
  ["x", "0x"],
  ["X", "0X"],
]);

/** As Go's `big.Int` formats. */
function integer(verb: Verb, value: bigint): string {
  const { flags, mode, width, precision } = verb;
  const negative = value < 0n;
  let digits = (negative ? -value : value).toString(BASES.get(mode) ?? 10);
  if (mode === "X") digits = digits.toUpperCase();
  const sign = negative ? "-" : flags.includes("+") ? "+" : flags.includes(" ") ? " " : "";
  const prefix = flags.includes("#") ? (PREFIXES.get(mode) ?? "") : "";
  if (precision >= 0) {
    if (digits.length < precision) digits = digits.padStart(precision, "0");
    else if (precision === 0 && digits === "0") return "";
  }
  const missing = width - sign.length - prefix.length - digits.length;
  if (missing <= 0) return sign + prefix + digits;
  if (flags.includes("-")) return sign + prefix + digits + " ".repeat(missing);
  if (flags.includes("0") && precision < 0) return sign + prefix + "0".repeat(missing) + digits;
  return " ".repeat(missing) + sign + prefix + digits;
}

/** As Go's `big.Float` formats. */
function float(verb: Verb, value: Num, mode: "e" | "E" | "f" | "g" | "G"): string {
  const { flags, width } = verb;
  const fallback = mode === "g" || mode === "G" ? -1 : 6;
  let digits = value.text(mode, verb.precision < 0 ? fallback : verb.precision);
  let sign = "";
  if (digits.startsWith("-")) {
    sign = "-";
    digits = digits.slice(1);
  } else if (digits.startsWith("+")) {
    sign = flags.includes(" ") ? " " : "+";
    digits = digits.slice(1);
  } else if (flags.includes("+")) sign = "+";
  else if (flags.includes(" ")) sign = " ";
  const missing = Math.max(0, width - sign.length - digits.length);
  if (flags.includes("0") && value.kind !== "inf") return sign + "0".repeat(missing) + digits;
  if (flags.includes("-")) return sign + digits + " ".repeat(missing);
  return " ".repeat(missing) + sign + digits;
}

function isSequence(value: Value): boolean {
  return !value.isNull && ["list", "set", "tuple"].includes(value.type.kind);
}

function formatList(args: readonly Value[]): Value {
  const [format, ...rest] = args;
  let length = -1;
  let chooser = -1;
  for (const [i, arg] of rest.entries()) {
    if (!isSequence(arg)) continue;
    if (length >= 0 && arg.size !== length) {
      throw new ArgumentError(
        i + 1,
        `argument ${i + 1} has length ${arg.size}, which is inconsistent with argument ${chooser + 1} of length ${length}`,
      );
    }
    if (length < 0) chooser = i;
    length = arg.size;
  }
  if (rest.length === 0) return listValue([stringValue(formatText(format!.string, []))], stringType);
  const rounds = length < 0 ? 1 : length;
  const out: Value[] = [];
  for (let i = 0; i < rounds; i++) {
    const row = rest.map((arg) => (isSequence(arg) ? arg.elements[i]! : arg));
    try {
      out.push(stringValue(formatText(format!.string, row)));
    } catch (error) {
      if (error instanceof FunctionError)
        throw new FunctionError(`error on format iteration ${i}: ${error.message}`);
      throw error;
    }
  }
  return listValue(out, stringType);
}

const values = { ...open("args"), allowUnknown: false };

/** Formatting. */
export const formatFunctions: FunctionTable = {
  format: variadic(
    fn(
      'Constructs a string by applying formatting verbs to a series of arguments, using a similar syntax to the C function "printf".',
      [text("format")],
      stringType,
      ([format, ...args]) => stringValue(formatText(format!.string, args)),
    ),
    values,
  ),
  formatlist: variadic(
    fn(
      'Constructs a list of strings by applying formatting verbs to a series of arguments, using a similar syntax to the C function "printf".',
      [text("format")],
      listType(stringType),
      formatList,
    ),
    values,
  ),
};
