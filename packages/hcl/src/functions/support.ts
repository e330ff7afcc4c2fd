import { Num } from "../cty/number.ts";
import { dynamicType, isCollection, listType, numberType, stringType, type Type } from "../cty/type.ts";
import { emptyTuple, listValue, tupleValue, type Value } from "../cty/value.ts";
import { FunctionError, type HclFunction, type Parameter } from "../function.ts";

/** What functions need of the machine they run on. */
export interface FunctionHost {
  now(): Date;
  homeDir(): string;
  randomBytes(count: number): Uint8Array;
}

/** Functions by name. */
export type FunctionTable = Record<string, HclFunction>;

/** A parameter that takes a string. */
export function text(name: string): Parameter {
  return { name, type: stringType, allowDynamic: true };
}

/** A parameter that takes a number. */
export function num(name: string): Parameter {
  return { name, type: numberType, allowDynamic: true };
}

/** A parameter that takes anything but null. */
export function any(name: string): Parameter {
  return { name, type: dynamicType };
}

/** A parameter that takes anything, known or not. */
export function open(name: string): Parameter {
  return { name, type: dynamicType, allowNull: true, allowUnknown: true, allowDynamic: true };
}

/** A parameter that takes a list of strings. */
export function texts(name: string): Parameter {
  return { name, type: listType(stringType) };
}

/** A function of a fixed result type. */
export function fn(
  description: string,
  params: readonly Parameter[],
  returns: HclFunction["returns"],
  call: (args: readonly Value[], type: Type) => Value,
): HclFunction {
  return { description, params, returns, call };
}

/** A function with any number of arguments after its fixed ones. */
export function variadic(base: HclFunction, rest: Parameter): HclFunction {
  return { ...base, variadic: rest };
}

const MIN_INT = -(2n ** 63n);
const MAX_INT = 2n ** 63n - 1n;

/** The value as a Go `int`, or a complaint. Beyond JavaScript's safe integers it is only near. */
export function asInteger(value: Value): number {
  const { number } = value;
  const whole =
    number.isInteger &&
    number.compare(Num.fromInt(MAX_INT)) <= 0 &&
    number.compare(Num.fromInt(MIN_INT)) >= 0;
  if (!whole) throw new FunctionError(`value must be a whole number, between ${MIN_INT} and ${MAX_INT}`);
  return Number(number.toBigInt());
}

/** A tuple or list of the given type's kind. */
export function sequenceOf(values: readonly Value[], type: Type): Value {
  if (type.kind === "tuple") return values.length === 0 ? emptyTuple : tupleValue(values);
  return listValue(values, isCollection(type) ? type.elem : dynamicType);
}
