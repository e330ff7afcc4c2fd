import { checkTextLength, checkWeight, spend } from "../work.ts";
import { Num } from "./number.ts";
import { compareStrings, quote, sortedKeys } from "./text.ts";
import {
  boolType,
  conformanceError,
  dynamicType,
  hasDynamic,
  listType,
  mapType,
  numberType,
  objectType,
  setType,
  stringType,
  type Type,
  tupleType,
  typesEqual,
} from "./type.ts";

/** Steps that a comparison counts as. */
const COMPARISON = 1 / 16;

const UNKNOWN: unique symbol = Symbol("unknown");

/** What a value holds: null, the mark of the unknown, a primitive, or its elements. */
export type Raw =
  | null
  | typeof UNKNOWN
  | string
  | boolean
  | Num
  | readonly Value[]
  | ReadonlyMap<string, Value>
  | object;

/** An immutable, typed value: known, null or unknown. */
export class Value {
  readonly type: Type;
  readonly raw: Raw;
  #weight = 0;

  constructor(type: Type, raw: Raw) {
    this.type = type;
    this.raw = raw;
  }

  /** How many values there are within, itself included. Shared ones count as often as they appear. */
  get weight(): number {
    if (this.#weight > 0) return this.#weight;
    let sum = 1;
    if (Array.isArray(this.raw)) for (const elem of this.raw as readonly Value[]) sum += elem.weight;
    else if (this.raw instanceof Map)
      for (const elem of (this.raw as ReadonlyMap<string, Value>).values()) sum += elem.weight;
    this.#weight = sum;
    return sum;
  }

  get isNull(): boolean {
    return this.raw === null;
  }

  get isKnown(): boolean {
    return this.raw !== UNKNOWN;
  }

  /** True when nothing within is unknown. */
  get isWhollyKnown(): boolean {
    if (this.raw === UNKNOWN) return false;
    if (this.raw === null || typeof this.raw !== "object") return true;
    if (Array.isArray(this.raw)) return this.raw.every((elem: Value) => elem.isWhollyKnown);
    if (this.raw instanceof Map) return [...this.raw.values()].every((elem: Value) => elem.isWhollyKnown);
    return true;
  }

  get isTrue(): boolean {
    return this.raw === true;
  }

  /** The text of a known string. */
  get string(): string {
    if (typeof this.raw !== "string") throw new TypeError("not a string");
    return this.raw;
  }

  /** The number of a known number. */
  get number(): Num {
    if (!(this.raw instanceof Num)) throw new TypeError("not a number");
    return this.raw;
  }

  /** Elements of a known list, set or tuple; values of a map or object in the order of their keys. */
  get elements(): readonly Value[] {
    if (Array.isArray(this.raw)) return this.raw as readonly Value[];
    if (this.raw instanceof Map)
      return sortedKeys(this.raw).map((key) => (this.raw as ReadonlyMap<string, Value>).get(key)!);
    throw new TypeError("value has no elements");
  }

  /** Members of a known map or object, in no particular order. */
  get members(): ReadonlyMap<string, Value> {
    if (!(this.raw instanceof Map)) throw new TypeError("value has no members");
    return this.raw as ReadonlyMap<string, Value>;
  }

  /** Keys and values in iteration order: positions of sequences, sorted keys of maps, a set's values twice. */
  *entries(): Generator<readonly [Value, Value]> {
    if (this.raw instanceof Map) {
      for (const key of sortedKeys(this.raw)) yield [stringValue(key), this.members.get(key)!];
      return;
    }
    const set = this.type.kind === "set";
    for (const [i, elem] of this.elements.entries()) yield [set ? elem : intValue(i), elem];
  }

  /** Number of elements; an object's and a tuple's is known even when the value isn't. */
  get size(): number {
    if (this.type.kind === "tuple") return this.type.elems.length;
    if (this.type.kind === "object") return this.type.attrs.size;
    return this.raw instanceof Map ? this.raw.size : this.elements.length;
  }

  get isIterable(): boolean {
    return ["list", "set", "map", "tuple", "object"].includes(this.type.kind);
  }
}

export const trueValue = new Value(boolType, true);
export const falseValue = new Value(boolType, false);
/** The untyped null. */
export const nullDynamic = new Value(dynamicType, null);
/** Unknown, of unknown type: what failed expressions yield. */
export const unknownDynamic = new Value(dynamicType, UNKNOWN);
export const emptyTuple = new Value(tupleType([]), []);
export const emptyObject = new Value(objectType(new Map()), new Map());

export function boolValue(value: boolean): Value {
  return value ? trueValue : falseValue;
}

/** A string, in normal form C. */
export function stringValue(text: string): Value {
  checkTextLength(text.length);
  return new Value(stringType, text.normalize());
}

export function numberValue(value: Num): Value {
  return new Value(numberType, value);
}

export function intValue(value: number): Value {
  return new Value(numberType, Num.fromInt(value));
}

export function nullValue(type: Type): Value {
  return type.kind === "dynamic" ? nullDynamic : new Value(type, null);
}

export function unknownValue(type: Type): Value {
  return type.kind === "dynamic" ? unknownDynamic : new Value(type, UNKNOWN);
}

export function tupleValue(elems: readonly Value[]): Value {
  return bounded(new Value(tupleType(elems.map((elem) => elem.type)), elems));
}

/** An object; keys are brought to normal form C. */
export function objectValue(attrs: ReadonlyMap<string, Value>): Value {
  const types = new Map<string, Type>();
  const values = new Map<string, Value>();
  for (const [name, value] of attrs) {
    const key = name.normalize();
    types.set(key, value.type);
    values.set(key, value);
  }
  return bounded(new Value(objectType(types), values));
}

/** @throws WorkLimitError for a value that is too large. */
function bounded(value: Value): Value {
  checkWeight(value.weight);
  return value;
}

function retype(value: Value, type: Type): Value {
  return value.type === type || value.type.kind !== "dynamic" ? value : new Value(type, value.raw);
}

/** The one type of all elements, or `undefined`; untyped nulls and unknowns fit any. */
export function commonElementType(elems: Iterable<Value>): Type | undefined {
  let found: Type = dynamicType;
  for (const { type } of elems) {
    if (found.kind === "dynamic") found = type;
    else if (type.kind !== "dynamic" && !typesEqual(found, type)) return undefined;
  }
  return found;
}

function elementType(elems: Iterable<Value>, empty: Type): Type {
  const type = commonElementType(elems);
  if (type === undefined) throw new TypeError("inconsistent element types");
  return type.kind === "dynamic" ? empty : type;
}

/** A list of values of one type; `empty` is the element type when nothing tells it. */
export function listValue(elems: readonly Value[], empty: Type = dynamicType): Value {
  const type = elementType(elems, empty);
  return bounded(
    new Value(
      listType(type),
      elems.map((elem) => retype(elem, type)),
    ),
  );
}

export function mapValue(members: ReadonlyMap<string, Value>, empty: Type = dynamicType): Value {
  const type = elementType(members.values(), empty);
  const out = new Map<string, Value>();
  for (const [key, value] of members) out.set(key.normalize(), retype(value, type));
  return bounded(new Value(mapType(type), out));
}

/** A set; duplicates are dropped, the first of equals stays. */
export function setValue(elems: readonly Value[], empty: Type = dynamicType): Value {
  const type = elementType(elems, empty);
  const buckets = new Map<string, Value[]>();
  const kept: Value[] = [];
  for (const elem of elems) {
    const value = retype(elem, type);
    const key = setKey(value);
    const bucket = buckets.get(key) ?? [];
    if (bucket.some((other) => equals(other, value).raw === true)) continue;
    bucket.push(value);
    buckets.set(key, bucket);
    kept.push(value);
  }
  return new Value(setType(type), kept.sort(compareSetElements));
}

function compareSetElements(a: Value, b: Value): number {
  if (a.isNull || b.isNull) return Number(a.isNull) - Number(b.isNull);
  if (!a.isKnown || !b.isKnown) return Number(!a.isKnown) - Number(!b.isKnown);
  if (typeof a.raw === "string" && typeof b.raw === "string") return compareStrings(a.raw, b.raw);
  if (a.raw instanceof Num && b.raw instanceof Num) return a.raw.compare(b.raw);
  if (typeof a.raw === "boolean") return Number(a.raw) - Number(b.raw);
  return compareStrings(setKey(a), setKey(b));
}

/** The text by which sets of compound values are ordered. */
function setKey(value: Value): string {
  const { raw } = value;
  if (!value.isKnown) return "?";
  if (raw === null) return "~";
  if (raw instanceof Num) return raw.text("g", 10);
  if (typeof raw === "boolean") return raw ? "T" : "F";
  if (typeof raw === "string") return quote(raw);
  const elems = value.isIterable ? value.elements.map(setKey) : [];
  switch (value.type.kind) {
    case "map":
      return `{${sortedKeys(value.members)
        .map((key, i) => `${quote(key)}:${elems[i]};`)
        .join("")}}`;
    case "list":
    case "set":
      return `[${elems.map((elem) => `${elem};`).join("")}]`;
    case "capsule":
      return "«?»";
    default:
      return `<${elems.map((elem) => `${elem};`).join("")}>`;
  }
}

const unknownBool = unknownValue(boolType);

/** `==`: true, false, or an unknown bool. */
export function equals(a: Value, b: Value): Value {
  spend(COMPARISON);
  if (!a.isKnown || !b.isKnown) return equalsUnknown(a, b);
  if (a.isNull || b.isNull) return boolValue(a.isNull && b.isNull);
  if (hasDynamic(a.type) || hasDynamic(b.type)) {
    if (!isIterableDeepKnown(a) || !isIterableDeepKnown(b)) {
      const different =
        conformanceError(a.type, b.type) !== undefined && conformanceError(b.type, a.type) !== undefined;
      return different ? falseValue : unknownBool;
    }
  }
  if (!typesEqual(a.type, b.type)) return falseValue;
  if (a.raw instanceof Num) return boolValue(a.raw.equals(b.raw as Num));
  if (typeof a.raw !== "object") return boolValue(a.raw === b.raw);
  if (a.type.kind === "capsule") return boolValue(a.raw === b.raw);
  return equalsCompound(a, b);
}

function isIterableDeepKnown(value: Value): boolean {
  return value.isWhollyKnown;
}

function equalsUnknown(a: Value, b: Value): Value {
  if (!a.isKnown && !b.isKnown) return unknownBool;
  const [known, other] = a.isKnown ? [a, b] : [b, a];
  if (known.isNull || hasDynamic(other.type)) return unknownBool;
  return typesEqual(known.type, other.type) ? unknownBool : falseValue;
}

function equalsCompound(a: Value, b: Value): Value {
  if (a.size !== b.size) return falseValue;
  let unknown = false;
  if (a.raw instanceof Map) {
    for (const [key, value] of a.members) {
      const other = b.members.get(key);
      if (other === undefined) return falseValue;
      const same = equals(value, other);
      if (!same.isKnown) unknown = true;
      else if (same.raw === false) return unknown ? unknownBool : falseValue;
    }
    return unknown ? unknownBool : trueValue;
  }
  for (const [i, value] of a.elements.entries()) {
    const same = equals(value, b.elements[i]!);
    if (!same.isKnown) unknown = true;
    else if (same.raw === false) return unknown ? unknownBool : falseValue;
  }
  return unknown ? unknownBool : trueValue;
}

/** True when a set holds an equal element. */
export function setHas(set: Value, elem: Value): boolean {
  return set.elements.some((other) => equals(other, elem).raw === true);
}

/** Whether a list, map or tuple has an element at `key`; unknown when that can't be told. */
export function hasIndex(collection: Value, key: Value): Value {
  const { type } = collection;
  if (type.kind === "dynamic" || key.type.kind === "dynamic") return unknownBool;
  if (type.kind === "map") {
    if (key.type.kind !== "string") return falseValue;
    if (!key.isKnown || !collection.isKnown) return unknownBool;
    return boolValue(collection.members.has(key.string));
  }
  if (key.type.kind !== "number") return falseValue;
  if (!key.isKnown || (type.kind === "list" && !collection.isKnown)) return unknownBool;
  const index = key.number.toSafeInteger();
  return boolValue(index !== undefined && index >= 0 && index < collection.size);
}

/** The element at a key that {@link hasIndex} affirmed. */
export function indexValue(collection: Value, key: Value): Value {
  const { type } = collection;
  if (type.kind === "map")
    return collection.isKnown ? collection.members.get(key.string)! : unknownValue(type.elem);
  const index = key.number.toSafeInteger() ?? -1;
  if (collection.isKnown) return collection.elements[index]!;
  if (type.kind === "tuple") return unknownValue(type.elems[index]!);
  return unknownValue(type.kind === "list" ? type.elem : dynamicType);
}

/** The attribute of an object that has one of that name. */
export function getAttr(object: Value, name: string): Value {
  if (object.type.kind !== "object") throw new TypeError("not an object");
  const key = name.normalize();
  return object.isKnown ? object.members.get(key)! : unknownValue(object.type.attrs.get(key)!);
}
