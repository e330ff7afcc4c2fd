import {
  boolType,
  dynamicType,
  listType,
  mapType,
  numberType,
  objectType,
  setType,
  stringType,
  type Type,
  tupleType,
} from "./cty/type.ts";
import { type Diagnostic, errorAt, type Range, rangeBetween } from "./diagnostics.ts";
import { type Expression, expressionKeyword, type StaticCall } from "./expression.ts";

const SUMMARY = "Invalid type specification";
const PRIMITIVES = new Map<string, Type>([
  ["bool", boolType],
  ["string", stringType],
  ["number", numberType],
  ["any", dynamicType],
]);

/** Reads a type such as `list(string)` or `object({a = optional(number)})`; `any` where it isn't one. */
export function typeConstraint(expr: Expression, diagnostics: Diagnostic[]): Type {
  const fail = (detail: string, subject: Range | undefined, context?: Range): Type => {
    diagnostics.push(errorAt(SUMMARY, detail, subject, context));
    return dynamicType;
  };
  const word = expressionKeyword(expr);
  if (word !== "") {
    const primitive = PRIMITIVES.get(word);
    if (primitive !== undefined) return primitive;
    return fail(
      constructorNeeds(word) ?? `The keyword ${JSON.stringify(word)} is not a valid type specification.`,
      expr.range,
    );
  }
  const call = expr.asCall?.();
  if (call === undefined) {
    return fail(
      "A type specification is either a primitive type keyword (bool, number, string) or a complex type constructor call, like list(string).",
      expr.range,
    );
  }
  const { name, args } = call;
  if (name === "any") return fail('Type constraint keyword "any" does not expect arguments.', call.argsRange);
  if (PRIMITIVES.has(name)) {
    return fail(`Primitive type keyword ${JSON.stringify(name)} does not expect arguments.`, call.argsRange);
  }
  const needs = constructorNeeds(name);
  if (args.length !== 1 && needs !== undefined) {
    const subject = args.length > 1 ? rangeBetween(args[1]!.range, args.at(-1)!.range) : call.argsRange;
    return fail(needs, subject, call.argsRange);
  }
  return constructed(call, expr, diagnostics);
}

function constructorNeeds(name: string): string | undefined {
  switch (name) {
    case "list":
    case "map":
    case "set":
      return `The ${name} type constructor requires one argument specifying the element type.`;
    case "object":
      return "The object type constructor requires one argument specifying the attribute types and values as a map.";
    case "tuple":
      return "The tuple type constructor requires one argument specifying the element types as a list.";
    default:
      return undefined;
  }
}

function constructed(call: StaticCall, expr: Expression, diagnostics: Diagnostic[]): Type {
  const arg = call.args[0]!;
  const fail = (detail: string, subject: Range, context?: Range): Type => {
    diagnostics.push(errorAt(SUMMARY, detail, subject, context));
    return dynamicType;
  };
  switch (call.name) {
    case "list":
      return listType(typeConstraint(arg, diagnostics));
    case "set":
      return setType(typeConstraint(arg, diagnostics));
    case "map":
      return mapType(typeConstraint(arg, diagnostics));
    case "object":
      return objectConstraint(arg, expr, diagnostics);
    case "tuple": {
      const elems = arg.asList?.();
      if (elems !== undefined) return tupleType(elems.map((elem) => typeConstraint(elem, diagnostics)));
      return fail("Tuple type constructor requires a list of element types.", arg.range, expr.range);
    }
    case "optional":
      return fail(
        'Keyword "optional" is valid only as a modifier for object type attributes.',
        call.nameRange,
      );
    default:
      return fail(`Keyword ${JSON.stringify(call.name)} is not a valid type constructor.`, expr.range);
  }
}

function objectConstraint(arg: Expression, expr: Expression, diagnostics: Diagnostic[]): Type {
  const pairs = arg.asMap?.();
  if (pairs === undefined) {
    const detail =
      "Object type constructor requires a map whose keys are attribute names and whose values are the corresponding attribute types.";
    diagnostics.push(errorAt(SUMMARY, detail, arg.range, expr.range));
    return dynamicType;
  }
  const attrs = new Map<string, Type>();
  const optional = new Set<string>();
  for (const { key, value } of pairs) {
    const name = expressionKeyword(key);
    const problem =
      name === ""
        ? "Object constructor map keys must be attribute names."
        : attrs.has(name)
          ? "Object constructor map keys must be unique."
          : undefined;
    if (problem !== undefined) {
      diagnostics.push(errorAt(SUMMARY, problem, key.range, expr.range));
      continue;
    }
    const attr = optionalAttribute(value, diagnostics);
    if (attr === undefined) continue;
    if (attr.optional) optional.add(name);
    attrs.set(name, typeConstraint(attr.type, diagnostics));
  }
  return objectType(attrs, optional);
}

function optionalAttribute(
  expr: Expression,
  diagnostics: Diagnostic[],
): { readonly type: Expression; readonly optional: boolean } | undefined {
  const call = expr.asCall?.();
  if (call?.name !== "optional") return { type: expr, optional: false };
  const [type] = call.args;
  if (type === undefined) {
    const detail = "Optional attribute modifier requires the attribute type as its argument.";
    diagnostics.push(errorAt(SUMMARY, detail, call.argsRange, expr.range));
    return undefined;
  }
  if (call.args.length === 1) return { type, optional: true };
  const detail = "Optional attribute modifier expects only one argument: the attribute type.";
  diagnostics.push(errorAt(SUMMARY, detail, call.argsRange, expr.range));
  return { type, optional: false };
}
