import { ConversionError, convert } from "./cty/convert.ts";
import { Num } from "./cty/number.ts";
import { quote } from "./cty/text.ts";
import { dynamicType, friendlyName, isPrimitive, numberType, stringType } from "./cty/type.ts";
import { getAttr, hasIndex, indexValue, unknownDynamic, unknownValue, type Value } from "./cty/value.ts";
import { type Diagnostic, didYouMean, errorAt, type Range } from "./diagnostics.ts";
import type { EvalContext, Traversal } from "./expression.ts";

const INVALID_INDEX = "Invalid index";
const NO_ELEMENT = "The given key does not identify an element in this collection value";

/** `collection[key]`. */
export function indexInto(collection: Value, key: Value, range: Range, diagnostics: Diagnostic[]): Value {
  const fail = (summary: string, detail: string): Value => {
    diagnostics.push(errorAt(summary, detail, range));
    return unknownDynamic;
  };
  if (collection.isNull) {
    return fail("Attempt to index null value", "This value is null, so it does not have any indices.");
  }
  if (key.isNull) return fail(INVALID_INDEX, "Can't use a null value as an indexing key.");
  const { type } = collection;
  if (key.type.kind === "dynamic" || type.kind === "dynamic") return unknownDynamic;
  if (type.kind === "set") {
    return fail(
      INVALID_INDEX,
      "Elements of a set are identified only by their value and don't have any separate index or key to select with, so it's only possible to perform operations across all elements of the set.",
    );
  }
  if (!collection.isIterable) return fail(INVALID_INDEX, "This value does not have any indices.");
  const want = type.kind === "list" || type.kind === "tuple" ? numberType : stringType;
  let converted: Value;
  try {
    converted = convert(key, want);
  } catch (error) {
    if (!(error instanceof ConversionError)) throw error;
    return fail(INVALID_INDEX, `${NO_ELEMENT}: ${error.message}.`);
  }
  if (type.kind === "object") {
    if (!converted.isKnown) return unknownDynamic;
    const name = converted.string;
    if (type.attrs.has(name.normalize())) return getAttr(collection, name);
    const hint =
      key.type.kind === "number"
        ? " An object only supports looking up attributes by name, not by numeric index."
        : "";
    return fail(INVALID_INDEX, `${NO_ELEMENT}.${hint}`);
  }
  const has = hasIndex(collection, converted);
  if (!has.isKnown)
    return unknownValue(type.kind === "tuple" ? dynamicType : "elem" in type ? type.elem : dynamicType);
  if (has.isTrue) return indexValue(collection, converted);
  return fail(INVALID_INDEX, want === numberType ? whyNoElement(collection, converted) : `${NO_ELEMENT}.`);
}

function whyNoElement(collection: Value, key: Value): string {
  if (!key.number.isInteger) {
    return `${NO_ELEMENT}: indexing a sequence requires a whole number, but the given index has a fractional part.`;
  }
  if (key.number.sign < 0) return `${NO_ELEMENT}: a negative number is not a valid index for a sequence.`;
  const length = Num.fromInt(collection.size);
  if (key.number.compare(length) > 0) return `${NO_ELEMENT}.`;
  if (collection.size === 0) return `${NO_ELEMENT}: the collection has no elements.`;
  return `${NO_ELEMENT}: the given index is greater than or equal to the length of the collection.`;
}

/** `object.name`. */
export function attributeOf(object: Value, name: string, range: Range, diagnostics: Diagnostic[]): Value {
  const fail = (detail: string, summary = "Unsupported attribute"): Value => {
    diagnostics.push(errorAt(summary, detail, range));
    return unknownDynamic;
  };
  if (object.isNull) {
    return fail(
      "This value is null, so it does not have any attributes.",
      "Attempt to get attribute from null value",
    );
  }
  const { type } = object;
  if (type.kind === "object") {
    if (type.attrs.has(name.normalize())) return getAttr(object, name);
    return fail(`This object does not have an attribute named ${quote(name)}.`);
  }
  if (type.kind === "map") {
    if (!object.isKnown) return unknownValue(type.elem);
    const member = object.members.get(name.normalize());
    return (
      member ?? fail(`This map does not have an element with the key ${quote(name)}.`, "Missing map element")
    );
  }
  if (type.kind === "dynamic") return unknownDynamic;
  if (type.kind === "list" && type.elem.kind === "object") {
    const what = type.elem.attrs.has(name) ? `attribute ${quote(name)}` : "an attribute";
    return fail(
      `Can't access attributes on a list of objects. Did you mean to access ${what} for a specific element of the list, or across all elements of the list?`,
    );
  }
  if (type.kind === "set" && type.elem.kind === "object") {
    return fail(
      "Can't access attributes on a set of objects. Did you mean to access an attribute across all elements of the set?",
    );
  }
  if (isPrimitive(type))
    return fail(`Can't access attributes on a primitive-typed value (${friendlyName(type)}).`);
  return fail("This value does not have any attributes.");
}

/** Follows the steps after a traversal's root, or all of a relative one. */
export function followSteps(steps: Traversal, from: Value, diagnostics: Diagnostic[]): Value {
  let current = from;
  for (const step of steps) {
    const before = diagnostics.length;
    current =
      step.kind === "index"
        ? indexInto(current, step.key, step.range, diagnostics)
        : attributeOf(current, step.name, step.range, diagnostics);
    if (diagnostics.length > before) return unknownDynamic;
  }
  return current;
}

/** Looks a traversal up in its scope. */
export function resolveTraversal(
  traversal: Traversal,
  ctx: EvalContext | undefined,
  diagnostics: Diagnostic[],
): Value {
  const root = traversal[0]!;
  const name = root.kind === "index" ? "" : root.name;
  let scoped = false;
  for (let scope = ctx; scope !== undefined; scope = scope.parent) {
    if (scope.variables === undefined) continue;
    scoped = true;
    const value = scope.variables.get(name);
    if (value !== undefined)
      return traversal.length === 1 ? value : followSteps(traversal.slice(1), value, diagnostics);
  }
  if (!scoped) {
    diagnostics.push(errorAt("Variables not allowed", "Variables may not be used here.", root.range));
    return unknownDynamic;
  }
  const names: string[] = [];
  for (let scope = ctx; scope !== undefined; scope = scope.parent)
    names.push(...(scope.variables?.keys() ?? []));
  diagnostics.push(
    errorAt(
      "Unknown variable",
      `There is no variable named ${quote(name)}.${didYouMean(name, names)}`,
      root.range,
    ),
  );
  return unknownDynamic;
}
