import { convert, unify } from "../cty/convert.ts";
import {
  boolType,
  dynamicType,
  friendlyName,
  isCollection,
  listType,
  numberType,
  stringType,
  type Type,
  tupleType,
  typesEqual,
} from "../cty/type.ts";
import {
  boolValue,
  equals,
  hasIndex,
  indexValue,
  intValue,
  listValue,
  unknownValue,
  type Value,
} from "../cty/value.ts";
import { ArgumentError, FunctionError } from "../function.ts";
import { any, asInteger, type FunctionTable, fn, num, open, sequenceOf, texts, variadic } from "./support.ts";

const NOT_INDEXABLE = "collection must be a list, a map or a tuple";
const MAX_DEPTH = 1000;

function indexable(type: Type, ...more: Type["kind"][]): void {
  if (!["tuple", "list", "map", "dynamic", ...more].includes(type.kind))
    throw new FunctionError(NOT_INDEXABLE);
}

function prefixed(prefix: string, value: Value): number {
  try {
    return asInteger(value);
  } catch (error) {
    if (error instanceof FunctionError) throw new FunctionError(`${prefix}: ${error.message}`);
    throw error;
  }
}

function indexType(args: readonly Value[]): Type {
  const [{ type }, key] = [args[0]!, args[1]!];
  const { kind } = key.type;
  if (type.kind === "tuple") {
    if (kind !== "number" && kind !== "dynamic") throw new FunctionError("key for tuple must be number");
    if (!key.isKnown) return dynamicType;
    const index = prefixed("invalid key for tuple", key);
    const elem = type.elems[index];
    if (elem === undefined)
      throw new FunctionError(`key must be between 0 and ${type.elems.length} inclusive`);
    return elem;
  }
  if (type.kind === "list") {
    if (kind !== "number" && kind !== "dynamic") throw new FunctionError("key for list must be number");
    return type.elem;
  }
  if (type.kind === "map") {
    if (kind !== "string" && kind !== "dynamic") throw new FunctionError("key for map must be string");
    return type.elem;
  }
  throw new FunctionError(NOT_INDEXABLE);
}

function elementIndex(args: readonly Value[], length: number): number {
  const index = prefixed("invalid index", args[1]!);
  if (length === 0) throw new FunctionError("cannot use element function with an empty list");
  return ((index % length) + length) % length;
}

function elementType(args: readonly Value[]): Type {
  const { type } = args[0]!;
  if (type.kind === "list") return type.elem;
  if (type.kind !== "tuple") throw new FunctionError(`cannot read elements from ${friendlyName(type)}`);
  return args[1]!.isKnown ? type.elems[elementIndex(args, type.elems.length)]! : dynamicType;
}

function coalesceListType(args: readonly Value[]): Type {
  if (args.length === 0) throw new FunctionError("at least one argument is required");
  const first = args[0]!.type;
  let same = true;
  for (const { type, isKnown } of args) {
    if (!isKnown) return dynamicType;
    if (type.kind !== "list" && type.kind !== "tuple") {
      throw new FunctionError("coalescelist arguments must be lists or tuples");
    }
    same &&= typesEqual(type, first);
  }
  return same ? first : dynamicType;
}

function coalesceType(args: readonly Value[]): Type {
  const unified = unify(
    args.map((arg) => arg.type),
    true,
  );
  if (unified === undefined) throw new FunctionError("all arguments must have the same type");
  return unified.type;
}

function coalesce(args: readonly Value[], type: Type): Value {
  for (const arg of args) {
    if (!arg.isKnown) return unknownValue(type);
    if (!arg.isNull) return convert(arg, type);
  }
  throw new FunctionError("no non-null arguments");
}

function contains(args: readonly Value[]): Value {
  const [list, value] = [args[0]!, args[1]!];
  if (!["list", "tuple", "set"].includes(list.type.kind)) {
    throw new FunctionError("argument must be list, tuple, or set");
  }
  let unknown = false;
  for (const elem of list.elements) {
    const same = equals(value, elem);
    if (same.isTrue) return same;
    unknown ||= !same.isKnown;
  }
  return unknown ? unknownValue(boolType) : boolValue(false);
}

function distinct(args: readonly Value[], type: Type): Value {
  const kept: Value[] = [];
  for (const elem of args[0]!.elements)
    if (!kept.some((other) => equals(other, elem).isTrue)) kept.push(elem);
  return listValue(kept, isCollection(type) ? type.elem : dynamicType);
}

function chunk(args: readonly Value[]): Value {
  const [list, sizeArg] = [args[0]!, args[1]!];
  const size = prefixed("invalid size", sizeArg);
  if (size < 0) throw new FunctionError("the size argument must be positive");
  if (list.size === 0) return listValue([], list.type);
  if (size === 0) return listValue([list]);
  const chunks: Value[] = [];
  for (let i = 0; i < list.size; i += size) {
    chunks.push(
      listValue(list.elements.slice(i, i + size), isCollection(list.type) ? list.type.elem : dynamicType),
    );
  }
  return listValue(chunks);
}

function flattened(value: Value, depth = 0): Value[] {
  if (depth > MAX_DEPTH) throw new FunctionError("nesting too deep");
  const out: Value[] = [];
  for (const elem of value.elements) {
    const nested = !elem.isNull && elem.isKnown && ["list", "set", "tuple"].includes(elem.type.kind);
    if (nested) out.push(...flattened(elem, depth + 1));
    else out.push(elem);
  }
  return out;
}

function flattenType(args: readonly Value[]): Type {
  const value = args[0]!;
  if (!value.isWhollyKnown) return dynamicType;
  if (!["list", "set", "tuple"].includes(value.type.kind)) {
    throw new FunctionError("can only flatten lists, sets and tuples");
  }
  return tupleType(flattened(value).map((elem) => elem.type));
}

function reverseType(args: readonly Value[]): Type {
  const { type } = args[0]!;
  if (type.kind === "tuple") return tupleType([...type.elems].reverse());
  if (type.kind === "list" || type.kind === "set") return listType(type.elem);
  throw new ArgumentError(0, `can only reverse list or tuple values, not ${friendlyName(type)}`);
}

interface Slice {
  readonly start: number;
  readonly end: number;
}

function sliceBounds(args: readonly Value[]): Slice {
  const list = args[0]!;
  const bound = (index: number, name: string): number => {
    const wrap = (message: string): ArgumentError => new ArgumentError(index, message);
    let at: number;
    try {
      at = asInteger(args[index]!);
    } catch (error) {
      if (error instanceof FunctionError) throw wrap(`invalid ${name} index: ${error.message}`);
      throw error;
    }
    if (at < 0) throw wrap(`${name} index must not be less than zero`);
    if (list.isKnown && at > list.size)
      throw wrap(`${name} index must not be greater than the length of the list`);
    return at;
  };
  const start = bound(1, "start");
  const end = bound(2, "end");
  if (start > end) throw new ArgumentError(1, "start index must not be greater than end index");
  return { start, end };
}

function sliceType(args: readonly Value[]): Type {
  const { type } = args[0]!;
  if (type.kind === "set") {
    throw new ArgumentError(
      0,
      "cannot slice a set, because its elements do not have indices; explicitly convert to a list if the ordering of the result is not important",
    );
  }
  if (type.kind !== "list" && type.kind !== "tuple")
    throw new ArgumentError(0, "must be a list or tuple value");
  if (args.some((arg) => !arg.isKnown)) return type.kind === "list" ? type : dynamicType;
  const { start, end } = sliceBounds(args);
  return type.kind === "tuple" ? tupleType(type.elems.slice(start, end)) : type;
}

function concatType(args: readonly Value[]): Type {
  if (args.length === 0) throw new FunctionError("at least one argument is required");
  if (args.every((arg) => arg.type.kind === "list")) {
    const unified = unify(
      args.map((arg) => arg.type),
      true,
    );
    if (unified !== undefined) return unified.type;
  }
  const elems: Type[] = [];
  for (const [i, arg] of args.entries()) {
    const { type } = arg;
    if (type.kind === "tuple") elems.push(...type.elems);
    else if (type.kind === "list") {
      if (!arg.isKnown) return dynamicType;
      for (let n = 0; n < arg.size; n++) elems.push(type.elem);
    } else throw new ArgumentError(i, `all arguments must be lists or tuples; got ${friendlyName(type)}`);
  }
  return tupleType(elems);
}

function concat(args: readonly Value[], type: Type): Value {
  if (type.kind === "tuple")
    return sequenceOf(
      args.flatMap((arg) => arg.elements),
      type,
    );
  return sequenceOf(
    args.flatMap((arg) => convert(arg, type).elements),
    type,
  );
}

function indexOf(args: readonly Value[]): Value {
  const list = args[0]!;
  if (list.type.kind !== "list" && list.type.kind !== "tuple") {
    throw new FunctionError("argument must be a list or tuple");
  }
  if (list.size === 0) throw new FunctionError("cannot search an empty list");
  const index = list.elements.findIndex((elem) => equals(elem, args[1]!).isTrue);
  if (index < 0) throw new FunctionError("item not found");
  return intValue(index);
}

function compact(args: readonly Value[]): Value {
  return listValue(
    args[0]!.elements.filter((elem) => !elem.isNull && elem.string !== ""),
    stringType,
  );
}

const anyList = { name: "list", type: listType(dynamicType) };

/** Lists, tuples and sets, and what works on all collections. */
export const collectionFunctions: FunctionTable = {
  hasindex: fn(
    "Returns true if if the given collection can be indexed with the given key without producing an error, or false otherwise.",
    [open("collection"), open("key")].map((param) => ({ ...param, allowNull: false })),
    (args) => {
      indexable(args[0]!.type);
      return boolType;
    },
    ([collection, key]) => hasIndex(collection!, key!),
  ),
  index: fn(
    "Returns the element with the given key from the given collection, or raises an error if there is no such element.",
    [any("collection"), { ...any("key"), allowDynamic: true }],
    indexType,
    ([collection, key]) => {
      if (!hasIndex(collection!, key!).isTrue) throw new FunctionError("invalid index");
      return indexValue(collection!, key!);
    },
  ),
  length: fn(
    "Returns the number of elements in the given collection.",
    [{ ...any("collection"), allowDynamic: true, allowUnknown: true }],
    (args) => {
      indexable(args[0]!.type, "set");
      return numberType;
    },
    ([collection]) => (collection!.isKnown ? intValue(collection!.size) : unknownValue(numberType)),
  ),
  element: fn(
    "Returns the element with the given index from the given list or tuple, applying the modulo operation to the given index if it's greater than the number of elements.",
    [any("list"), { name: "index", type: numberType }],
    elementType,
    (args) => args[0]!.elements[elementIndex(args, args[0]!.size)]!,
  ),
  coalesce: variadic(
    fn(
      "Returns the first of the given arguments that isn't null, or raises an error if there are no non-null arguments.",
      [],
      coalesceType,
      coalesce,
    ),
    open("vals"),
  ),
  coalescelist: variadic(
    fn(
      "Returns the first of the given sequences that has a length greater than zero.",
      [],
      coalesceListType,
      (args) => {
        const found = args.find((arg) => !arg.isNull && arg.size > 0);
        if (found === undefined) throw new FunctionError("no non-null arguments");
        return found;
      },
    ),
    { ...open("vals"), allowUnknown: false },
  ),
  compact: fn(
    "Removes all empty string elements from the given list of strings.",
    [texts("list")],
    listType(stringType),
    compact,
  ),
  contains: fn(
    "Returns true if the given value is a value in the given list, tuple, or set, or false otherwise.",
    [any("list"), any("value")],
    boolType,
    contains,
  ),
  distinct: fn(
    "Removes any duplicate values from the given list, preserving the order of remaining elements.",
    [anyList],
    (args) => args[0]!.type,
    distinct,
  ),
  chunklist: fn(
    "Splits a single list into multiple lists where each has at most the given number of elements.",
    [anyList, { name: "size", type: numberType }],
    (args) => listType(args[0]!.type),
    chunk,
  ),
  flatten: fn(
    "Transforms a list, set, or tuple value into a tuple by replacing any given elements that are themselves sequences with a flattened tuple of all of the nested elements concatenated together.",
    [any("list")],
    flattenType,
    ([list], type) => sequenceOf(flattened(list!), type),
  ),
  reverselist: fn(
    "Returns the given list with its elements in reverse order.",
    [any("list")],
    reverseType,
    ([list], type) => sequenceOf([...list!.elements].reverse(), type),
  ),
  slice: fn(
    "Extracts a subslice of the given list or tuple value.",
    [any("list"), num("start_index"), num("end_index")],
    sliceType,
    (args, type) => {
      const { start, end } = sliceBounds(args);
      return sequenceOf(args[0]!.elements.slice(start, end), type);
    },
  ),
  concat: variadic(
    fn(
      "Concatenates together all of the given lists or tuples into a single sequence, preserving the input order.",
      [],
      concatType,
      concat,
    ),
    any("seqs"),
  ),
  indexof: fn(
    "Finds the element index for a given value in a list.",
    [any("list"), any("value")],
    numberType,
    indexOf,
  ),
};
