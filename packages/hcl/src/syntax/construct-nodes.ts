import { ConversionError, convert } from "../cty/convert.ts";
import { compareStrings, quote } from "../cty/text.ts";
import { boolType, friendlyName, listType, stringType, type Type, tupleType } from "../cty/type.ts";
import {
  commonElementType,
  emptyTuple,
  listValue,
  objectValue,
  stringValue,
  tupleValue,
  unknownDynamic,
  unknownValue,
  type Value,
} from "../cty/value.ts";
import { type Diagnostic, errorAt, hasErrors, type Range, rangeBetween } from "../diagnostics.ts";
import { type EvalContext, expressionKeyword, type KeyValuePair, type Traversal } from "../expression.ts";
import { spend } from "../work.ts";
import { type Collected, type Hidden, Node, TraversalNode } from "./nodes.ts";

/** `[a, b]`. */
export class TupleNode extends Node {
  readonly elems: readonly Node[];
  readonly #open: Range;

  constructor(elems: readonly Node[], range: Range, open: Range) {
    super(range);
    this.elems = elems;
    this.#open = open;
  }

  override get startRange(): Range {
    return this.#open;
  }

  value(ctx: EvalContext | undefined, diagnostics: Diagnostic[]): Value {
    return tupleValue(this.elems.map((elem) => elem.value(ctx, diagnostics)));
  }

  collect(into: Collected, hidden: Hidden): void {
    for (const elem of this.elems) elem.collect(into, hidden);
  }

  asList(): readonly Node[] {
    return this.elems;
  }
}

/** The key of an object's member: a bare word is its own text. */
export class ObjectKeyNode extends Node {
  readonly inner: Node;
  readonly #computed: boolean;

  constructor(inner: Node, computed: boolean) {
    super(inner.range);
    this.inner = inner;
    this.#computed = computed;
  }

  override get startRange(): Range {
    return this.inner.startRange;
  }

  value(ctx: EvalContext | undefined, diagnostics: Diagnostic[]): Value {
    if (!this.#computed) {
      if (this.inner instanceof TraversalNode && this.inner.traversal.length > 1) {
        diagnostics.push(
          errorAt(
            "Ambiguous attribute key",
            "If this expression is intended to be a reference, wrap it in parentheses. If it's instead intended as a literal name containing periods, wrap it in quotes to create a string literal.",
            this.range,
          ),
        );
        return unknownDynamic;
      }
      const word = expressionKeyword(this.inner);
      if (word !== "") return stringValue(word);
    }
    return this.inner.value(ctx, diagnostics);
  }

  collect(into: Collected, hidden: Hidden): void {
    if (expressionKeyword(this.inner) === "") this.inner.collect(into, hidden);
  }

  override asTraversal(): Traversal | undefined {
    return this.#computed ? undefined : this.inner.asTraversal();
  }
}

export interface ObjectItem {
  readonly key: ObjectKeyNode;
  readonly value: Node;
}

/** `{ a = 1 }`. */
export class ObjectNode extends Node {
  readonly items: readonly ObjectItem[];
  readonly #open: Range;

  constructor(items: readonly ObjectItem[], range: Range, open: Range) {
    super(range);
    this.items = items;
    this.#open = open;
  }

  override get startRange(): Range {
    return this.#open;
  }

  value(ctx: EvalContext | undefined, diagnostics: Diagnostic[]): Value {
    const attrs = new Map<string, Value>();
    let known = true;
    for (const item of this.items) {
      const before = diagnostics.length;
      const key = item.key.value(ctx, diagnostics);
      const failed = diagnostics.length > before;
      const value = item.value.value(ctx, diagnostics);
      const name = failed ? undefined : keyText(key, item, diagnostics);
      if (name === undefined) known = false;
      else attrs.set(name, value);
    }
    return known ? objectValue(attrs) : unknownDynamic;
  }

  collect(into: Collected, hidden: Hidden): void {
    for (const item of this.items) {
      item.key.collect(into, hidden);
      item.value.collect(into, hidden);
    }
  }

  asMap(): readonly KeyValuePair[] {
    return this.items;
  }
}

function keyText(key: Value, item: ObjectItem, diagnostics: Diagnostic[]): string | undefined {
  if (key.isNull) {
    diagnostics.push(errorAt("Null value as key", "Can't use a null value as a key.", item.value.range));
    return undefined;
  }
  try {
    const text = convert(key, stringType);
    return text.isKnown ? text.string : undefined;
  } catch (error) {
    if (!(error instanceof ConversionError)) throw error;
    const detail = `Can't use this value as a key: ${error.message}.`;
    diagnostics.push(errorAt("Incorrect key type", detail, item.key.range));
    return undefined;
  }
}

/** What a `for` expression consists of. */
export interface ForParts {
  /** Empty when the key isn't named. */
  readonly keyName: string;
  readonly valueName: string;
  readonly collection: Node;
  /** Present when an object is made. */
  readonly key?: Node | undefined;
  readonly value: Node;
  readonly condition?: Node | undefined;
  /** `...`: values with the same key are gathered. */
  readonly group: boolean;
}

/** `[for v in c : …]` and `{for k, v in c : … => …}`. */
export class ForNode extends Node {
  readonly parts: ForParts;
  readonly #open: Range;

  constructor(parts: ForParts, range: Range, open: Range) {
    super(range);
    this.parts = parts;
    this.#open = open;
  }

  override get startRange(): Range {
    return this.#open;
  }

  value(ctx: EvalContext | undefined, diagnostics: Diagnostic[]): Value {
    const { collection: source } = this.parts;
    const collection = source.value(ctx, diagnostics);
    const fail = (summary: string, detail: string): Value => {
      diagnostics.push(errorAt(summary, detail, source.range, this.range));
      return unknownDynamic;
    };
    if (collection.isNull) {
      return fail(
        "Iteration over null value",
        "A null value cannot be used as the collection in a 'for' expression.",
      );
    }
    if (collection.type.kind === "dynamic") return unknownDynamic;
    if (!collection.isIterable) {
      const type = friendlyName(collection.type);
      return fail(
        "Iteration over non-iterable value",
        `A value of type ${type} cannot be used as the collection in a 'for' expression.`,
      );
    }
    if (!this.#checkCondition(ctx, diagnostics) || !collection.isKnown) return unknownDynamic;
    return this.parts.key === undefined
      ? this.#tuple(collection, ctx, diagnostics)
      : this.#object(collection, ctx, diagnostics);
  }

  /** Tries the condition without values, so that mistakes show for empty collections too. */
  #checkCondition(ctx: EvalContext | undefined, diagnostics: Diagnostic[]): boolean {
    const { condition } = this.parts;
    if (condition === undefined) return true;
    const before = diagnostics.length;
    const result = condition.value(this.#scope(ctx, unknownDynamic, unknownDynamic), diagnostics);
    if (result.isNull) {
      diagnostics.push(
        errorAt(
          "Condition is null",
          "The value of the 'if' clause must not be null.",
          condition.range,
          this.range,
        ),
      );
      return false;
    }
    return this.#included(result, condition, diagnostics) !== null && diagnostics.length === before;
  }

  #scope(ctx: EvalContext | undefined, key: Value, value: Value): EvalContext {
    spend(1);
    const variables = new Map<string, Value>();
    if (this.parts.keyName !== "") variables.set(this.parts.keyName, key);
    variables.set(this.parts.valueName, value);
    return { variables, parent: ctx };
  }

  /** The condition as a bool; `undefined` when unknown, `null` after a complaint. */
  #included(result: Value, condition: Node, diagnostics: Diagnostic[]): boolean | undefined | null {
    const complain = (detail: string): null => {
      diagnostics.push(errorAt("Invalid 'for' condition", detail, condition.range, this.range));
      return null;
    };
    if (result.isNull) return complain("The value of the 'if' clause must not be null.");
    if (!result.isKnown) return undefined;
    try {
      return convert(result, boolType).isTrue;
    } catch (error) {
      if (!(error instanceof ConversionError)) throw error;
      return complain(`The 'if' clause value is invalid: ${error.message}.`);
    }
  }

  #tuple(collection: Value, ctx: EvalContext | undefined, diagnostics: Diagnostic[]): Value {
    const { condition } = this.parts;
    const values: Value[] = [];
    let known = true;
    for (const [key, item] of collection.entries()) {
      const scope = this.#scope(ctx, key, item);
      if (condition !== undefined) {
        const problems: Diagnostic[] = [];
        const include = this.#included(condition.value(scope, problems), condition, problems);
        if (include !== null || known) diagnostics.push(...problems);
        if (include === null || include === undefined) known = false;
        if (include !== true) continue;
      }
      values.push(this.parts.value.value(scope, diagnostics));
    }
    return known ? tupleValue(values) : unknownDynamic;
  }

  #object(collection: Value, ctx: EvalContext | undefined, diagnostics: Diagnostic[]): Value {
    const { condition, group } = this.parts;
    const groups = new Map<string, Value[]>();
    let known = true;
    for (const [key, item] of collection.entries()) {
      const scope = this.#scope(ctx, key, item);
      if (condition !== undefined) {
        const include = this.#included(condition.value(scope, diagnostics), condition, diagnostics);
        if (include === null || include === undefined) known = false;
        if (include !== true) continue;
      }
      const name = this.#key(scope, known, diagnostics);
      if (name === undefined) {
        known = false;
        continue;
      }
      const value = this.parts.value.value(scope, diagnostics);
      const values = groups.get(name);
      if (values === undefined) groups.set(name, [value]);
      else if (group) values.push(value);
      else this.#duplicate(name, diagnostics);
    }
    if (!known) return unknownDynamic;
    const names = [...groups.keys()].sort(compareStrings);
    return objectValue(
      new Map(names.map((name) => [name, group ? tupleValue(groups.get(name)!) : groups.get(name)![0]!])),
    );
  }

  #duplicate(name: string, diagnostics: Diagnostic[]): void {
    const detail = `Two different items produced the key ${quote(name)} in this 'for' expression. If duplicates are expected, use the ellipsis (...) after the value expression to enable grouping by key.`;
    diagnostics.push(errorAt("Duplicate object key", detail, this.parts.key!.range, this.range));
  }

  #key(scope: EvalContext, known: boolean, diagnostics: Diagnostic[]): string | undefined {
    const node = this.parts.key!;
    const raw = node.value(scope, diagnostics);
    const complain = (detail: string): undefined => {
      if (known) diagnostics.push(errorAt("Invalid object key", detail, node.range, this.range));
      return undefined;
    };
    if (raw.isNull) return complain("Key expression in 'for' expression must not produce a null value.");
    if (!raw.isKnown) return undefined;
    try {
      return convert(raw, stringType).string;
    } catch (error) {
      if (!(error instanceof ConversionError)) throw error;
      return complain(`The key expression produced an invalid result: ${error.message}.`);
    }
  }

  collect(into: Collected, hidden: Hidden): void {
    const { keyName, valueName, collection, key, value, condition } = this.parts;
    collection.collect(into, hidden);
    const inner = new Set([...hidden, keyName, valueName]);
    key?.collect(into, inner);
    value.collect(into, inner);
    condition?.collect(into, inner);
  }
}

/** The element at hand inside a splat. */
export class SplatItemNode extends Node {
  current: Value | undefined;

  value(): Value {
    return this.current ?? unknownDynamic;
  }

  collect(): void {}
}

/** `a.*.b` and `a[*].b`. */
export class SplatNode extends Node {
  readonly #source: Node;
  readonly #each: Node;
  readonly #item: SplatItemNode;
  readonly #marker: Range;

  constructor(
    parts: { readonly source: Node; readonly each: Node; readonly item: SplatItemNode },
    range: Range,
    marker: Range,
  ) {
    super(range);
    this.#source = parts.source;
    this.#each = parts.each;
    this.#item = parts.item;
    this.#marker = marker;
  }

  override get startRange(): Range {
    return this.#marker;
  }

  value(ctx: EvalContext | undefined, diagnostics: Diagnostic[]): Value {
    const before = diagnostics.length;
    const source = this.#source.value(ctx, diagnostics);
    if (diagnostics.length > before && hasErrors(diagnostics.slice(before))) return unknownDynamic;
    const sequence =
      source.type.kind === "tuple" || source.type.kind === "list" || source.type.kind === "set";
    if (source.isNull) {
      if (!sequence) return emptyTuple;
      diagnostics.push(
        errorAt(
          "Splat of null value",
          "Splat expressions (with the * symbol) cannot be applied to null sequences.",
          this.#source.range,
          rangeBetween(this.#source.range, this.#marker),
        ),
      );
      return unknownDynamic;
    }
    if (source.type.kind === "dynamic") return unknownDynamic;
    if (!sequence && !source.isKnown) return unknownDynamic;
    const items = sequence ? source : tupleValue([source]);
    if (!items.isKnown) return unknownValue(this.#resultType(items.type, ctx));
    return this.#gather(items, ctx, diagnostics);
  }

  #gather(items: Value, ctx: EvalContext | undefined, diagnostics: Diagnostic[]): Value {
    const before = diagnostics.length;
    const values = items.elements.map((item) => this.#apply(item, ctx, diagnostics));
    if (diagnostics.length > before) return unknownValue(this.#resultType(items.type, ctx));
    if (items.type.kind === "tuple") return tupleValue(values);
    if (values.length === 0) {
      const type = this.#resultType(items.type, ctx);
      return listValue([], type.kind === "list" ? type.elem : type);
    }
    if (commonElementType(values) !== undefined) return listValue(values);
    diagnostics.push(
      errorAt(
        "Invalid nested splat expressions",
        "The second level of splat expression produced elements of different types, so it isn't possible to construct a valid list to represent the top-level result.\n\nConsider using a for expression instead, to produce a tuple-typed result which can therefore have non-homogenous element types.",
        this.#each.range,
        this.range,
      ),
    );
    return unknownDynamic;
  }

  #apply(item: Value, ctx: EvalContext | undefined, diagnostics: Diagnostic[]): Value {
    const outer = this.#item.current;
    this.#item.current = item;
    spend(1);
    try {
      return this.#each.value(ctx, diagnostics);
    } finally {
      this.#item.current = outer;
    }
  }

  #resultType(type: Type, ctx: EvalContext | undefined): Type {
    const typeFor = (elem: Type): Type => this.#apply(unknownValue(elem), ctx, []).type;
    if (type.kind === "tuple") return tupleType(type.elems.map(typeFor));
    return type.kind === "list" || type.kind === "set" ? listType(typeFor(type.elem)) : type;
  }

  collect(into: Collected, hidden: Hidden): void {
    this.#source.collect(into, hidden);
    this.#each.collect(into, hidden);
  }
}
