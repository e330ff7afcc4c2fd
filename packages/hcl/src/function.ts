import { NotANumberError } from "./cty/number.ts";
import { conformanceError, dynamicType, type Type } from "./cty/type.ts";
import { unknownValue, type Value } from "./cty/value.ts";

/** A parameter. What isn't allowed is refused (null) or makes the result unknown (unknown, dynamic). */
export interface Parameter {
  readonly name: string;
  readonly type: Type;
  readonly allowNull?: boolean;
  readonly allowUnknown?: boolean;
  readonly allowDynamic?: boolean;
  /** The argument isn't evaluated: the function gets a type, or the expression itself. */
  readonly decode?: "type" | "closure";
}

/** A function of the language. */
export interface HclFunction {
  readonly description: string;
  readonly params: readonly Parameter[];
  readonly variadic?: Parameter;
  /** The type of the result; a function when it depends on the arguments. */
  readonly returns: Type | ((args: readonly Value[]) => Type);
  readonly call: (args: readonly Value[], type: Type) => Value;
}

/** A function's complaint about its arguments or its work. */
export class FunctionError extends Error {}

/** A complaint about one argument. */
export class ArgumentError extends FunctionError {
  readonly index: number;

  constructor(index: number, message: string) {
    super(message);
    this.index = index;
  }
}

/** Calls a function with values that already have its parameters' types. */
export function callFunction(fn: HclFunction, args: readonly Value[]): Value {
  let unknown = false;
  for (const [i, arg] of args.entries()) {
    const param = fn.params[i] ?? fn.variadic;
    if (param === undefined) throw new FunctionError(wrongCount(fn, args.length));
    if (arg.isNull && param.allowNull !== true) throw new ArgumentError(i, "argument must not be null");
    if (arg.type.kind === "dynamic") {
      if (param.allowDynamic !== true) return unknownValue(dynamicType);
    } else if (param.decode === undefined) {
      const error = conformanceError(arg.type, param.type);
      if (error !== undefined) throw new ArgumentError(i, error);
    }
    if (!arg.isKnown && param.allowUnknown !== true) unknown = true;
  }
  if (args.length < fn.params.length) throw new FunctionError(wrongCount(fn, args.length));
  const type = typeof fn.returns === "function" ? fn.returns(args) : fn.returns;
  if (unknown) return unknownValue(type);
  try {
    return fn.call(args, type);
  } catch (error) {
    if (error instanceof NotANumberError)
      throw new FunctionError(`panic in function implementation: ${error.message}`);
    throw error;
  }
}

function wrongCount(fn: HclFunction, given: number): string {
  const least = fn.variadic === undefined ? "" : "at least ";
  return `wrong number of arguments (${least}${fn.params.length} required; ${given} given)`;
}
