import { ConversionError } from "../cty/convert.ts";
import { Num } from "../cty/number.ts";
import { quote } from "../cty/text.ts";
import { boolType, friendlyName, listType, numberType, type Type } from "../cty/type.ts";
import { boolValue, equals, intValue, listValue, numberValue, type Value } from "../cty/value.ts";
import { ArgumentError, FunctionError, type HclFunction } from "../function.ts";
import { notEquals, OPERATIONS, type Operation } from "../syntax/operator-nodes.ts";
import { any, asInteger, type FunctionTable, fn, num, open, variadic } from "./support.ts";

const MAX_RANGE = 1024;

function operator(description: string, operation: Operation): HclFunction {
  const { operands, result } = operation;
  const params = ["a", "b"].map((name) => ({ name, type: operands, allowDynamic: true }));
  return fn(description, params, result, ([a, b]) => {
    try {
      return operation.apply(a!, b!);
    } catch (error) {
      throw error instanceof ConversionError ? new FunctionError(error.message) : error;
    }
  });
}

function whole(n: Num, direction: "down" | "up" | "cut"): Value {
  if (n.kind === "inf") return numberValue(n);
  if (n.isInteger) return numberValue(n);
  let truncated = n.toBigInt();
  if (direction === "down" && n.negative) truncated -= 1n;
  if (direction === "up" && !n.negative) truncated += 1n;
  const result = Num.fromInt(truncated);
  return numberValue(direction === "cut" ? result : result.withPrecision(n.precision));
}

function extreme(args: readonly Value[], order: number): Value {
  if (args.length === 0) throw new FunctionError("must pass at least one number");
  let best = args[0]!;
  for (const arg of args) if (arg.number.compare(best.number) === order) best = arg;
  return best;
}

function parseInteger(args: readonly Value[]): Value {
  const digits = args[0]!.string;
  const base = asInteger(args[1]!);
  if (base < 2 || base > 62)
    throw new ArgumentError(1, "base must be a whole number between 2 and 62 inclusive");
  const match = /^([+-]?)([0-9a-zA-Z]+)$/.exec(digits);
  const fail = new ArgumentError(0, `cannot parse ${quote(digits)} as a base ${base} integer`);
  if (match === null) throw fail;
  let result = 0n;
  for (const char of match[2] ?? "") {
    const digit = digitValue(char, base);
    if (digit >= base) throw fail;
    result = result * BigInt(base) + BigInt(digit);
  }
  return numberValue(Num.fromInt(match[1] === "-" ? -result : result));
}

function digitValue(char: string, base: number): number {
  const code = char.charCodeAt(0);
  if (code <= 57) return code - 48;
  if (code >= 97) return code - 97 + 10;
  return base <= 36 ? code - 65 + 10 : code - 65 + 36;
}

function range(args: readonly Value[]): Value {
  const numbers = args.map((arg) => arg.number);
  if (numbers.length < 1 || numbers.length > 3)
    throw new FunctionError("must have one, two, or three arguments");
  const zero = Num.fromInt(0);
  const [start, end] = numbers.length === 1 ? [zero, numbers[0]!] : [numbers[0]!, numbers[1]!];
  const step = numbers[2] ?? Num.fromInt(end.compare(start) < 0 ? -1 : 1);
  const down = step.sign < 0;
  const order = end.compare(start);
  if (down && order > 0) throw new ArgumentError(1, "end must be less than start when step is negative");
  if (!down && order < 0) throw new ArgumentError(1, "end must be greater than start when step is positive");
  const values: Value[] = [];
  for (let at = start; down ? at.compare(end) > 0 : at.compare(end) < 0; at = at.add(step)) {
    if (values.length >= MAX_RANGE) {
      throw new FunctionError(
        `more than ${MAX_RANGE} values were generated; either decrease the difference between start and end or use a smaller step`,
      );
    }
    values.push(numberValue(at));
  }
  return listValue(values, numberType);
}

function parseIntType(args: readonly Value[]): Type {
  const { type } = args[0]!;
  if (type.kind !== "string")
    throw new ArgumentError(0, `first argument must be a string, not ${friendlyName(type)}`);
  return numberType;
}

/** Arithmetic, comparison and logic. */
export const numberFunctions: FunctionTable = {
  absolute: fn(
    "If the given number is negative then returns its positive equivalent, or otherwise returns the given number unchanged.",
    [num("num")],
    numberType,
    ([n]) => numberValue(n!.number.absolute()),
  ),
  add: operator("Returns the sum of the two given numbers.", OPERATIONS.add),
  subtract: operator("Returns the difference between the two given numbers.", OPERATIONS.subtract),
  multiply: operator("Returns the product of the two given numbers.", OPERATIONS.multiply),
  divide: operator("Divides the first given number by the second.", OPERATIONS.divide),
  modulo: operator(
    "Divides the first given number by the second and then returns the remainder.",
    OPERATIONS.modulo,
  ),
  negate: fn("Multiplies the given number by -1.", [num("num")], numberType, ([n]) =>
    numberValue(n!.number.negate()),
  ),
  greaterthan: operator(
    "Returns true if and only if the second number is greater than the first.",
    OPERATIONS.greater,
  ),
  greaterthanorequalto: operator(
    "Returns true if and only if the second number is greater than or equal to the first.",
    OPERATIONS.greaterOrEqual,
  ),
  lessthan: operator(
    "Returns true if and only if the second number is less than the first.",
    OPERATIONS.less,
  ),
  lessthanorequalto: operator(
    "Returns true if and only if the second number is less than or equal to the first.",
    OPERATIONS.lessOrEqual,
  ),
  and: operator("Applies the logical AND operation to the given boolean values.", OPERATIONS.and),
  or: operator("Applies the logical OR operation to the given boolean values.", OPERATIONS.or),
  not: fn(
    "Applies the logical NOT operation to the given boolean value.",
    [{ name: "val", type: boolType, allowDynamic: true }],
    boolType,
    ([v]) => boolValue(!v!.isTrue),
  ),
  equal: fn(
    "Returns true if the two given values are equal, or false otherwise.",
    [open("a"), open("b")],
    boolType,
    ([a, b]) => equals(a!, b!),
  ),
  notequal: fn(
    "Returns false if the two given values are equal, or true otherwise.",
    [open("a"), open("b")],
    boolType,
    ([a, b]) => notEquals(a!, b!),
  ),
  min: variadic(
    fn("Returns the numerically smallest of all of the given numbers.", [], numberType, (args) =>
      extreme(args, -1),
    ),
    num("numbers"),
  ),
  max: variadic(
    fn("Returns the numerically greatest of all of the given numbers.", [], numberType, (args) =>
      extreme(args, 1),
    ),
    num("numbers"),
  ),
  int: fn("Discards any fractional portion of the given number.", [num("num")], numberType, ([n]) => {
    if (n!.number.kind === "inf") throw new FunctionError("can't truncate infinity to an integer");
    return whole(n!.number, "cut");
  }),
  ceil: fn(
    "Returns the smallest whole number that is greater than or equal to the given value.",
    [num("num")],
    numberType,
    ([n]) => whole(n!.number, "up"),
  ),
  floor: fn(
    "Returns the greatest whole number that is less than or equal to the given value.",
    [num("num")],
    numberType,
    ([n]) => whole(n!.number, "down"),
  ),
  log: fn(
    "Returns the logarithm of the given number in the given base.",
    [num("num"), num("base")],
    numberType,
    ([n, base]) =>
      numberValue(Num.fromFloat(Math.log(n!.number.toFloat()) / Math.log(base!.number.toFloat()))),
  ),
  pow: fn(
    "Returns the given number raised to the given power (exponentiation).",
    [num("num"), num("power")],
    numberType,
    ([n, power]) => numberValue(Num.fromFloat(n!.number.toFloat() ** power!.number.toFloat())),
  ),
  signum: fn(
    "Returns 0 if the given number is zero, 1 if the given number is positive, or -1 if the given number is negative.",
    [num("num")],
    numberType,
    ([n]) => intValue(Math.sign(asInteger(n!))),
  ),
  parseint: fn(
    "Parses the given string as a number of the given base, or raises an error if the string contains invalid characters.",
    [any("number"), num("base")],
    parseIntType,
    parseInteger,
  ),
  range: variadic(
    fn("Returns a list of numbers spread evenly over a particular range.", [], listType(numberType), range),
    { name: "params", type: numberType },
  ),
};
