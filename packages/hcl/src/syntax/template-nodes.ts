import { ConversionError, convert } from "../cty/convert.ts";
import { stringType } from "../cty/type.ts";
import { stringValue, unknownValue, type Value } from "../cty/value.ts";
import { type Diagnostic, errorAt, type Range } from "../diagnostics.ts";
import type { EvalContext } from "../expression.ts";
import { type Collected, type Hidden, LiteralNode, Node } from "./nodes.ts";

/** Longest text that a template may produce, in UTF-16 units. */
const MAX_TEMPLATE_LENGTH = 64 * 1024 * 1024;
const INVALID = "Invalid template interpolation value";

/** Text with values in it: the parts are joined. */
export class TemplateNode extends Node {
  readonly parts: readonly Node[];

  constructor(parts: readonly Node[], range: Range) {
    super(range);
    this.parts = parts;
  }

  override get startRange(): Range {
    return this.parts[0]?.startRange ?? this.range;
  }

  /** True for a string without any sequence. */
  get isLiteral(): boolean {
    return this.parts.length === 1 && this.parts[0] instanceof LiteralNode;
  }

  value(ctx: EvalContext | undefined, diagnostics: Diagnostic[]): Value {
    let text = "";
    let known = true;
    for (const part of this.parts) {
      const value = part.value(ctx, diagnostics);
      if (value.isNull) {
        const detail = "The expression result is null. Cannot include a null value in a string template.";
        diagnostics.push(errorAt(INVALID, detail, part.range, this.range));
        continue;
      }
      if (!value.isKnown) {
        known = false;
        continue;
      }
      const piece = asText(value);
      if (typeof piece === "string") text += piece;
      else {
        const detail = `Cannot include the given value in a string template: ${piece.message}.`;
        diagnostics.push(errorAt(INVALID, detail, part.range, this.range));
      }
      if (text.length > MAX_TEMPLATE_LENGTH) {
        diagnostics.push(
          errorAt("Template result too long", "The result of this template is too long.", this.range),
        );
        return unknownValue(stringType);
      }
    }
    return known ? stringValue(text) : unknownValue(stringType);
  }

  collect(into: Collected, hidden: Hidden): void {
    for (const part of this.parts) part.collect(into, hidden);
  }
}

function asText(value: Value): string | ConversionError | RangeError {
  try {
    return convert(value, stringType).string;
  } catch (error) {
    if (error instanceof ConversionError || error instanceof RangeError) return error;
    throw error;
  }
}

/** `%{ for }`: the results of all rounds joined. */
export class TemplateJoinNode extends Node {
  readonly #tuple: Node;

  constructor(tuple: Node) {
    super(tuple.range);
    this.#tuple = tuple;
  }

  value(ctx: EvalContext | undefined, diagnostics: Diagnostic[]): Value {
    const tuple = this.#tuple.value(ctx, diagnostics);
    if (tuple.type.kind !== "tuple" || !tuple.isKnown) return unknownValue(stringType);
    const pieces: string[] = [];
    let length = 0;
    for (const value of tuple.elements) {
      if (value.isNull) {
        const detail = "An iteration result is null. Cannot include a null value in a string template.";
        diagnostics.push(errorAt(INVALID, detail, this.range));
        continue;
      }
      if (!value.isKnown) return unknownValue(stringType);
      const piece = asText(value);
      if (typeof piece === "string") {
        pieces.push(piece);
        length += piece.length;
      } else {
        const detail = `Cannot include one of the interpolation results into the string template: ${piece.message}.`;
        diagnostics.push(errorAt(INVALID, detail, this.range));
      }
      if (length > MAX_TEMPLATE_LENGTH) {
        diagnostics.push(
          errorAt("Template result too long", "The result of this template is too long.", this.range),
        );
        return unknownValue(stringType);
      }
    }
    return stringValue(pieces.join(""));
  }

  collect(into: Collected, hidden: Hidden): void {
    this.#tuple.collect(into, hidden);
  }
}

/** `"${a}"`: the value itself, of whatever type. */
export class TemplateWrapNode extends Node {
  readonly #inner: Node;

  constructor(inner: Node, range: Range) {
    super(range);
    this.#inner = inner;
  }

  value(ctx: EvalContext | undefined, diagnostics: Diagnostic[]): Value {
    return this.#inner.value(ctx, diagnostics);
  }

  collect(into: Collected, hidden: Hidden): void {
    this.#inner.collect(into, hidden);
  }
}
