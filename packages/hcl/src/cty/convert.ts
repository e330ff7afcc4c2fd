import { describeMismatch } from "./mismatch.ts";
import { Num } from "./number.ts";
import { sortedKeys } from "./text.ts";
import {
  type CollectionType,
  dynamicType,
  isCollection,
  isPrimitive,
  listType,
  mapType,
  type ObjectType,
  objectType,
  setType,
  type TupleType,
  type Type,
  tupleType,
  typesEqual,
  withoutOptionals,
} from "./type.ts";
import { type Conversion, type Unified, unify as unifyTypes } from "./unify.ts";
import {
  boolValue,
  commonElementType,
  emptyObject,
  listValue,
  mapValue,
  nullValue,
  numberValue,
  objectValue,
  setValue,
  stringValue,
  tupleValue,
  unknownValue,
  type Value,
} from "./value.ts";

/** A value that can't be what is wanted; the message says why. */
export class ConversionError extends Error {}

/** Finds one type for values of several; `undefined` when there is none. */
export function unify(types: readonly Type[], unsafe: boolean): Unified | undefined {
  return unifyTypes(types, { find: getConversion, unsafe });
}

/** Says why a value of type `got` can't become a `want`. */
export function mismatchMessage(got: Type, want: Type): string {
  return describeMismatch(got, want, getConversion);
}

/** Converts a value, or throws {@link ConversionError}. Strings become numbers and bools where they read as one. */
export function convert(value: Value, want: Type): Value {
  if (typesEqual(value.type, withoutOptionals(want))) return value;
  const conversion = getConversion(value.type, want, true);
  if (conversion === undefined) throw new ConversionError(mismatchMessage(value.type, want));
  return conversion(value);
}

/** The conversion between two types, `undefined` when there is none; without `unsafe`, only those that can't fail. */
export function getConversion(from: Type, to: Type, unsafe: boolean): Conversion | undefined {
  const known = knownConversion(from, to, unsafe);
  if (known === undefined) return undefined;
  return (value) => {
    if (to.kind === "dynamic") return value;
    if (!value.isKnown) return unknownValue(replaceDynamic(value.type, withoutOptionals(to)));
    if (value.isNull) return nullValue(replaceDynamic(value.type, withoutOptionals(to)));
    return known(value);
  };
}

function knownConversion(from: Type, to: Type, unsafe: boolean): Conversion | undefined {
  if (to.kind === "dynamic") return (value) => value;
  if (from.kind === "dynamic") return unsafe ? (value) => convert(value, to) : undefined;
  if (isPrimitive(from) && isPrimitive(to)) return primitiveConversion(from, to, unsafe);
  if (to.kind === "object" && from.kind === "object") return objectToObject(from, to, unsafe);
  if (to.kind === "tuple" && from.kind === "tuple") return tupleToTuple(from, to, unsafe);
  if (to.kind === "list" || to.kind === "set") {
    if (from.kind === "tuple") return tupleToSequence(from, to, unsafe);
    if (from.kind === "list" || from.kind === "set") return sequenceToSequence(from, to, unsafe);
    return undefined;
  }
  if (to.kind === "map") {
    if (from.kind === "map") return mapToMap(from, to, unsafe);
    return from.kind === "object" ? objectToMap(from, to, unsafe) : undefined;
  }
  return to.kind === "object" && from.kind === "map" && unsafe ? mapToObject(from, to) : undefined;
}

function primitiveConversion(from: Type, to: Type, unsafe: boolean): Conversion | undefined {
  if (to.kind === "string") {
    if (from.kind === "number") return (value) => stringValue(value.number.toString());
    if (from.kind === "bool") return (value) => stringValue(value.isTrue ? "true" : "false");
    return undefined;
  }
  if (!unsafe || from.kind !== "string") return undefined;
  return to.kind === "number" ? stringToNumber : stringToBool;
}

function stringToNumber(value: Value): Value {
  const parsed = Num.parse(value.string);
  if (parsed === undefined) throw new ConversionError("a number is required");
  return numberValue(parsed);
}

function stringToBool(value: Value): Value {
  const text = value.string;
  if (text === "true" || text === "1") return boolValue(true);
  if (text === "false" || text === "0") return boolValue(false);
  const lower = text.toLowerCase();
  if (lower === "true" || lower === "false") {
    throw new ConversionError(`a bool is required; to convert from string, use lowercase "${lower}"`);
  }
  throw new ConversionError("a bool is required");
}

function plainNull(value: Value): Value {
  return value.isNull ? nullValue(withoutOptionals(value.type)) : value;
}

/** For each pair: `null` to keep, a conversion, or `undefined` when one is impossible. */
function elementConversion(from: Type, to: Type, unsafe: boolean): Conversion | null | undefined {
  return typesEqual(from, to) ? null : getConversion(from, to, unsafe);
}

function objectToObject(from: ObjectType, to: ObjectType, unsafe: boolean): Conversion | undefined {
  const conversions = new Map<string, Conversion | null>();
  for (const [name, type] of to.attrs) {
    const source = from.attrs.get(name);
    if (source === undefined) {
      if (to.optional.has(name)) continue;
      return undefined;
    }
    const conversion = elementConversion(source, type, unsafe);
    if (conversion === undefined) return undefined;
    conversions.set(name, conversion);
  }
  return (value) => {
    const attrs = new Map<string, Value>();
    for (const name of sortedKeys(value.members)) {
      const conversion = conversions.get(name);
      if (conversion === undefined) continue;
      const attr = value.members.get(name)!;
      attrs.set(name, plainNull(conversion === null ? attr : conversion(attr)));
    }
    for (const name of to.optional) {
      if (!attrs.has(name)) attrs.set(name, nullValue(withoutOptionals(to.attrs.get(name)!)));
    }
    return attrs.size === 0 ? emptyObject : objectValue(attrs);
  };
}

function tupleToTuple(from: TupleType, to: TupleType, unsafe: boolean): Conversion | undefined {
  if (from.elems.length !== to.elems.length) return undefined;
  const conversions: (Conversion | null)[] = [];
  for (const [i, elem] of to.elems.entries()) {
    const conversion = elementConversion(from.elems[i]!, elem, unsafe);
    if (conversion === undefined) return undefined;
    conversions.push(conversion);
  }
  return (value) => tupleValue(value.elements.map((elem, i) => conversions[i]?.(elem) ?? elem));
}

function sequence(kind: "list" | "set", elems: readonly Value[], empty: Type): Value {
  if (commonElementType(elems) === undefined) {
    throw new ConversionError(`element types must all match for conversion to ${kind}`);
  }
  return kind === "list" ? listValue(elems, empty) : setValue(elems, empty);
}

function sequenceToSequence(
  from: CollectionType,
  to: CollectionType,
  unsafe: boolean,
): Conversion | undefined {
  if (to.kind === "set" && from.kind === "list" && !unsafe) return undefined;
  const conversion = elementConversion(from.elem, to.elem, unsafe);
  if (conversion === undefined) return undefined;
  const kind = to.kind === "set" ? "set" : "list";
  const empty = to.elem.kind === "dynamic" ? from.elem : withoutOptionals(to.elem);
  return (value) => {
    const elems = value.elements.map((elem) => plainNull(conversion === null ? elem : conversion(elem)));
    return sequence(kind, elems, empty);
  };
}

function tupleToSequence(from: TupleType, to: CollectionType, unsafe: boolean): Conversion | undefined {
  const kind = to.kind === "set" ? "set" : "list";
  if (from.elems.length === 0) {
    const empty = withoutOptionals(to.elem);
    return () => (kind === "set" ? setValue([], empty) : listValue([], empty));
  }
  let want = to.elem;
  if (want.kind === "dynamic") {
    const unified = unify(from.elems, unsafe)?.type;
    if (unified === undefined) return undefined;
    want = unified;
    if (want.kind === "dynamic" && from.elems.some((elem) => elem.kind !== "dynamic")) return undefined;
  }
  const conversions: (Conversion | null)[] = [];
  for (const elem of from.elems) {
    const conversion = elementConversion(elem, want, unsafe);
    if (conversion === undefined) return undefined;
    conversions.push(conversion);
  }
  const empty = withoutOptionals(want);
  return (value) => {
    const elems = value.elements.map((elem, i) => plainNull(conversions[i]?.(elem) ?? elem));
    return sequence(kind, kind === "list" ? unifyAll(elems, unsafe) : elems, empty);
  };
}

/** Brings elements to one type: conversions to `any` within may have left them different. */
function unifyAll(elems: readonly Value[], unsafe: boolean): Value[] {
  const first = elems[0]!.type;
  if (elems.every((elem) => typesEqual(elem.type, first))) return [...elems];
  const unified = unify(
    elems.map((elem) => elem.type),
    unsafe,
  );
  if (unified === undefined) throw new ConversionError("cannot find a common base type for all elements");
  return elems.map((elem) =>
    typesEqual(elem.type, unified.type)
      ? elem
      : (getConversion(elem.type, unified.type, unsafe)?.(elem) ?? elem),
  );
}

function mapOf(members: Map<string, Value>, empty: Type, noun: string, unsafe: boolean): Value {
  let unified = members;
  if (members.size > 0 && (isCollection(empty) || empty.kind === "object")) {
    const keys = [...members.keys()];
    const values = unifyAll([...members.values()], unsafe);
    unified = new Map(keys.map((key, i) => [key, values[i]!]));
  }
  if (commonElementType(unified.values()) === undefined) {
    throw new ConversionError(`${noun} types must all match for conversion to map`);
  }
  return mapValue(unified, empty);
}

function mapToMap(from: CollectionType, to: CollectionType, unsafe: boolean): Conversion | undefined {
  const conversion =
    getConversion(from.elem, to.elem, unsafe) ??
    (typesEqual(from.elem, to.elem) ? (v: Value) => v : undefined);
  if (conversion === undefined) return undefined;
  const empty = to.elem.kind === "dynamic" ? from.elem : withoutOptionals(to.elem);
  return (value) => {
    const members = new Map<string, Value>();
    for (const [key, elem] of value.entries()) members.set(key.string, conversion(elem));
    return mapOf(members, empty, "element", false);
  };
}

function objectToMap(from: ObjectType, to: CollectionType, unsafe: boolean): Conversion | undefined {
  if (from.attrs.size === 0) {
    const empty = withoutOptionals(to.elem);
    return () => mapValue(new Map(), empty);
  }
  let want = to.elem;
  if (want.kind === "dynamic") {
    const unified = unify([...from.attrs.values()], unsafe)?.type;
    if (unified === undefined) return undefined;
    want = unified;
  }
  const conversions = new Map<string, Conversion | null>();
  for (const [name, type] of from.attrs) {
    const conversion = elementConversion(type, want, unsafe);
    if (conversion === undefined) return undefined;
    conversions.set(name, conversion);
  }
  const empty = withoutOptionals(want);
  return (value) => {
    const members = new Map<string, Value>();
    for (const name of sortedKeys(value.members)) {
      const attr = value.members.get(name)!;
      members.set(name, conversions.get(name)?.(attr) ?? attr);
    }
    return mapOf(members, empty, "attribute", unsafe);
  };
}

function mapToObject(from: CollectionType, to: ObjectType): Conversion | undefined {
  const conversions = new Map<string, Conversion | null | undefined>();
  for (const [name, type] of to.attrs) {
    const conversion = elementConversion(from.elem, type, true);
    if (conversion === undefined && !to.optional.has(name)) return undefined;
    conversions.set(name, conversion);
  }
  return (value) => {
    const attrs = new Map<string, Value>();
    for (const name of sortedKeys(value.members)) {
      const type = to.attrs.get(name);
      if (type === undefined) continue;
      const elem = value.members.get(name)!;
      const conversion = conversions.get(name);
      if (conversion === undefined) {
        const why = mismatchMessage(elem.type, type);
        throw new ConversionError(
          `map element type is incompatible with attribute ${JSON.stringify(name)}: ${why}`,
        );
      }
      attrs.set(name, plainNull(conversion === null ? elem : conversion(elem)));
    }
    for (const name of sortedKeys(to.attrs)) {
      if (attrs.has(name)) continue;
      if (!to.optional.has(name)) {
        throw new ConversionError(`map has no element for required attribute ${JSON.stringify(name)}`);
      }
      attrs.set(name, nullValue(to.attrs.get(name)!));
    }
    return objectValue(attrs);
  };
}

/** The wanted type with `any` filled in from the type at hand, for nulls and unknowns. */
function replaceDynamic(from: Type, to: Type): Type {
  if (from.kind === "dynamic") return to;
  if (to.kind === "dynamic") return from;
  if (to.kind === "map") return mapType(replaceElement(from, to, ["map"], "object"));
  if (to.kind === "list") return listType(replaceElement(from, to, ["list", "set"], "tuple"));
  if (to.kind === "set") return setType(replaceElement(from, to, ["list", "set"], "tuple"));
  if (to.kind === "tuple") {
    const source = from.kind === "tuple" ? from.elems : [];
    return tupleType(to.elems.map((elem, i) => replaceDynamic(source[i] ?? dynamicType, elem)));
  }
  if (to.kind === "object") {
    const source = from.kind === "object" ? from.attrs : new Map<string, Type>();
    return objectType(
      new Map(
        [...to.attrs].map(([name, type]) => [name, replaceDynamic(source.get(name) ?? dynamicType, type)]),
      ),
    );
  }
  return to;
}

function replaceElement(
  from: Type,
  to: CollectionType,
  kinds: readonly string[],
  structural: "object" | "tuple",
): Type {
  if (isCollection(from) && kinds.includes(from.kind)) return replaceDynamic(from.elem, to.elem);
  if (from.kind !== structural) return to.elem;
  const types =
    from.kind === "object" ? [...from.attrs.values()] : from.kind === "tuple" ? [...from.elems] : [];
  const unified = unify(types, true);
  return unified === undefined ? dynamicType : replaceDynamic(unified.type, to.elem);
}
