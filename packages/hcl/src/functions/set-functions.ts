import { ConversionError, convert, unify } from "../cty/convert.ts";
import {
  boolType,
  dynamicType,
  isCollection,
  listType,
  setType,
  type Type,
  tupleType,
  typesEqual,
} from "../cty/type.ts";
import { boolValue, listValue, setHas, setValue, tupleValue, type Value } from "../cty/value.ts";
import { ArgumentError, FunctionError, type HclFunction } from "../function.ts";
import { any, type FunctionTable, fn, variadic } from "./support.ts";

/** Most elements that `setproduct` may produce. */
const MAX_PRODUCT = 1_000_000;

const anySet = (name: string) => ({ name, type: setType(dynamicType), allowDynamic: true });

function setOperationType(args: readonly Value[]): Type {
  const types: Type[] = [];
  for (const arg of args) {
    if (!isCollection(arg.type)) continue;
    const { elem } = arg.type;
    if (arg.isKnown && arg.size === 0 && elem.kind === "dynamic") continue;
    types.push(elem);
  }
  if (types.length === 0) return setType(dynamicType);
  const unified = unify(types, true);
  if (unified === undefined) throw new FunctionError("given sets must all have compatible element types");
  return setType(unified.type);
}

type Combine = (a: Value, b: Value) => readonly Value[];

function combineSets(combine: Combine): HclFunction["call"] {
  return (args, type) => {
    const elem = isCollection(type) ? type.elem : dynamicType;
    const sets = args.map((arg, i) => {
      try {
        return convert(arg, type);
      } catch (error) {
        throw error instanceof ConversionError ? new ArgumentError(i, error.message) : error;
      }
    });
    return sets.slice(1).reduce((result, set) => setValue(combine(result, set), elem), sets[0]!);
  };
}

function setOperation(description: string, combine: Combine): HclFunction {
  const base = fn(description, [anySet("first_set")], setOperationType, combineSets(combine));
  return variadic(base, anySet("other_sets"));
}

function without(a: Value, b: Value): Value[] {
  return a.elements.filter((elem) => !setHas(b, elem));
}

function productType(args: readonly Value[]): Type {
  if (args.length < 2) throw new FunctionError("at least two arguments are required");
  const elems = args.map((arg, i): Type => {
    const { type } = arg;
    if (type.kind === "set" || type.kind === "list") return type.elem;
    if (type.kind !== "tuple") throw new ArgumentError(i, "a set or a list is required");
    if (type.elems.length === 0) return dynamicType;
    const unified = unify(type.elems, true);
    if (unified === undefined) throw new ArgumentError(i, "all elements must be of the same type");
    return unified.type;
  });
  const ordered = args.every((arg) => arg.type.kind !== "set");
  return ordered ? listType(tupleType(elems)) : setType(tupleType(elems));
}

function product(args: readonly Value[], type: Type): Value {
  const elem = isCollection(type) ? type.elem : dynamicType;
  const types = elem.kind === "tuple" ? elem.elems : [];
  const total = args.reduce((count, arg) => count * arg.size, 1);
  if (total > MAX_PRODUCT) throw new FunctionError(`more than ${MAX_PRODUCT} combinations were generated`);
  let rows: Value[][] = [[]];
  for (const [i, arg] of args.entries()) {
    const values = arg.elements.map((value) =>
      typesEqual(value.type, types[i]!) ? value : convert(value, types[i]!),
    );
    rows = rows.flatMap((row) => values.map((value) => [...row, value]));
  }
  const tuples = rows.map(tupleValue);
  return type.kind === "list" ? listValue(tuples, elem) : setValue(tuples, elem);
}

/** Sets. */
export const setFunctions: FunctionTable = {
  sethaselement: fn(
    "Returns true if the given set contains the given element, or false otherwise.",
    [anySet("set"), { ...any("elem"), allowDynamic: true }],
    boolType,
    ([set, elem]) => boolValue(setHas(set!, elem!)),
  ),
  setunion: setOperation("Returns the union of all given sets.", (a, b) => [...a.elements, ...b.elements]),
  setintersection: setOperation("Returns the intersection of all given sets.", (a, b) =>
    a.elements.filter((elem) => setHas(b, elem)),
  ),
  setsubtract: fn(
    "Returns the relative complement of the two given sets.",
    [anySet("a"), anySet("b")],
    setOperationType,
    combineSets(without),
  ),
  setsymmetricdifference: setOperation("Returns the symmetric difference of the two given sets.", (a, b) => [
    ...without(a, b),
    ...without(b, a),
  ]),
  setproduct: variadic(
    fn("Calculates the cartesian product of two or more sets.", [], productType, product),
    any("sets"),
  ),
};
