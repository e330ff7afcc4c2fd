import {
  type CollectionType,
  dynamicType,
  isPrimitive,
  listType,
  mapType,
  type ObjectType,
  objectType,
  type TupleType,
  type Type,
  tupleType,
  typesEqual,
} from "./type.ts";
import { unknownDynamic, type Value } from "./value.ts";

/** Changes a value's type; throws when the value has no such form. */
export type Conversion = (value: Value) => Value;

/** Looks for a conversion between two types; without `unsafe`, only for those that can't fail. */
export type FindConversion = (from: Type, to: Type, unsafe: boolean) => Conversion | undefined;

/** Where unification finds its conversions, and whether they may fail. */
export interface Conversions {
  readonly find: FindConversion;
  readonly unsafe: boolean;
}

/** A common type, and for each given type how to get there (`undefined`: it is already that type). */
export interface Unified {
  readonly type: Type;
  readonly conversions: readonly (Conversion | undefined)[];
}

/** Finds one type for values of several; `undefined` when there is none. */
export function unify(types: readonly Type[], how: Conversions): Unified | undefined {
  if (types.length === 0) return undefined;
  const count = (kind: Type["kind"]): number => types.filter((type) => type.kind === kind).length;
  const dynamics = count("dynamic");
  const maps = count("map");
  const lists = count("list");
  const sets = count("set");
  const objects = count("object");
  const tuples = count("tuple");
  const all = (n: number): boolean => n > 0 && n + dynamics === types.length;
  if (all(maps)) return unifyCollections("map", types, how);
  if (maps > 0 && all(maps + objects)) {
    const unified = unifyMixed(types, "object", how);
    if (unified !== undefined) return unified;
  } else if (all(lists)) return unifyCollections("list", types, how);
  else if (lists > 0 && all(lists + tuples)) {
    const unified = unifyMixed(types, "tuple", how);
    if (unified !== undefined) return unified;
  } else if (all(sets)) return unifyCollections("set", types, how);
  else if (all(objects))
    return dynamics > 0 ? allDynamic(types) : unifyObjects(types as readonly ObjectType[], how);
  else if (all(tuples))
    return dynamics > 0 ? allDynamic(types) : unifyTuples(types as readonly TupleType[], how);
  else if (objects > 0 && tuples > 0) return undefined;
  return unifyByPreference(types, how);
}

function unifyByPreference(types: readonly Type[], how: Conversions): Unified | undefined {
  for (const want of sortTypes(types)) {
    const unified = convertAll(types, want, how);
    if (unified !== undefined) return unified;
  }
  return undefined;
}

function convertAll(types: readonly Type[], want: Type, how: Conversions): Unified | undefined {
  const conversions: (Conversion | undefined)[] = [];
  for (const type of types) {
    if (typesEqual(type, want)) {
      conversions.push(undefined);
      continue;
    }
    const conversion = how.find(type, want, how.unsafe);
    if (conversion === undefined) return undefined;
    conversions.push(conversion);
  }
  return { type: want, conversions };
}

function allDynamic(types: readonly Type[]): Unified {
  return { type: dynamicType, conversions: types.map(() => () => unknownDynamic) };
}

function unifyCollections(
  kind: "list" | "set" | "map",
  types: readonly Type[],
  how: Conversions,
): Unified | undefined {
  if (types.some((type) => type.kind === "dynamic")) return allDynamic(types);
  const elem = unify(
    types.map((type) => (type as CollectionType).elem),
    how,
  );
  return elem === undefined ? undefined : convertAll(types, { kind, elem: elem.type }, how);
}

/** Maps with objects, or lists with tuples: the structural ones first become collections of one type. */
function unifyMixed(types: readonly Type[], kind: "object" | "tuple", how: Conversions): Unified | undefined {
  const structural = types.filter((type) => type.kind === kind);
  const common =
    kind === "object"
      ? objectsToMap(structural as readonly ObjectType[], how)
      : tuplesToList(structural as readonly TupleType[], how);
  if (common === undefined) return undefined;
  const unified = unify(
    types.map((type) => (type.kind === kind ? common.type : type)),
    how,
  );
  if (unified === undefined || unified.type.kind !== common.type.kind) return undefined;
  let next = 0;
  const conversions = types.map((type, i) => {
    if (type.kind !== kind) return unified.conversions[i];
    const first = common.conversions[next++];
    const second = unified.conversions[i];
    if (second === undefined) return first;
    return (value: Value) => second(first === undefined ? value : first(value));
  });
  return { type: unified.type, conversions };
}

function objectsToMap(types: readonly ObjectType[], how: Conversions): Unified | undefined {
  const elem = unify(
    types.flatMap((type) => [...type.attrs.values()]),
    how,
  );
  return elem === undefined ? undefined : convertAll(types, mapType(elem.type), how);
}

function tuplesToList(types: readonly TupleType[], how: Conversions): Unified | undefined {
  const elem = unify(
    types.flatMap((type) => [...type.elems]),
    how,
  );
  return elem === undefined ? undefined : convertAll(types, listType(elem.type), how);
}

function unifyObjects(types: readonly ObjectType[], how: Conversions): Unified | undefined {
  const first = types[0]!.attrs;
  const same = types.every(
    (type) => type.attrs.size === first.size && [...type.attrs.keys()].every((name) => first.has(name)),
  );
  if (!same) return objectsToMap(types, how);
  const attrs = new Map<string, Type>();
  for (const name of first.keys()) {
    const attr = unify(
      types.map((type) => type.attrs.get(name)!),
      how,
    );
    if (attr === undefined) return undefined;
    attrs.set(name, attr.type);
  }
  return convertAll(types, objectType(attrs), how) ?? objectsToMap(types, how);
}

function unifyTuples(types: readonly TupleType[], how: Conversions): Unified | undefined {
  const { length } = types[0]!.elems;
  if (types.some((type) => type.elems.length !== length)) return tuplesToList(types, how);
  const elems: Type[] = [];
  for (let i = 0; i < length; i++) {
    const elem = unify(
      types.map((type) => type.elems[i]!),
      how,
    );
    if (elem === undefined) return undefined;
    elems.push(elem.type);
  }
  return convertAll(types, tupleType(elems), how) ?? tuplesToList(types, how);
}

/** Most general types first; otherwise in the given order. */
function sortTypes(types: readonly Type[]): Type[] {
  const rest = types.map((type) => type);
  const sorted: Type[] = [];
  while (rest.length > 0) {
    let best = rest.findIndex((type) => rest.every((other) => compareTypes(other, type) >= 0));
    if (best < 0) best = 0;
    sorted.push(...rest.splice(best, 1));
  }
  return sorted;
}

/** Negative when `a` is the more general type: what the other can be converted to. */
function compareTypes(a: Type, b: Type): number {
  if (a.kind === "dynamic" || b.kind === "dynamic") {
    return Number(b.kind !== "dynamic" ? 1 : 0) - Number(a.kind !== "dynamic" ? 1 : 0);
  }
  if (isPrimitive(a) && isPrimitive(b)) {
    if (a.kind === "string") return b.kind === "string" ? 0 : -1;
    return b.kind === "string" ? 1 : 0;
  }
  if (a.kind === b.kind) return compareSameKind(a, b);
  if (a.kind === "list" && b.kind === "tuple") return -1;
  if (a.kind === "tuple" && b.kind === "list") return 1;
  if (a.kind === "map" && b.kind === "object") return -1;
  if (a.kind === "object" && b.kind === "map") return 1;
  if (b.kind === "set" && (a.kind === "tuple" || a.kind === "list")) return -1;
  if (a.kind === "set" && (b.kind === "tuple" || b.kind === "list")) return 1;
  return 0;
}

function compareSameKind(a: Type, b: Type): number {
  if (a.kind === "object") {
    const other = (b as ObjectType).attrs;
    if (a.attrs.size !== other.size) return 0;
    const orders: number[] = [];
    for (const [name, type] of a.attrs) {
      const match = other.get(name);
      if (match === undefined) return 0;
      orders.push(compareTypes(type, match));
    }
    return combine(orders);
  }
  if (a.kind === "tuple") {
    const other = (b as TupleType).elems;
    if (a.elems.length !== other.length) return 0;
    return combine(a.elems.map((elem, i) => compareTypes(elem, other[i]!)));
  }
  if (a.kind === "list" || a.kind === "set" || a.kind === "map")
    return compareTypes(a.elem, (b as CollectionType).elem);
  return 0;
}

function combine(orders: readonly number[]): number {
  const less = orders.some((order) => order < 0);
  const more = orders.some((order) => order > 0);
  if (less === more) return 0;
  return less ? -1 : 1;
}
