import { ConversionError, convert } from "../cty/convert.ts";
import { boolType, dynamicType, stringType, type Type } from "../cty/type.ts";
import { boolValue, stringValue, unknownDynamic, unknownValue, type Value } from "../cty/value.ts";
import { type Diagnostic, formatRange, hasErrors } from "../diagnostics.ts";
import { ArgumentError, FunctionError, type HclFunction } from "../function.ts";
import { SemverError, satisfies } from "../semver.ts";
import type { Closure } from "../syntax/call-node.ts";
import { collectionFunctions } from "./collection-functions.ts";
import { cryptoFunctions } from "./crypto-functions.ts";
import { encodingFunctions } from "./encoding-functions.ts";
import { formatFunctions } from "./format-functions.ts";
import { mapFunctions } from "./map-functions.ts";
import { networkFunctions } from "./network-functions.ts";
import { numberFunctions } from "./number-functions.ts";
import { regexFunctions } from "./regex-functions.ts";
import { setFunctions } from "./set-functions.ts";
import { stringFunctions } from "./string-functions.ts";
import { type FunctionHost, type FunctionTable, fn, text, variadic } from "./support.ts";
import { timeFunctions } from "./time-functions.ts";

const closure = { name: "expression", type: dynamicType, decode: "closure" } as const;

function evaluate(arg: Value): { readonly value: Value; readonly problems: readonly Diagnostic[] } {
  const { expr, ctx } = arg.raw as Closure;
  const problems: Diagnostic[] = [];
  return { value: expr.value(ctx, problems), problems };
}

function tryAll(args: readonly Value[]): Value {
  if (args.length === 0) throw new FunctionError("at least one argument is required");
  const failures: Diagnostic[] = [];
  for (const arg of args) {
    const { value, problems } = evaluate(arg);
    if (!hasErrors(problems)) return value.isWhollyKnown ? value : unknownDynamic;
    failures.push(...problems);
  }
  const list = failures.map(({ subject, summary, detail }) => {
    const place = subject === undefined ? "" : ` (at ${formatRange(subject)})`;
    return `- ${summary}${place}\n  ${detail}\n`;
  });
  throw new FunctionError(
    `no expression succeeded:\n${list.join("")}\nAt least one expression must produce a successful result`,
  );
}

function can(args: readonly Value[]): Value {
  const { value, problems } = evaluate(args[0]!);
  if (hasErrors(problems)) return boolValue(false);
  return value.isWhollyKnown ? boolValue(true) : unknownValue(boolType);
}

function convertTo(args: readonly Value[]): Value {
  try {
    return convert(args[0]!, args[1]!.raw as Type);
  } catch (error) {
    throw error instanceof ConversionError ? new ArgumentError(0, error.message) : error;
  }
}

function semverCompare(version: string, constraint: string): boolean {
  try {
    return satisfies(version, constraint);
  } catch (error) {
    throw error instanceof SemverError ? new FunctionError(error.message) : error;
  }
}

function metaFunctions(host: FunctionHost): FunctionTable {
  return {
    try: variadic(
      fn(
        "Variadic function that tries to evaluate all of is arguments in sequence until one succeeds, in which case it returns that result, or returns an error if none of them succeed.",
        [],
        dynamicType,
        tryAll,
      ),
      { ...closure, name: "expressions" },
    ),
    can: fn("Tries to evaluate the expression given in its first argument.", [closure], boolType, can),
    convert: fn(
      "Converts a value to a specified type constraint, using HCL's customdecode extension for type expression support.",
      [
        { name: "value", type: dynamicType, allowNull: true, allowDynamic: true },
        { name: "type", type: dynamicType, decode: "type" },
      ],
      dynamicType,
      convertTo,
    ),
    homedir: fn("Returns the current user's home directory.", [], stringType, () =>
      stringValue(host.homeDir()),
    ),
    semvercmp: fn(
      "Returns true if version satisfies a constraint.",
      [text("version"), text("contraint")],
      boolType,
      ([version, constraint]) => boolValue(semverCompare(version!.string, constraint!.string)),
    ),
  };
}

/** Bake's functions, by name. */
export function standardFunctions(host: FunctionHost): Map<string, HclFunction> {
  return new Map(
    Object.entries({
      ...numberFunctions,
      ...stringFunctions,
      ...collectionFunctions,
      ...mapFunctions,
      ...setFunctions,
      ...encodingFunctions,
      ...cryptoFunctions(host),
      ...timeFunctions(host),
      ...networkFunctions,
      ...regexFunctions,
      ...formatFunctions,
      ...metaFunctions(host),
    }).sort(([a], [b]) => (a < b ? -1 : 1)),
  );
}
