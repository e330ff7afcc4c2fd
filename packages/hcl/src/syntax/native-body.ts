import type { Attribute, Block, Body, BodyContent, BodySchema } from "../body.ts";
import { quote } from "../cty/text.ts";
import { type Diagnostic, didYouMean, errorAt, type Range, rangeBetween } from "../diagnostics.ts";

/** A block with the places of its parts. */
export interface NativeBlock extends Block {
  readonly openRange: Range;
}

/** A body of the native syntax. */
export class NativeBody implements Body {
  readonly attributes: ReadonlyMap<string, Attribute>;
  readonly blocks: readonly NativeBlock[];
  readonly range: Range;
  readonly #taken: ReadonlySet<string>;
  readonly #takenBlocks: ReadonlySet<string>;

  constructor(
    items: { readonly attributes: ReadonlyMap<string, Attribute>; readonly blocks: readonly NativeBlock[] },
    range: Range,
    taken: ReadonlySet<string> = new Set(),
    takenBlocks: ReadonlySet<string> = new Set(),
  ) {
    this.attributes = items.attributes;
    this.blocks = items.blocks;
    this.range = range;
    this.#taken = taken;
    this.#takenBlocks = takenBlocks;
  }

  get missingItemRange(): Range {
    return { ...this.range, end: this.range.start };
  }

  partialContent(schema: BodySchema, diagnostics: Diagnostic[]): { content: BodyContent; rest: NativeBody } {
    const attributes = new Map<string, Attribute>();
    const taken = new Set(this.#taken);
    for (const { name, required } of schema.attributes) {
      const attribute = taken.has(name) ? undefined : this.attributes.get(name);
      if (attribute === undefined) {
        if (required !== true) continue;
        const detail = `The argument ${quote(name)} is required, but no definition was found.`;
        diagnostics.push(errorAt("Missing required argument", detail, this.missingItemRange));
        continue;
      }
      taken.add(name);
      attributes.set(name, attribute);
    }
    const wanted = new Map(schema.blocks.map((block) => [block.type, block.labels]));
    const blocks: Block[] = [];
    for (const block of this.blocks) {
      const labels = this.#takenBlocks.has(block.type) ? undefined : wanted.get(block.type);
      if (labels !== undefined && labelsFit(block, labels, diagnostics)) blocks.push(block);
    }
    const takenBlocks = new Set([...this.#takenBlocks, ...wanted.keys()]);
    return { content: { attributes, blocks }, rest: new NativeBody(this, this.range, taken, takenBlocks) };
  }

  content(schema: BodySchema, diagnostics: Diagnostic[]): BodyContent {
    const { content, rest } = this.partialContent(schema, diagnostics);
    const blockTypes = schema.blocks.map((block) => block.type);
    const attributeNames = schema.attributes.map((attribute) => attribute.name);
    for (const [name, attribute] of rest.#leftAttributes()) {
      const free = attributeNames.filter((other) => !content.attributes.has(other));
      const block = blockTypes.includes(name)
        ? ` Did you mean to define a block of type ${quote(name)}?`
        : "";
      const detail = `An argument named ${quote(name)} is not expected here.${didYouMean(name, free) || block}`;
      diagnostics.push(errorAt("Unsupported argument", detail, attribute.nameRange));
    }
    for (const { type, typeRange } of rest.#leftBlocks()) {
      const argument = attributeNames.includes(type)
        ? ` Did you mean to define argument ${quote(type)}? If so, use the equals sign to assign it a value.`
        : "";
      const detail = `Blocks of type ${quote(type)} are not expected here.${didYouMean(type, blockTypes) || argument}`;
      diagnostics.push(errorAt("Unsupported block type", detail, typeRange));
    }
    return content;
  }

  #leftAttributes(): [string, Attribute][] {
    return [...this.attributes].filter(([name]) => !this.#taken.has(name));
  }

  #leftBlocks(): NativeBlock[] {
    return this.blocks.filter((block) => !this.#takenBlocks.has(block.type));
  }

  justAttributes(diagnostics: Diagnostic[]): ReadonlyMap<string, Attribute> {
    const [example] = this.blocks;
    if (example !== undefined) {
      const summary = `Unexpected ${quote(example.type)} block`;
      diagnostics.push(errorAt(summary, "Blocks are not allowed here.", example.typeRange));
    }
    return new Map(this.#leftAttributes());
  }

  itemNames(): readonly { readonly name: string; readonly range: Range }[] {
    return [
      ...this.#leftAttributes().map(([name, attribute]) => ({ name, range: attribute.nameRange })),
      ...this.#leftBlocks().map((block) => ({ name: block.type, range: block.typeRange })),
    ];
  }
}

function labelsFit(block: NativeBlock, names: readonly string[], diagnostics: Diagnostic[]): boolean {
  const { type, labels } = block;
  if (labels.length === names.length) return true;
  const context = rangeBetween(block.typeRange, block.openRange);
  if (labels.length > names.length) {
    const detail =
      names.length === 0
        ? `No labels are expected for ${type} blocks.`
        : `Only ${names.length} labels (${names.join(", ")}) are expected for ${type} blocks.`;
    diagnostics.push(
      errorAt(`Extraneous label for ${type}`, detail, block.labelRanges[names.length], context),
    );
    return false;
  }
  const detail = `All ${type} blocks must have ${names.length} labels (${names.join(", ")}).`;
  diagnostics.push(errorAt(`Missing ${names[labels.length]} for ${type}`, detail, block.openRange, context));
  return false;
}
