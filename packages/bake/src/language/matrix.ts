import {
  type Block,
  ConversionError,
  convert,
  type Diagnostic,
  DiagnosticsError,
  type EvalContext,
  type Expression,
  hasErrors,
  stringType,
  type Value,
} from "@kiln/hcl";
import { fail } from "../problem.ts";
import type { BlockKind } from "./block-kinds.ts";

/** Most targets that one block's matrix may produce. */
const MAX_PRODUCTS = 100_000;

function attributes(block: Block, ...names: string[]): ReadonlyMap<string, Expression> {
  const diagnostics: Diagnostic[] = [];
  const schema = { attributes: names.map((name) => ({ name })), blocks: [] };
  const { content } = block.body.partialContent(schema, diagnostics);
  if (hasErrors(diagnostics)) throw new DiagnosticsError(diagnostics);
  return new Map([...content.attributes].map(([name, attribute]) => [name, attribute.expr]));
}

/**
 * The scopes in which a block is evaluated: one for each combination of its matrix, or just the given one. The
 * last key of the matrix varies fastest.
 */
export function matrixContexts(
  block: Block,
  kind: BlockKind,
  root: EvalContext,
  evaluate: (expr: Expression) => Value,
): readonly EvalContext[] {
  const expr = attributes(block, "matrix").get("matrix");
  if (expr === undefined) return [root];
  if (kind === "group") fail("matrix is not supported for groups");
  const matrix = evaluate(expr);
  if ((matrix.type.kind !== "map" && matrix.type.kind !== "object") || matrix.isNull || !matrix.isKnown) {
    fail("matrix must be a map");
  }
  let combinations: Map<string, Value>[] = [new Map()];
  for (const [key, values] of matrix.members) {
    if (!values.isIterable || values.isNull || !values.isKnown) fail("matrix values must be a list");
    const elements = [...values.entries()].map(([, element]) => element);
    if (combinations.length * elements.length > MAX_PRODUCTS) {
      fail(`a matrix may not produce more than ${MAX_PRODUCTS} targets`);
    }
    combinations = combinations.flatMap((variables) =>
      elements.map((element) => new Map([...variables, [key, element]])),
    );
  }
  if (matrix.members.size === 0) return [root];
  return combinations.map((variables) => ({ variables, parent: root }));
}

/** The name of a block's product in its scope. */
export function productName(block: Block, kind: BlockKind, evaluate: (expr: Expression) => Value): string {
  const found = attributes(block, "name", "matrix");
  const expr = found.get("name");
  if (kind === "group" && expr !== undefined) fail("name is not supported for groups");
  if (expr === undefined) return block.labels[0] ?? "";
  if (!found.has("matrix")) fail("name requires matrix");
  try {
    const name = convert(evaluate(expr), stringType);
    return name.isNull || !name.isKnown ? fail("name must not be null") : name.string;
  } catch (error) {
    if (error instanceof ConversionError) fail(error.message);
    throw error;
  }
}
