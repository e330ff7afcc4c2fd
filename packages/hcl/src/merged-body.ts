import type { Attribute, Block, Body, BodyContent, BodySchema } from "./body.ts";
import { quote } from "./cty/text.ts";
import { type Diagnostic, errorAt, formatRange, INITIAL_POS, type Range } from "./diagnostics.ts";

/** Several bodies as one, as if they were written one after the other. Of an attribute given twice the last counts. */
export class MergedBody implements Body {
  readonly #bodies: readonly Body[];

  constructor(bodies: readonly Body[]) {
    this.#bodies = bodies;
  }

  get missingItemRange(): Range {
    return this.#bodies[0]?.missingItemRange ?? { filename: "<empty>", start: INITIAL_POS, end: INITIAL_POS };
  }

  content(schema: BodySchema, diagnostics: Diagnostic[]): BodyContent {
    return this.#merge(schema, diagnostics, (body, lax) => body.content(lax, diagnostics));
  }

  partialContent(schema: BodySchema, diagnostics: Diagnostic[]): { content: BodyContent; rest: Body } {
    const rest: Body[] = [];
    const content = this.#merge(schema, diagnostics, (body, lax) => {
      const part = body.partialContent(lax, diagnostics);
      rest.push(part.rest);
      return part.content;
    });
    return { content, rest: new MergedBody(rest) };
  }

  #merge(
    schema: BodySchema,
    diagnostics: Diagnostic[],
    take: (body: Body, schema: BodySchema) => BodyContent,
  ): BodyContent {
    const lax = { attributes: schema.attributes.map(({ name }) => ({ name })), blocks: schema.blocks };
    const attributes = new Map<string, Attribute>();
    const blocks: Block[] = [];
    for (const body of this.#bodies) {
      const part = take(body, lax);
      addAttributes(attributes, part.attributes, diagnostics);
      blocks.push(...part.blocks);
    }
    for (const { name, required } of schema.attributes) {
      if (required !== true || attributes.has(name)) continue;
      const detail = `The argument ${quote(name)} is required, but was not set.`;
      diagnostics.push(errorAt("Missing required argument", detail, undefined));
    }
    return { attributes, blocks };
  }

  justAttributes(diagnostics: Diagnostic[]): ReadonlyMap<string, Attribute> {
    const attributes = new Map<string, Attribute>();
    for (const body of this.#bodies) addAttributes(attributes, body.justAttributes(diagnostics), diagnostics);
    return attributes;
  }

  itemNames(): readonly { readonly name: string; readonly range: Range }[] {
    return this.#bodies.flatMap((body) => body.itemNames());
  }
}

function addAttributes(
  into: Map<string, Attribute>,
  from: ReadonlyMap<string, Attribute>,
  diagnostics: Diagnostic[],
): void {
  for (const [name, attribute] of from) {
    const existing = into.get(name);
    if (existing !== undefined) {
      const detail = `Argument ${quote(name)} was already set at ${formatRange(existing.nameRange)}`;
      diagnostics.push(errorAt("Duplicate argument", detail, attribute.nameRange));
    }
    into.set(name, attribute);
  }
}
