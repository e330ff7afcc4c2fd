import { ConversionError, convert, getConversion, unify } from "../cty/convert.ts";
import { NotANumberError, type Num } from "../cty/number.ts";
import { sortedKeys } from "../cty/text.ts";
import {
  boolType,
  dynamicType,
  friendlyName,
  isCollection,
  numberType,
  type Type,
  typesEqual,
} from "../cty/type.ts";
import {
  boolValue,
  equals,
  falseValue,
  numberValue,
  trueValue,
  unknownDynamic,
  unknownValue,
  type Value,
} from "../cty/value.ts";
import { type Diagnostic, errorAt, type Range, rangeBetween } from "../diagnostics.ts";
import type { EvalContext } from "../expression.ts";
import { type Collected, type Hidden, Node } from "./nodes.ts";

/** An operator: the types of its operands and result, and what it does with known, non-null operands. */
export interface Operation {
  readonly operands: Type;
  readonly result: Type;
  readonly apply: (a: Value, b: Value) => Value;
  /** The operand that decides alone: `true` for `||`, `false` for `&&`. */
  readonly decisive?: boolean;
}

function arithmetic(failure: string, apply: (a: Num, b: Num) => Num): Operation {
  return {
    operands: numberType,
    result: numberType,
    apply: (a, b) => {
      try {
        return numberValue(apply(a.number, b.number));
      } catch (error) {
        if (error instanceof NotANumberError) throw new ConversionError(failure);
        throw error;
      }
    },
  };
}

function comparison(apply: (order: number) => boolean): Operation {
  return {
    operands: numberType,
    result: boolType,
    apply: (a, b) => boolValue(apply(a.number.compare(b.number))),
  };
}

export const OPERATIONS = {
  or: {
    operands: boolType,
    result: boolType,
    apply: (a, b) => boolValue(a.isTrue || b.isTrue),
    decisive: true,
  },
  and: {
    operands: boolType,
    result: boolType,
    apply: (a, b) => boolValue(a.isTrue && b.isTrue),
    decisive: false,
  },
  equal: { operands: dynamicType, result: boolType, apply: equals },
  notEqual: { operands: dynamicType, result: boolType, apply: notEquals },
  greater: comparison((order) => order > 0),
  greaterOrEqual: comparison((order) => order >= 0),
  less: comparison((order) => order < 0),
  lessOrEqual: comparison((order) => order <= 0),
  add: arithmetic("can't compute sum of opposing infinities", (a, b) => a.add(b)),
  subtract: arithmetic("can't subtract infinity from itself", (a, b) => a.subtract(b)),
  multiply: arithmetic("can't multiply zero by infinity", (a, b) => a.multiply(b)),
  divide: arithmetic("can't divide zero by zero or infinity by infinity", (a, b) => a.divide(b)),
  modulo: arithmetic("can't use modulo with zero and infinity", (a, b) => a.modulo(b)),
} satisfies Record<string, Operation>;

/** `!=`. */
export function notEquals(a: Value, b: Value): Value {
  const same = equals(a, b);
  return same.isKnown ? boolValue(!same.isTrue) : same;
}

/** `a op b`. */
export class BinaryNode extends Node {
  readonly #left: Node;
  readonly #right: Node;
  readonly #operation: Operation;

  constructor(left: Node, operation: Operation, right: Node) {
    super(rangeBetween(left.range, right.range));
    this.#left = left;
    this.#operation = operation;
    this.#right = right;
  }

  override get startRange(): Range {
    return this.#left.startRange;
  }

  value(ctx: EvalContext | undefined, diagnostics: Diagnostic[]): Value {
    const leftProblems: Diagnostic[] = [];
    const rightProblems: Diagnostic[] = [];
    const wrong: Diagnostic[] = [];
    const left = this.#operand(this.#left, "left", this.#left.value(ctx, leftProblems), wrong);
    const right = this.#operand(this.#right, "right", this.#right.value(ctx, rightProblems), wrong);
    const { result, operands, decisive, apply } = this.#operation;
    if (wrong.length > 0) {
      diagnostics.push(...wrong, ...leftProblems, ...rightProblems);
      return unknownValue(result);
    }
    if (decisive !== undefined) {
      const decided = decide(decisive, [left, leftProblems], [right, rightProblems]);
      if (decided !== undefined) {
        diagnostics.push(...decided[1]);
        return decided[0];
      }
    }
    diagnostics.push(...leftProblems, ...rightProblems);
    if (leftProblems.length + rightProblems.length > 0) return unknownValue(result);
    if (operands.kind === "dynamic") return apply(left, right);
    if (left.isNull || right.isNull) return this.#failed("argument must not be null", diagnostics);
    if (!left.isKnown || !right.isKnown) return unknownValue(result);
    try {
      return apply(left, right);
    } catch (error) {
      if (error instanceof ConversionError || error instanceof RangeError)
        return this.#failed(error.message, diagnostics);
      throw error;
    }
  }

  #failed(why: string, diagnostics: Diagnostic[]): Value {
    diagnostics.push(errorAt("Operation failed", `Error during operation: ${why}.`, this.range));
    return unknownValue(this.#operation.result);
  }

  #operand(node: Node, side: string, given: Value, wrong: Diagnostic[]): Value {
    try {
      return convert(given, this.#operation.operands);
    } catch (error) {
      if (!(error instanceof ConversionError)) throw error;
      const detail = `Unsuitable value for ${side} operand: ${error.message}.`;
      wrong.push(errorAt("Invalid operand", detail, node.range, this.range));
      return unknownDynamic;
    }
  }

  collect(into: Collected, hidden: Hidden): void {
    this.#left.collect(into, hidden);
    this.#right.collect(into, hidden);
  }
}

type Evaluated = readonly [value: Value, problems: readonly Diagnostic[]];

/** What `&&` and `||` make of operands of which one settles the matter or is unknown. */
function decide(decisive: boolean, left: Evaluated, right: Evaluated): Evaluated | undefined {
  const unknown = unknownValue(boolType);
  const [a, leftProblems] = left;
  const [b, rightProblems] = right;
  if (!a.isKnown && !b.isKnown) return leftProblems.length === 0 ? [unknown, leftProblems] : undefined;
  const settled = decisive ? trueValue : falseValue;
  if (a.raw === decisive) return [settled, leftProblems];
  if (b.raw === decisive) return [settled, rightProblems];
  if (!a.isKnown && b.raw === !decisive) return [unknown, leftProblems];
  if (!b.isKnown && a.raw === !decisive) return [unknown, rightProblems];
  return undefined;
}

/** `-a` and `!a`. */
export class UnaryNode extends Node {
  readonly #operator: "-" | "!";
  readonly #operand: Node;
  readonly #symbol: Range;

  constructor(operator: "-" | "!", operand: Node, symbol: Range) {
    super(rangeBetween(symbol, operand.range));
    this.#operator = operator;
    this.#operand = operand;
    this.#symbol = symbol;
  }

  override get startRange(): Range {
    return this.#symbol;
  }

  value(ctx: EvalContext | undefined, diagnostics: Diagnostic[]): Value {
    const type = this.#operator === "-" ? numberType : boolType;
    const before = diagnostics.length;
    let operand = this.#operand.value(ctx, diagnostics);
    try {
      operand = convert(operand, type);
    } catch (error) {
      if (!(error instanceof ConversionError)) throw error;
      const detail = `Unsuitable value for unary operand: ${error.message}.`;
      diagnostics.push(errorAt("Invalid operand", detail, this.#operand.range, this.range));
    }
    if (diagnostics.length > before) return unknownValue(type);
    if (operand.isNull) {
      diagnostics.push(
        errorAt("Operation failed", "Error during operation: argument must not be null.", this.range),
      );
      return unknownValue(type);
    }
    if (!operand.isKnown) return unknownValue(type);
    return this.#operator === "-" ? numberValue(operand.number.negate()) : boolValue(!operand.isTrue);
  }

  collect(into: Collected, hidden: Hidden): void {
    this.#operand.collect(into, hidden);
  }
}

interface Branch {
  readonly node: Node;
  readonly value: Value;
  readonly problems: Diagnostic[];
}

/** `c ? a : b`, and `%{ if }` of templates. Both branches must be of one type. */
export class ConditionalNode extends Node {
  readonly #condition: Node;
  readonly #whenTrue: Node;
  readonly #whenFalse: Node;

  constructor(condition: Node, branches: readonly [whenTrue: Node, whenFalse: Node], range: Range) {
    super(range);
    this.#condition = condition;
    [this.#whenTrue, this.#whenFalse] = branches;
  }

  override get startRange(): Range {
    return this.#condition.startRange;
  }

  value(ctx: EvalContext | undefined, diagnostics: Diagnostic[]): Value {
    const branches = [this.#whenTrue, this.#whenFalse].map((node): Branch => {
      const problems: Diagnostic[] = [];
      return { node, value: node.value(ctx, problems), problems };
    });
    const [first, second] = [branches[0]!, branches[1]!];
    const unified = unifyBranches(first.value, second.value);
    if (unified === undefined) {
      const why = describeMismatch(first.value.type, second.value.type);
      diagnostics.push(
        errorAt(
          "Inconsistent conditional result types",
          `The true and false result expressions must have consistent types. ${why}.`,
          rangeBetween(this.#whenTrue.range, this.#whenFalse.range),
          this.range,
        ),
      );
      return unknownDynamic;
    }
    const chosen = this.#choose(ctx, diagnostics);
    if (chosen === undefined) {
      return first.value.isNull && second.value.isNull ? first.value : unknownValue(unified.type);
    }
    const branch = chosen ? first : second;
    diagnostics.push(...branch.problems);
    const conversion = unified.conversions[chosen ? 0 : 1];
    if (conversion === undefined) return branch.value;
    try {
      return conversion(branch.value);
    } catch (error) {
      if (!(error instanceof ConversionError)) throw error;
      const detail = `The ${chosen} result value has the wrong type: ${error.message}.`;
      diagnostics.push(
        errorAt("Inconsistent conditional result types", detail, branch.node.range, this.range),
      );
      return unknownValue(unified.type);
    }
  }

  #choose(ctx: EvalContext | undefined, diagnostics: Diagnostic[]): boolean | undefined {
    const condition = this.#condition.value(ctx, diagnostics);
    const { range } = this.#condition;
    if (condition.isNull) {
      const detail = "The condition value is null. Conditions must either be true or false.";
      diagnostics.push(errorAt("Null condition", detail, range, this.range));
      return undefined;
    }
    if (!condition.isKnown) return undefined;
    try {
      return convert(condition, boolType).isTrue;
    } catch (error) {
      if (!(error instanceof ConversionError)) throw error;
      const detail = "The condition expression must be of type bool.";
      diagnostics.push(errorAt("Incorrect condition type", detail, range, this.range));
      return undefined;
    }
  }

  collect(into: Collected, hidden: Hidden): void {
    this.#condition.collect(into, hidden);
    this.#whenTrue.collect(into, hidden);
    this.#whenFalse.collect(into, hidden);
  }
}

function unifyBranches(a: Value, b: Value): ReturnType<typeof unify> {
  if (a.isNull && a.type.kind === "dynamic") {
    return { type: b.type, conversions: [getConversion(dynamicType, b.type, true), undefined] };
  }
  if (b.isNull && b.type.kind === "dynamic") {
    return { type: a.type, conversions: [undefined, getConversion(dynamicType, a.type, true)] };
  }
  if (a.type.kind === "dynamic" || b.type.kind === "dynamic") {
    return { type: dynamicType, conversions: [undefined, undefined] };
  }
  return unify([a.type, b.type], true);
}

function describeMismatch(a: Type, b: Type): string {
  if (a.kind === "object" && b.kind === "object") {
    for (const name of sortedKeys(a.attrs)) {
      const other = b.attrs.get(name);
      const quoted = JSON.stringify(name);
      if (other === undefined) {
        return `The 'true' value includes object attribute ${quoted}, which is absent in the 'false' value`;
      }
      const mine = a.attrs.get(name)!;
      if (!typesEqual(mine, other)) {
        return `Type mismatch for object attribute ${quoted}: ${describeMismatch(mine, other)}`;
      }
    }
    const extra = sortedKeys(b.attrs).find((name) => !a.attrs.has(name));
    if (extra !== undefined) {
      return `The 'false' value includes object attribute ${JSON.stringify(extra)}, which is absent in the 'true' value`;
    }
  }
  if (a.kind === "tuple" && b.kind === "tuple") {
    if (a.elems.length !== b.elems.length) {
      return `The 'true' tuple has length ${a.elems.length}, but the 'false' tuple has length ${b.elems.length}`;
    }
    for (const [i, elem] of a.elems.entries()) {
      const other = b.elems[i]!;
      if (!typesEqual(elem, other))
        return `Type mismatch for tuple element ${i}: ${describeMismatch(elem, other)}`;
    }
  }
  if (isCollection(a) && isCollection(b) && a.kind === b.kind && a.elem.kind === b.elem.kind) {
    if (a.elem.kind === "object" || a.elem.kind === "tuple") {
      return `Mismatched ${a.kind} element types: ${describeMismatch(a.elem, b.elem)}`;
    }
  }
  if (friendlyName(a) === friendlyName(b)) {
    return "At least one deeply-nested attribute or element is not compatible across both the 'true' and the 'false' value";
  }
  return `The 'true' value is ${friendlyName(a)}, but the 'false' value is ${friendlyName(b)}`;
}
