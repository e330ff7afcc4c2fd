import { sortedKeys } from "./text.ts";

/** A type of the value system. Compare with {@link typesEqual}. */
export type Type =
  | { readonly kind: "string" | "number" | "bool" | "dynamic" }
  | { readonly kind: "list" | "set" | "map"; readonly elem: Type }
  | { readonly kind: "tuple"; readonly elems: readonly Type[] }
  | {
      readonly kind: "object";
      readonly attrs: ReadonlyMap<string, Type>;
      readonly optional: ReadonlySet<string>;
    }
  | { readonly kind: "capsule"; readonly name: string };

export type ObjectType = Extract<Type, { kind: "object" }>;
export type TupleType = Extract<Type, { kind: "tuple" }>;
export type CollectionType = Extract<Type, { kind: "list" | "set" | "map" }>;

export const stringType: Type = { kind: "string" };
export const numberType: Type = { kind: "number" };
export const boolType: Type = { kind: "bool" };
/** Any type; also the type of an untyped null. */
export const dynamicType: Type = { kind: "dynamic" };

const NO_OPTIONALS: ReadonlySet<string> = new Set();

export function listType(elem: Type): CollectionType {
  return { kind: "list", elem };
}

export function setType(elem: Type): CollectionType {
  return { kind: "set", elem };
}

export function mapType(elem: Type): CollectionType {
  return { kind: "map", elem };
}

export function tupleType(elems: readonly Type[]): TupleType {
  return { kind: "tuple", elems };
}

export function objectType(
  attrs: ReadonlyMap<string, Type>,
  optional: ReadonlySet<string> = NO_OPTIONALS,
): ObjectType {
  return { kind: "object", attrs, optional };
}

export function isPrimitive(type: Type): boolean {
  return type.kind === "string" || type.kind === "number" || type.kind === "bool";
}

export function isCollection(type: Type): type is CollectionType {
  return type.kind === "list" || type.kind === "set" || type.kind === "map";
}

/** True for the same type, optional attributes included. */
export function typesEqual(a: Type, b: Type): boolean {
  if (a === b) return true;
  if (a.kind !== b.kind) return false;
  switch (a.kind) {
    case "list":
    case "set":
    case "map":
      return typesEqual(a.elem, (b as CollectionType).elem);
    case "tuple": {
      const other = (b as TupleType).elems;
      return a.elems.length === other.length && a.elems.every((elem, i) => typesEqual(elem, other[i]!));
    }
    case "object":
      return objectsEqual(a, b as ObjectType);
    case "capsule":
      return false;
    default:
      return true;
  }
}

function objectsEqual(a: ObjectType, b: ObjectType): boolean {
  if (a.attrs.size !== b.attrs.size) return false;
  for (const [name, type] of a.attrs) {
    const other = b.attrs.get(name);
    if (other === undefined || !typesEqual(type, other)) return false;
    if (a.optional.has(name) !== b.optional.has(name)) return false;
  }
  return true;
}

/** True when `any` occurs anywhere within. */
export function hasDynamic(type: Type): boolean {
  if (type.kind === "dynamic") return true;
  if (isCollection(type)) return hasDynamic(type.elem);
  if (type.kind === "tuple") return type.elems.some(hasDynamic);
  if (type.kind === "object") return [...type.attrs.values()].some(hasDynamic);
  return false;
}

/** The type without `optional()` marks at any depth. */
export function withoutOptionals(type: Type): Type {
  if (isCollection(type)) return { kind: type.kind, elem: withoutOptionals(type.elem) };
  if (type.kind === "tuple") return tupleType(type.elems.map(withoutOptionals));
  if (type.kind === "object") {
    return objectType(new Map([...type.attrs].map(([name, attr]) => [name, withoutOptionals(attr)])));
  }
  return type;
}

/** The type's name for messages; with `constraint`, as a wanted type reads. */
export function friendlyName(type: Type, constraint = false): string {
  if (isCollection(type)) {
    const any = constraint && type.elem.kind === "dynamic";
    return `${type.kind} of ${any ? "any single type" : friendlyName(type.elem, constraint)}`;
  }
  if (type.kind === "dynamic") return constraint ? "any type" : "dynamic";
  if (type.kind === "capsule") return type.name;
  return type.kind;
}

/** What keeps `given` from being a `want`; `undefined` when it is one. */
export function conformanceError(given: Type, want: Type): string | undefined {
  if (want.kind === "dynamic" || typesEqual(given, want)) return undefined;
  if (given.kind === "object" && want.kind === "object") return objectConformance(given, want);
  if (given.kind === "tuple" && want.kind === "tuple") {
    if (given.elems.length !== want.elems.length) {
      return `${want.elems.length} elements are required, but got ${given.elems.length}`;
    }
    for (const [i, elem] of want.elems.entries()) {
      const error = conformanceError(given.elems[i]!, elem);
      if (error !== undefined) return error;
    }
    return undefined;
  }
  if (isCollection(given) && isCollection(want) && given.kind === want.kind) {
    return conformanceError(given.elem, want.elem);
  }
  return `${friendlyName(want)} required, but received ${friendlyName(given)}`;
}

function objectConformance(given: ObjectType, want: ObjectType): string | undefined {
  for (const name of sortedKeys(given.attrs)) {
    if (!want.attrs.has(name)) return `unsupported attribute ${JSON.stringify(name)}`;
  }
  for (const name of sortedKeys(want.attrs)) {
    if (!given.attrs.has(name)) return `missing required attribute ${JSON.stringify(name)}`;
  }
  for (const [name, type] of want.attrs) {
    const error = conformanceError(given.attrs.get(name)!, type);
    if (error !== undefined) return error;
  }
  return undefined;
}
