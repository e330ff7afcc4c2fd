import {
  type Attribute,
  type Block,
  type Body,
  type BodySchema,
  ConversionError,
  constantExpression,
  convert,
  type Diagnostic,
  type Expression,
  errorAt,
  nullDynamic,
  stringType,
} from "@kiln/hcl";

/** `validation { … }` of a variable. */
export interface Validation {
  readonly condition: Expression;
  readonly errorMessage: Expression;
}

/** `variable "name" { … }`. */
export interface VariableBlock {
  readonly name: string;
  readonly type: Expression;
  readonly default: Attribute | undefined;
  readonly description: string;
  readonly validations: readonly Validation[];
  readonly body: Body;
}

/** `function "name" { … }`. */
export interface FunctionBlock {
  readonly name: string;
  readonly params: Attribute | undefined;
  readonly variadic: Attribute | undefined;
  readonly result: Attribute | undefined;
  readonly block: Block;
}

const TOP: BodySchema = {
  attributes: [],
  blocks: [
    { type: "function", labels: ["name"] },
    { type: "variable", labels: ["name"] },
  ],
};
const VARIABLE: BodySchema = {
  attributes: [{ name: "default" }, { name: "description" }, { name: "type" }],
  blocks: [{ type: "validation", labels: [] }],
};
const VALIDATION: BodySchema = { attributes: [{ name: "condition" }, { name: "error_message" }], blocks: [] };
const FUNCTION: BodySchema = {
  attributes: [{ name: "params" }, { name: "result" }, { name: "variadic_params" }],
  blocks: [],
};

/** A definition's own names: what isn't known gets a hint. */
export const KNOWN_VARIABLE_ITEMS: readonly string[] = ["default", "description", "type", "validation"];

/** Variables and functions of a body, and what else is in it. */
export function readDefinitions(
  body: Body,
  diagnostics: Diagnostic[],
): { readonly variables: VariableBlock[]; readonly functions: FunctionBlock[]; readonly rest: Body } {
  const { content, rest } = body.partialContent(TOP, diagnostics);
  const variables: VariableBlock[] = [];
  const functions: FunctionBlock[] = [];
  for (const block of content.blocks) {
    if (block.type === "variable") variables.push(readVariable(block, diagnostics));
    else functions.push(readFunction(block, diagnostics));
  }
  return { variables, functions, rest };
}

/** An optional attribute's expression; null where it is missing. */
function expressionOf(attribute: Attribute | undefined, body: Body): Expression {
  return attribute?.expr ?? constantExpression(nullDynamic, body.missingItemRange);
}

function readVariable(block: Block, diagnostics: Diagnostic[]): VariableBlock {
  const { content } = block.body.partialContent(VARIABLE, diagnostics);
  const description = content.attributes.get("description");
  return {
    name: block.labels[0] ?? "",
    type: expressionOf(content.attributes.get("type"), block.body),
    default: content.attributes.get("default"),
    description: description === undefined ? "" : constantText(description, diagnostics),
    validations: content.blocks.map((validation) => {
      const inner = validation.body.content(VALIDATION, diagnostics);
      return {
        condition: expressionOf(inner.attributes.get("condition"), validation.body),
        errorMessage: expressionOf(inner.attributes.get("error_message"), validation.body),
      };
    }),
    body: block.body,
  };
}

function constantText(attribute: Attribute, diagnostics: Diagnostic[]): string {
  const { expr } = attribute;
  const value = expr.value(undefined, diagnostics);
  const unsuitable = (why: string): string => {
    diagnostics.push(
      errorAt("Unsuitable value type", `Unsuitable value: ${why}`, expr.startRange, expr.range),
    );
    return "";
  };
  try {
    const text = convert(value, stringType);
    if (text.isNull) return unsuitable("null value is not allowed");
    return text.isKnown ? text.string : unsuitable("value must be known");
  } catch (error) {
    if (error instanceof ConversionError) return unsuitable(error.message);
    throw error;
  }
}

function readFunction(block: Block, diagnostics: Diagnostic[]): FunctionBlock {
  const { attributes } = block.body.content(FUNCTION, diagnostics);
  return {
    name: block.labels[0] ?? "",
    params: attributes.get("params"),
    variadic: attributes.get("variadic_params"),
    result: attributes.get("result"),
    block,
  };
}
