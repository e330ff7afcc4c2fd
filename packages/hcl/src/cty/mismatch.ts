import { sortedKeys } from "./text.ts";
import {
  type CollectionType,
  friendlyName,
  hasDynamic,
  isCollection,
  isPrimitive,
  type ObjectType,
  type Type,
  typesEqual,
} from "./type.ts";
import type { FindConversion } from "./unify.ts";

/** Says why a value of type `got` can't become a `want`. */
export function describeMismatch(got: Type, want: Type, find: FindConversion): string {
  if (got.kind === "object" && want.kind === "object") return objectMismatch(got, want, find);
  if (isCollection(want) && want.elem.kind === "dynamic") {
    if (got.kind === "tuple" && want.kind !== "map")
      return `all ${want.kind} elements must have the same type`;
    if (got.kind === "object" && want.kind === "map") return "all map elements must have the same type";
  }
  if (isCollection(want)) {
    if (got.kind === "tuple" || got.kind === "object") return structuralMismatch(got, want, find);
    if (isCollection(got)) return collectionMismatch(got, want, find);
  }
  if (!confusing(got, want)) return `${friendlyName(want)} required, but have ${friendlyName(got)}`;
  return `${friendlyName(want, true)} required`;
}

function objectMismatch(got: ObjectType, want: ObjectType, find: FindConversion): string {
  const missing = sortedKeys(want.attrs).filter((name) => !got.attrs.has(name) && !want.optional.has(name));
  if (missing.length > 0) return missingAttributes(missing.map((name) => JSON.stringify(name)));
  for (const unsafe of [true, false]) {
    for (const name of sortedKeys(want.attrs)) {
      const have = got.attrs.get(name);
      const need = want.attrs.get(name)!;
      if (have === undefined || typesEqual(have, need) || find(have, need, unsafe) !== undefined) continue;
      return `attribute ${JSON.stringify(name)}: ${describeMismatch(have, need, find)}`;
    }
  }
  return "incorrect object attributes";
}

function missingAttributes(names: readonly string[]): string {
  if (names.length === 1) return `attribute ${names[0]} is required`;
  if (names.length === 2) return `attributes ${names[0]} and ${names[1]} are required`;
  return `attributes ${names.slice(0, -1).join(", ")}, and ${names.at(-1)} are required`;
}

function structuralMismatch(got: Type, want: CollectionType, find: FindConversion): string {
  const fits = want.kind === "map" ? got.kind === "object" : got.kind === "tuple";
  if (!fits) return `${friendlyName(want, true)} required`;
  const members: readonly (readonly [string, Type])[] =
    got.kind === "tuple"
      ? got.elems.map((elem, i) => [String(i), elem] as const)
      : got.kind === "object"
        ? sortedKeys(got.attrs).map((name) => [JSON.stringify(name), got.attrs.get(name)!] as const)
        : [];
  for (const [label, type] of members) {
    if (typesEqual(type, want.elem) || find(type, want.elem, true) !== undefined) continue;
    return `element ${label}: ${describeMismatch(type, want.elem, find)}`;
  }
  return `all elements must be ${friendlyName(want.elem, true)}`;
}

function collectionMismatch(got: CollectionType, want: CollectionType, find: FindConversion): string {
  if ((want.kind === "map") !== (got.kind === "map")) return `${friendlyName(want, true)} required`;
  return `incorrect ${want.kind} element type: ${describeMismatch(got.elem, want.elem, find)}`;
}

function confusing(got: Type, want: Type): boolean {
  if (isPrimitive(got) !== isPrimitive(want)) return false;
  if (want.kind === "string") return false;
  if (want.kind === "bool" && got.kind === "number") return false;
  if (want.kind === "number" && got.kind === "bool") return false;
  if (isCollection(got) && isCollection(want) && !hasDynamic(got.elem) && hasDynamic(want.elem)) return false;
  return !(got.kind === "tuple" && want.kind === "object");
}
