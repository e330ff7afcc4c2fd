import { ConversionError, convert } from "../cty/convert.ts";
import { quote, sortedKeys } from "../cty/text.ts";
import {
  dynamicType,
  friendlyName,
  listType,
  mapType,
  objectType,
  stringType,
  type Type,
  tupleType,
  typesEqual,
} from "../cty/type.ts";
import {
  getAttr,
  listValue,
  mapValue,
  objectValue,
  stringValue,
  tupleValue,
  unknownValue,
  type Value,
} from "../cty/value.ts";
import { ArgumentError, FunctionError } from "../function.ts";
import { any, type FunctionTable, fn, sequenceOf, text, texts, variadic } from "./support.ts";

function keysType(args: readonly Value[]): Type {
  const { type } = args[0]!;
  if (type.kind === "map") return listType(stringType);
  if (type.kind === "object") return tupleType([...type.attrs.keys()].map(() => stringType));
  throw new ArgumentError(0, "must have map or object type");
}

function keys(args: readonly Value[]): Value {
  const { type } = args[0]!;
  if (type.kind === "object") return tupleValue(sortedKeys(type.attrs).map(stringValue));
  return listValue(sortedKeys(args[0]!.members).map(stringValue), stringType);
}

function lookupType(args: readonly Value[]): Type {
  const [map, key, fallback] = [args[0]!, args[1]!, args[2]!];
  if (map.type.kind === "object") {
    if (!key.isKnown) return dynamicType;
    return map.type.attrs.get(key.string) ?? fallback.type;
  }
  if (map.type.kind !== "map") throw new ArgumentError(0, "lookup() requires a map as the first argument");
  try {
    convert(fallback, map.type.elem);
  } catch (error) {
    if (!(error instanceof ConversionError)) throw error;
    throw new ArgumentError(2, "the default value must have the same type as the map elements");
  }
  return map.type.elem;
}

function lookup(args: readonly Value[], type: Type): Value {
  const [map, key] = [args[0]!, args[1]!.string];
  if (!map.isWhollyKnown) return unknownValue(type);
  if (map.type.kind === "object" && map.type.attrs.has(key)) return getAttr(map, key);
  const member = map.type.kind === "map" ? map.members.get(key) : undefined;
  return member ?? convert(args[2]!, type);
}

function mergeType(args: readonly Value[]): Type {
  if (args.length === 0) return objectType(new Map());
  const attrs = new Map<string, Type>();
  let known = true;
  for (const arg of args) {
    const { type } = arg;
    if (type.kind === "dynamic") return dynamicType;
    if (type.kind !== "map" && type.kind !== "object") {
      throw new FunctionError(`arguments must be maps or objects, got ${quote(friendlyName(type))}`);
    }
    if (arg.isNull) continue;
    if (type.kind === "object") for (const [name, attr] of type.attrs) attrs.set(name, attr);
    else if (arg.isKnown) for (const name of arg.members.keys()) attrs.set(name, type.elem);
    else known = false;
  }
  const first = args[0]!.type;
  if (args.every((arg) => typesEqual(arg.type, first))) return first;
  return known ? objectType(attrs) : dynamicType;
}

function merge(args: readonly Value[], type: Type): Value {
  const members = new Map<string, Value>();
  for (const arg of args) {
    if (arg.isNull) continue;
    for (const [key, value] of arg.members) members.set(key, value);
  }
  return type.kind === "map" ? mapValue(members, type.elem) : objectValue(members);
}

function valuesType(args: readonly Value[]): Type {
  const { type } = args[0]!;
  if (type.kind === "map") return listType(type.elem);
  if (type.kind === "object") return tupleType(sortedKeys(type.attrs).map((name) => type.attrs.get(name)!));
  throw new FunctionError("values() requires a map as the first argument");
}

function checkCounts(keyCount: number, valueCount: number): void {
  if (keyCount === valueCount) return;
  throw new FunctionError(`number of keys (${keyCount}) does not match number of values (${valueCount})`);
}

function zipmapType(args: readonly Value[]): Type {
  const [names, values] = [args[0]!, args[1]!];
  if (values.type.kind === "list") return mapType(values.type.elem);
  if (values.type.kind !== "tuple") throw new FunctionError("values argument must be a list or tuple value");
  if (!names.isWhollyKnown) return dynamicType;
  const elems: readonly Type[] = values.type.elems;
  checkCounts(names.size, elems.length);
  return objectType(
    new Map(
      names.elements.map((name, i) => {
        if (name.isNull) throw new FunctionError(`keys list has null value at index ${i}`);
        return [name.string, elems[i]!];
      }),
    ),
  );
}

function zipmap(args: readonly Value[], type: Type): Value {
  const [names, values] = [args[0]!, args[1]!];
  checkCounts(names.size, values.size);
  const members = new Map(names.elements.map((name, i) => [name.string, values.elements[i]!]));
  return type.kind === "map" ? mapValue(members, type.elem) : objectValue(members);
}

/** Maps and objects. */
export const mapFunctions: FunctionTable = {
  keys: fn(
    "Returns a list of the keys of the given map in lexicographical order.",
    [any("inputMap")],
    keysType,
    keys,
  ),
  values: fn(
    "Returns the values of elements of a given map, or the values of attributes of a given object, in lexicographic order by key or attribute name.",
    [any("mapping")],
    valuesType,
    ([map], type) => sequenceOf(map!.elements, type),
  ),
  lookup: fn(
    "Returns the value of the element with the given key from the given map, or returns the default value if there is no such element.",
    [any("inputMap"), text("key"), any("default")],
    lookupType,
    lookup,
  ),
  merge: variadic(
    fn(
      "Merges all of the elements from the given maps into a single map, or the attributes from given objects into a single object.",
      [],
      mergeType,
      merge,
    ),
    { ...any("maps"), allowDynamic: true, allowNull: true },
  ),
  zipmap: fn(
    "Constructs a map from a list of keys and a corresponding list of values, which must both be of the same length.",
    [texts("keys"), any("values")],
    zipmapType,
    zipmap,
  ),
};
