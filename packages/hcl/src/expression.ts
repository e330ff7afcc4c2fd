import type { Value } from "./cty/value.ts";
import { type Diagnostic, errorAt, type Range } from "./diagnostics.ts";
import type { HclFunction } from "./function.ts";

/** Names in scope. Scopes nest: what isn't found here is looked up in the parent. */
export interface EvalContext {
  readonly variables?: Map<string, Value> | undefined;
  readonly functions?: Map<string, HclFunction> | undefined;
  readonly parent?: EvalContext | undefined;
}

/** One step of a reference. */
export type TraversalStep =
  | { readonly kind: "root" | "attr"; readonly name: string; readonly range: Range }
  | { readonly kind: "index"; readonly key: Value; readonly range: Range };

/** A reference such as `target.app.tags[0]`; the first step is the root. */
export type Traversal = readonly TraversalStep[];

/** A call as it is written, for expressions that aren't evaluated, such as types. */
export interface StaticCall {
  readonly name: string;
  readonly nameRange: Range;
  readonly args: readonly Expression[];
  readonly argsRange: Range;
}

export interface KeyValuePair {
  readonly key: Expression;
  readonly value: Expression;
}

/** An expression of either syntax. */
export interface Expression {
  readonly range: Range;
  readonly startRange: Range;
  /** Evaluates; problems go to `diagnostics` and the result is then unknown. Without a context, constants only. */
  value(ctx: EvalContext | undefined, diagnostics: Diagnostic[]): Value;
  /** Every reference to a variable of the surrounding scope. */
  variables(): Traversal[];
  /** Names of all functions called within. */
  functionNames(): string[];
  /** The expression as a plain reference, if it is one. */
  asTraversal?(): Traversal | undefined;
  /** The elements of a literal list. */
  asList?(): readonly Expression[] | undefined;
  /** The members of a literal object. */
  asMap?(): readonly KeyValuePair[] | undefined;
  asCall?(): StaticCall | undefined;
}

/** The word that an expression consists of, or "". */
export function expressionKeyword(expr: Expression): string {
  const traversal = expr.asTraversal?.();
  const root = traversal?.length === 1 ? traversal[0] : undefined;
  return root?.kind === "root" ? root.name : "";
}

/** The elements of a literal list, or `undefined` after a diagnostic. */
export function expressionList(
  expr: Expression,
  diagnostics: Diagnostic[],
): readonly Expression[] | undefined {
  const list = expr.asList?.();
  if (list === undefined)
    diagnostics.push(errorAt("Invalid expression", "A static list expression is required.", expr.startRange));
  return list;
}

/** An expression that is always the same value. */
export function constantExpression(value: Value, range: Range): Expression {
  return { range, startRange: range, value: () => value, variables: () => [], functionNames: () => [] };
}
