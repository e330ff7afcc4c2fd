import type { Diagnostic, Range } from "./diagnostics.ts";
import type { Expression } from "./expression.ts";

/** `name = expression`. */
export interface Attribute {
  readonly name: string;
  readonly expr: Expression;
  readonly range: Range;
  readonly nameRange: Range;
}

/** `type "label" { … }`. */
export interface Block {
  readonly type: string;
  readonly labels: readonly string[];
  readonly body: Body;
  /** The block's header. */
  readonly defRange: Range;
  readonly typeRange: Range;
  readonly labelRanges: readonly Range[];
}

/** What to look for in a body. */
export interface BodySchema {
  readonly attributes: readonly { readonly name: string; readonly required?: boolean }[];
  readonly blocks: readonly { readonly type: string; readonly labels: readonly string[] }[];
}

/** What a schema found. */
export interface BodyContent {
  readonly attributes: ReadonlyMap<string, Attribute>;
  readonly blocks: readonly Block[];
}

/** A body of either syntax. What it holds is only told by a schema, as JSON can't tell blocks from attributes. */
export interface Body {
  /** Takes what the schema names and returns the rest as a body of its own. */
  partialContent(
    schema: BodySchema,
    diagnostics: Diagnostic[],
  ): { readonly content: BodyContent; readonly rest: Body };
  /** Takes what the schema names; anything else is an error. */
  content(schema: BodySchema, diagnostics: Diagnostic[]): BodyContent;
  /** All attributes; blocks are an error. */
  justAttributes(diagnostics: Diagnostic[]): ReadonlyMap<string, Attribute>;
  /** Names of everything at hand that isn't taken yet, for hints about misspelt names. */
  itemNames(): readonly { readonly name: string; readonly range: Range }[];
  /** Where something missing would be. */
  readonly missingItemRange: Range;
}

/** One parsed file. */
export interface HclFile {
  readonly filename: string;
  readonly text: string;
  readonly body: Body;
}
