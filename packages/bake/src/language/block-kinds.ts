import { errorMessage, isBuildError } from "@kiln/base";
import {
  type Block,
  ConversionError,
  convert,
  type Diagnostic,
  type EvalContext,
  type Expression,
  errorAt,
  objectType,
  stringValue,
  type Type,
  Value,
} from "@kiln/hcl";
import type { TargetField } from "../fields/field.ts";
import { textsField } from "../fields/field-kinds.ts";
import { TARGET_FIELDS, targetFields } from "../fields/target-fields.ts";

export type BlockKind = "group" | "target";

/** What one block, or one product of its matrix, evaluates to. */
export interface BlockOutput {
  readonly kind: BlockKind;
  name: string;
  readonly values: Map<string, unknown>;
  readonly block: Block;
}

const groupTargets = textsField({
  name: "targets",
  combine: "replace",
  doc: "Targets and groups that belong to the group.",
  example: 'targets = ["app", "docs"]',
  normalize: (value) => value,
});

const FIELDS: Record<BlockKind, readonly TargetField<unknown>[]> = {
  group: [targetFields.description, groupTargets] as unknown as readonly TargetField<unknown>[],
  target: TARGET_FIELDS,
};
const BY_NAME = new Map(
  (["group", "target"] as const).map((kind) => [
    kind,
    new Map(FIELDS[kind].map((field) => [field.name, field])),
  ]),
);
const NAMES: Record<BlockKind, readonly string[]> = {
  group: FIELDS.group.map((field) => field.name),
  target: FIELDS.target.map((field) => field.name),
};

/** Names of a kind's attributes. */
export function fieldNames(kind: BlockKind): readonly string[] {
  return NAMES[kind];
}

/** True for an attribute of a kind. */
export function isField(kind: BlockKind, name: string): boolean {
  return BY_NAME.get(kind)?.has(name) === true;
}

interface Place {
  readonly ctx: EvalContext;
  readonly diagnostics: Diagnostic[];
}

/** Evaluates one attribute into a block's output. */
export function decodeAttribute(
  output: BlockOutput,
  name: string,
  expr: Expression,
  { ctx, diagnostics }: Place,
): void {
  const field = BY_NAME.get(output.kind)?.get(name);
  if (field === undefined) return;
  const given = expr.value(ctx, diagnostics);
  const unsuitable = (why: string): void => {
    diagnostics.push(
      errorAt("Unsuitable value type", `Unsuitable value: ${why}`, expr.startRange, expr.range),
    );
  };
  try {
    const value = field.type === undefined ? given : convert(given, field.type);
    if (!value.isKnown || (field.type !== undefined && !value.isWhollyKnown))
      unsuitable("value must be known");
    else if (!value.isNull) output.values.set(name, field.decode(value));
    else if (!field.nullable) unsuitable("null value is not allowed");
  } catch (error) {
    if (!(error instanceof ConversionError) && !isBuildError(error)) throw error;
    unsuitable(errorMessage(error));
  }
}

/** A map whose values are computed when they are asked for. */
class LazyMap<T> extends Map<string, T> {
  readonly #compute: (name: string) => T;

  constructor(names: readonly string[], compute: (name: string) => T) {
    super();
    this.#compute = compute;
    for (const name of names) super.set(name, undefined as T);
  }

  override get(name: string): T | undefined {
    return this.has(name) ? this.#compute(name) : undefined;
  }

  override *entries(): MapIterator<[string, T]> {
    for (const name of super.keys()) yield [name, this.#compute(name)];
  }

  override *values(): MapIterator<T> {
    for (const name of super.keys()) yield this.#compute(name);
  }

  override [Symbol.iterator](): MapIterator<[string, T]> {
    return this.entries();
  }

  override forEach(visit: (value: T, name: string, map: Map<string, T>) => void): void {
    for (const [name, value] of this.entries()) visit(value, name, this);
  }
}

/** The object that references to a block see. What isn't evaluated yet is null. */
export function outputValue(output: BlockOutput): Value {
  const fields = BY_NAME.get(output.kind)!;
  const names = ["name", ...fields.keys()];
  const values = new Map(output.values);
  const members = new LazyMap<Value>(names, (name) =>
    name === "name" ? stringValue(output.name) : fields.get(name)!.toValue(values.get(name)),
  );
  return new Value(objectType(new LazyMap<Type>(names, (name) => members.get(name)!.type)), members);
}
