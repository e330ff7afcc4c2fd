import { ConversionError, convert } from "../cty/convert.ts";
import { JsonError } from "../cty/json.ts";
import { quote } from "../cty/text.ts";
import { unknownDynamic, Value } from "../cty/value.ts";
import { type Diagnostic, didYouMean, errorAt, hasErrors, type Range, rangeBetween } from "../diagnostics.ts";
import type { EvalContext, Expression, StaticCall } from "../expression.ts";
import { ArgumentError, callFunction, FunctionError, type HclFunction, type Parameter } from "../function.ts";
import { typeConstraint } from "../type-expression.ts";
import { spend } from "../work.ts";
import { type Collected, type Hidden, LiteralNode, Node } from "./nodes.ts";

/** How a call is written. */
export interface CallParts {
  readonly name: string;
  readonly args: readonly Node[];
  /** The last argument is followed by `...`. */
  readonly expand: boolean;
  readonly nameRange: Range;
  readonly open: Range;
  readonly close: Range;
}

/** Elements of arguments that count as one step. */
const CHEAP = 10;

const TYPE_ARGUMENT = { kind: "capsule", name: "type constraint" } as const;
const CLOSURE_ARGUMENT = { kind: "capsule", name: "expression closure" } as const;

/** An expression handed to a function unevaluated, with its scope. */
export interface Closure {
  readonly expr: Expression;
  readonly ctx: EvalContext | undefined;
}

/** `name(args)`. */
export class CallNode extends Node {
  readonly #parts: CallParts;

  constructor(parts: CallParts) {
    super(rangeBetween(parts.nameRange, parts.close));
    this.#parts = parts;
  }

  override get startRange(): Range {
    return rangeBetween(this.#parts.nameRange, this.#parts.open);
  }

  value(ctx: EvalContext | undefined, diagnostics: Diagnostic[]): Value {
    const fn = this.#find(ctx, diagnostics);
    if (fn === undefined) return unknownDynamic;
    const args = this.#expanded(ctx, diagnostics);
    if (args === undefined || !this.#countFits(fn, args, diagnostics)) return unknownDynamic;
    const before = diagnostics.length;
    const values = args.map((arg, i) => this.#argument(arg, fn.params[i] ?? fn.variadic!, ctx, diagnostics));
    if (hasErrors(diagnostics.slice(before))) return unknownDynamic;
    spend(values.reduce((sum, { weight }) => sum + weight / CHEAP, 1));
    try {
      return callFunction(fn, values);
    } catch (error) {
      const failure = asFailure(error);
      if (failure === undefined) throw error;
      diagnostics.push(this.#describe(failure, fn, args));
      return unknownDynamic;
    }
  }

  #find(ctx: EvalContext | undefined, diagnostics: Diagnostic[]): HclFunction | undefined {
    const { name, nameRange } = this.#parts;
    const names: string[] = [];
    let allowed = false;
    for (let scope = ctx; scope !== undefined; scope = scope.parent) {
      if (scope.functions === undefined) continue;
      allowed = true;
      const fn = scope.functions.get(name);
      if (fn !== undefined) return fn;
      names.push(...scope.functions.keys());
    }
    if (!allowed) {
      diagnostics.push(
        errorAt("Function calls not allowed", "Functions may not be called here.", this.range),
      );
      return undefined;
    }
    const separator = name.lastIndexOf("::");
    const detail =
      separator >= 0
        ? `There are no functions in namespace ${quote(name.slice(0, separator + 2))}.`
        : `There is no function named ${quote(name)}.${didYouMean(name, names)}`;
    diagnostics.push(errorAt("Call to unknown function", detail, nameRange, this.range));
    return undefined;
  }

  /** The arguments, with an expanded last one taken apart; `undefined` when that fails or isn't known yet. */
  #expanded(ctx: EvalContext | undefined, diagnostics: Diagnostic[]): readonly Node[] | undefined {
    const { args, expand } = this.#parts;
    const last = args.at(-1);
    if (!expand || last === undefined) return args;
    const before = diagnostics.length;
    const value = last.value(ctx, diagnostics);
    if (hasErrors(diagnostics.slice(before))) return undefined;
    const fail = (detail: string): undefined => {
      diagnostics.push(errorAt("Invalid expanding argument value", detail, last.range, this.range));
      return undefined;
    };
    const { kind } = value.type;
    if (kind !== "dynamic" && kind !== "tuple" && kind !== "list" && kind !== "set") {
      return fail("The expanding argument (indicated by ...) must be of a tuple, list, or set type.");
    }
    if (value.isNull) return fail("The expanding argument (indicated by ...) must not be null.");
    if (!value.isKnown) return undefined;
    return [...args.slice(0, -1), ...value.elements.map((elem) => new LiteralNode(elem, last.range))];
  }

  #countFits(fn: HclFunction, args: readonly Node[], diagnostics: Diagnostic[]): boolean {
    const name = quote(this.#parts.name);
    const missing = fn.params[args.length];
    if (missing !== undefined) {
      const least = fn.variadic === undefined ? "" : " at least";
      const detail = `Function ${name} expects${least} ${fn.params.length} argument(s). Missing value for ${quote(missing.name)}.`;
      diagnostics.push(errorAt("Not enough function arguments", detail, this.#parts.close, this.range));
      return false;
    }
    const extra = args[fn.params.length];
    if (fn.variadic !== undefined || extra === undefined) return true;
    const detail = `Function ${name} expects only ${fn.params.length} argument(s).`;
    diagnostics.push(errorAt("Too many function arguments", detail, extra.startRange, this.range));
    return false;
  }

  #argument(arg: Node, param: Parameter, ctx: EvalContext | undefined, diagnostics: Diagnostic[]): Value {
    if (param.decode === "closure") return new Value(CLOSURE_ARGUMENT, { expr: arg, ctx } satisfies Closure);
    if (param.decode === "type") return new Value(TYPE_ARGUMENT, typeConstraint(arg, diagnostics));
    const value = arg.value(ctx, diagnostics);
    try {
      return convert(value, param.type);
    } catch (error) {
      if (!(error instanceof ConversionError)) throw error;
      diagnostics.push(invalidArgument(param, error.message, arg.startRange, this.range));
      return unknownDynamic;
    }
  }

  #describe(error: Error, fn: HclFunction, args: readonly Node[]): Diagnostic {
    if (error instanceof ArgumentError) {
      const param = fn.params[error.index] ?? fn.variadic;
      const arg = args[error.index];
      if (param !== undefined && arg !== undefined) {
        return invalidArgument(param, error.message, arg.startRange, this.range);
      }
      if (param !== undefined) return invalidArgument(param, error.message, this.range);
    }
    const detail = `Call to function ${quote(this.#parts.name)} failed: ${error.message}.`;
    return errorAt("Error in function call", detail, this.startRange, this.range);
  }

  collect(into: Collected, hidden: Hidden): void {
    into.functions.push(this.#parts.name);
    for (const arg of this.#parts.args) arg.collect(into, hidden);
  }

  override asCall(): StaticCall {
    const { name, nameRange, args, open, close } = this.#parts;
    return { name, nameRange, args, argsRange: rangeBetween(open, close) };
  }
}

function invalidArgument(param: Parameter, why: string, subject: Range, context?: Range): Diagnostic {
  return errorAt(
    "Invalid function argument",
    `Invalid value for ${quote(param.name)} parameter: ${why}.`,
    subject,
    context,
  );
}

/** An error that the user's arguments cause, as opposed to a bug. */
function asFailure(error: unknown): Error | undefined {
  const known = [FunctionError, ConversionError, JsonError, RangeError];
  return known.some((kind) => error instanceof kind) ? (error as Error) : undefined;
}
