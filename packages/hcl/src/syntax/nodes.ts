import type { Value } from "../cty/value.ts";
import { type Diagnostic, type Range, rangeBetween } from "../diagnostics.ts";
import type { EvalContext, Expression, StaticCall, Traversal, TraversalStep } from "../expression.ts";
import { followSteps, indexInto, resolveTraversal } from "../operations.ts";

/** Names that an inner scope hides from {@link Node.collect}. */
export type Hidden = ReadonlySet<string>;

/** What {@link Node.collect} gathers. */
export interface Collected {
  readonly variables: Traversal[];
  readonly functions: string[];
}

const NOTHING_HIDDEN: Hidden = new Set();

/** Base of the native syntax's expressions. */
export abstract class Node implements Expression {
  readonly range: Range;

  constructor(range: Range) {
    this.range = range;
  }

  get startRange(): Range {
    return this.range;
  }

  abstract value(ctx: EvalContext | undefined, diagnostics: Diagnostic[]): Value;

  /** Gathers references and calls, outermost first. */
  abstract collect(into: Collected, hidden: Hidden): void;

  variables(): Traversal[] {
    const into: Collected = { variables: [], functions: [] };
    this.collect(into, NOTHING_HIDDEN);
    return into.variables;
  }

  functionNames(): string[] {
    const into: Collected = { variables: [], functions: [] };
    this.collect(into, NOTHING_HIDDEN);
    return into.functions;
  }

  asTraversal(): Traversal | undefined {
    return undefined;
  }

  asCall(): StaticCall | undefined {
    return undefined;
  }
}

/** A constant. */
export class LiteralNode extends Node {
  readonly literal: Value;

  constructor(literal: Value, range: Range) {
    super(range);
    this.literal = literal;
  }

  value(): Value {
    return this.literal;
  }

  collect(): void {}

  override asTraversal(): Traversal | undefined {
    const name = this.literal.isNull
      ? "null"
      : this.literal.type.kind === "bool" && this.literal.isKnown
        ? String(this.literal.isTrue)
        : undefined;
    return name === undefined ? undefined : [{ kind: "root", name, range: this.range }];
  }
}

/** Stands for an expression that couldn't be parsed, and repeats why. */
export class SyntaxErrorNode extends Node {
  readonly #placeholder: Value;
  readonly #problems: readonly Diagnostic[];

  constructor(placeholder: Value, problems: readonly Diagnostic[], range: Range) {
    super(range);
    this.#placeholder = placeholder;
    this.#problems = problems;
  }

  value(_ctx: EvalContext | undefined, diagnostics: Diagnostic[]): Value {
    diagnostics.push(...this.#problems);
    return this.#placeholder;
  }

  collect(): void {}
}

/** `(…)`. */
export class ParenthesesNode extends Node {
  readonly inner: Node;

  constructor(inner: Node, range: Range) {
    super(range);
    this.inner = inner;
  }

  override get startRange(): Range {
    return this.inner.startRange;
  }

  value(ctx: EvalContext | undefined, diagnostics: Diagnostic[]): Value {
    return this.inner.value(ctx, diagnostics);
  }

  collect(into: Collected, hidden: Hidden): void {
    this.inner.collect(into, hidden);
  }
}

/** A reference to a variable and what is in it. */
export class TraversalNode extends Node {
  readonly traversal: Traversal;

  constructor(traversal: Traversal, range: Range) {
    super(range);
    this.traversal = traversal;
  }

  value(ctx: EvalContext | undefined, diagnostics: Diagnostic[]): Value {
    return resolveTraversal(this.traversal, ctx, diagnostics);
  }

  collect(into: Collected, hidden: Hidden): void {
    const root = this.traversal[0]!;
    if (root.kind !== "index" && !hidden.has(root.name)) into.variables.push(this.traversal);
  }

  override asTraversal(): Traversal {
    return this.traversal;
  }
}

/** Attributes and constant indexes of another expression's result. */
export class RelativeTraversalNode extends Node {
  readonly source: Node;
  readonly steps: Traversal;

  constructor(source: Node, steps: Traversal, range: Range) {
    super(range);
    this.source = source;
    this.steps = steps;
  }

  value(ctx: EvalContext | undefined, diagnostics: Diagnostic[]): Value {
    return followSteps(this.steps, this.source.value(ctx, diagnostics), diagnostics);
  }

  collect(into: Collected, hidden: Hidden): void {
    this.source.collect(into, hidden);
  }

  override asTraversal(): Traversal | undefined {
    const source = this.source.asTraversal();
    return source === undefined ? undefined : [...source, ...this.steps];
  }
}

/** The expression with one more step behind it, in the place of `expr`, whose steps it takes over. */
export function addStep(expr: Node, step: TraversalStep): Node {
  const range = rangeBetween(expr.range, step.range);
  if (expr instanceof TraversalNode) {
    (expr.traversal as TraversalStep[]).push(step);
    return new TraversalNode(expr.traversal, range);
  }
  if (expr instanceof RelativeTraversalNode) {
    (expr.steps as TraversalStep[]).push(step);
    return new RelativeTraversalNode(expr.source, expr.steps, range);
  }
  return new RelativeTraversalNode(expr, [step], rangeBetween(expr.range, step.range));
}

/** `a[b]` with a computed key. */
export class IndexNode extends Node {
  readonly #collection: Node;
  readonly #key: Node;
  readonly #open: Range;
  readonly #brackets: Range;

  constructor(
    parts: { readonly collection: Node; readonly key: Node },
    range: Range,
    open: Range,
    brackets: Range,
  ) {
    super(range);
    this.#collection = parts.collection;
    this.#key = parts.key;
    this.#open = open;
    this.#brackets = brackets;
  }

  override get startRange(): Range {
    return this.#open;
  }

  value(ctx: EvalContext | undefined, diagnostics: Diagnostic[]): Value {
    const collection = this.#collection.value(ctx, diagnostics);
    return indexInto(collection, this.#key.value(ctx, diagnostics), this.#brackets, diagnostics);
  }

  collect(into: Collected, hidden: Hidden): void {
    this.#collection.collect(into, hidden);
    this.#key.collect(into, hidden);
  }
}
