import type { Attribute, Block, Body, BodyContent, BodySchema, HclFile } from "../body.ts";
import { ConversionError, convert } from "../cty/convert.ts";
import { quote } from "../cty/text.ts";
import { stringType } from "../cty/type.ts";
import {
  boolValue,
  nullDynamic,
  numberValue,
  objectValue,
  stringValue,
  tupleValue,
  unknownDynamic,
  type Value,
} from "../cty/value.ts";
import {
  type Diagnostic,
  didYouMean,
  errorAt,
  formatRange,
  type Pos,
  type Range,
  rangeBetween,
} from "../diagnostics.ts";
import type { EvalContext, Expression, KeyValuePair, StaticCall, Traversal } from "../expression.ts";
import { decodeSource, type Parsed, parseExpression, parseTemplate, parseTraversal } from "../parse.ts";
import { type JsonMember, type JsonNode, nodeStart, parseJsonNode } from "./json-parser.ts";

/** Parses a file of the JSON syntax: every string is a template. */
export function parseHclJson(source: Uint8Array | string, filename: string): Parsed<HclFile> {
  const text = decodeSource(source);
  const bom = text.startsWith("\ufeff") ? 1 : 0;
  const { node, diagnostics } = parseJsonNode(text.slice(bom), filename);
  const problems = [...diagnostics];
  if (node.kind !== "object" && node.kind !== "array") {
    problems.push(
      errorAt(
        "Root value must be object",
        "The root value in a JSON-based configuration must be either a JSON object or a JSON array of objects.",
        nodeStart(node),
      ),
    );
  }
  const empty: JsonNode = {
    kind: "object",
    members: [],
    range: node.range,
    open: node.range,
    close: node.range,
  };
  const usable = node.kind === "object" || node.kind === "array" ? node : empty;
  return { value: { filename, text, body: new JsonBody(usable) }, diagnostics: problems };
}

const WRONG_TYPE = "Incorrect JSON value type";

/** A body of the JSON syntax. */
export class JsonBody implements Body {
  readonly #node: JsonNode;
  readonly #taken: ReadonlySet<string>;

  constructor(node: JsonNode, taken: ReadonlySet<string> = new Set()) {
    this.#node = node;
    this.#taken = taken;
  }

  get missingItemRange(): Range {
    const node = this.#node;
    return node.kind === "object" ? node.close : nodeStart(node);
  }

  content(schema: BodySchema, diagnostics: Diagnostic[]): BodyContent {
    const { content, rest } = this.partialContent(schema, diagnostics);
    const names = [
      ...schema.attributes.map((attribute) => attribute.name).filter((name) => !rest.#taken.has(name)),
      ...schema.blocks.map((block) => block.type),
    ];
    for (const member of collectMembers(this.#node, undefined, [])) {
      if (member.name === "//" || rest.#taken.has(member.name)) continue;
      const detail = `No argument or block type is named ${quote(member.name)}.${didYouMean(member.name, names)}`;
      diagnostics.push(
        errorAt("Extraneous JSON object property", detail, member.nameRange, memberRange(member)),
      );
    }
    return content;
  }

  partialContent(schema: BodySchema, diagnostics: Diagnostic[]): { content: BodyContent; rest: JsonBody } {
    const attributes = new Map<string, Attribute>();
    const blocks: Block[] = [];
    const taken = new Set(this.#taken);
    const attributeNames = new Set(schema.attributes.map((attribute) => attribute.name));
    const blockLabels = new Map(schema.blocks.map((block) => [block.type, block.labels]));
    for (const member of collectMembers(this.#node, undefined, diagnostics)) {
      const { name } = member;
      if (this.#taken.has(name)) continue;
      const labels = blockLabels.get(name);
      if (attributeNames.has(name)) {
        taken.add(name);
        const existing = attributes.get(name);
        if (existing === undefined) attributes.set(name, attributeOf(member));
        else {
          const detail = `The argument ${quote(name)} was already set at ${formatRange(existing.range)}.`;
          diagnostics.push(errorAt("Duplicate argument", detail, member.nameRange, memberRange(member)));
        }
      } else if (labels !== undefined) {
        taken.add(name);
        unpackBlocks(member.value, { type: name, typeRange: member.nameRange, wanted: labels }, [], {
          blocks,
          diagnostics,
        });
      }
    }
    for (const { name, required } of schema.attributes) {
      if (required !== true || attributes.has(name)) continue;
      const detail = `The argument ${quote(name)} is required, but no definition was found.`;
      diagnostics.push(errorAt("Missing required argument", detail, this.missingItemRange));
    }
    return { content: { attributes, blocks }, rest: new JsonBody(this.#node, taken) };
  }

  justAttributes(diagnostics: Diagnostic[]): ReadonlyMap<string, Attribute> {
    const attributes = new Map<string, Attribute>();
    if (this.#node.kind !== "object") {
      const detail = "A JSON object is required here, setting the arguments for this block.";
      diagnostics.push(errorAt(WRONG_TYPE, detail, nodeStart(this.#node)));
      return attributes;
    }
    for (const member of this.#node.members) {
      const { name } = member;
      if (name === "//" || this.#taken.has(name)) continue;
      const existing = attributes.get(name);
      if (existing === undefined) attributes.set(name, attributeOf(member));
      else {
        const detail = `The argument ${quote(name)} was already set at ${formatRange(existing.range)}.`;
        diagnostics.push(errorAt("Duplicate attribute definition", detail, member.nameRange));
      }
    }
    return attributes;
  }

  itemNames(): readonly { readonly name: string; readonly range: Range }[] {
    return collectMembers(this.#node, undefined, [])
      .filter((member) => member.name !== "//" && !this.#taken.has(member.name))
      .map((member) => ({ name: member.name, range: member.nameRange }));
  }
}

function memberRange(member: JsonMember): Range {
  return rangeBetween(member.nameRange, member.value.range);
}

function attributeOf(member: JsonMember): Attribute {
  const { name, nameRange } = member;
  return { name, expr: new JsonExpression(member.value), range: memberRange(member), nameRange };
}

/** The members of an object, or of all objects in an array. */
function collectMembers(
  node: JsonNode,
  label: string | undefined,
  diagnostics: Diagnostic[],
): readonly JsonMember[] {
  const purpose =
    label === undefined
      ? "to define arguments and child blocks"
      : `to specify ${label} labels for this block`;
  if (node.kind === "null") return [];
  if (node.kind === "object") return node.members;
  if (node.kind !== "array") {
    const detail = `Either a JSON object or JSON array of objects is required here, ${purpose}.`;
    diagnostics.push(errorAt(WRONG_TYPE, detail, nodeStart(node)));
    return [];
  }
  const members: JsonMember[] = [];
  for (const item of node.items) {
    if (item.kind === "object") members.push(...item.members);
    else
      diagnostics.push(errorAt(WRONG_TYPE, `A JSON object is required here, ${purpose}.`, nodeStart(item)));
  }
  return members;
}

interface BlockHeader {
  readonly type: string;
  readonly typeRange: Range;
  /** Names of the labels still to come. */
  readonly wanted: readonly string[];
}

interface BlockOutput {
  readonly blocks: Block[];
  readonly diagnostics: Diagnostic[];
}

function unpackBlocks(
  node: JsonNode,
  header: BlockHeader,
  labels: readonly JsonMember[],
  out: BlockOutput,
): void {
  const [label, ...wanted] = header.wanted;
  if (label !== undefined) {
    const members = collectMembers(node, label, out.diagnostics);
    if (members.length === 0) {
      const detail = `At least one object property is required, whose name represents the ${header.type} block's ${label}.`;
      out.diagnostics.push(errorAt("Missing block label", detail, nodeStart(node)));
    }
    for (const member of members) unpackBlocks(member.value, { ...header, wanted }, [...labels, member], out);
    return;
  }
  if (node.kind === "null") return;
  if (node.kind !== "object" && node.kind !== "array") {
    const detail = `Either a JSON object or a JSON array is required, representing the contents of one or more ${quote(header.type)} blocks.`;
    out.diagnostics.push(errorAt(WRONG_TYPE, detail, nodeStart(node)));
    return;
  }
  for (const body of node.kind === "object" ? [node] : node.items) {
    out.blocks.push({
      type: header.type,
      labels: labels.map((member) => member.name),
      body: new JsonBody(body),
      defRange: node.open,
      typeRange: header.typeRange,
      labelRanges: labels.map((member) => member.nameRange),
    });
  }
}

/** A JSON value as an expression. */
export class JsonExpression implements Expression {
  readonly #node: JsonNode;
  #template: Parsed<Expression> | undefined;

  constructor(node: JsonNode) {
    this.#node = node;
  }

  get range(): Range {
    return this.#node.range;
  }

  get startRange(): Range {
    return nodeStart(this.#node);
  }

  #parsed(text: string): Parsed<Expression> {
    const { start, filename } = { start: this.range.start, filename: this.range.filename };
    const inside: Pos = { line: start.line, column: start.column + 1, offset: start.offset + 1 };
    this.#template ??= parseTemplate(text, filename, inside);
    return this.#template;
  }

  value(ctx: EvalContext | undefined, diagnostics: Diagnostic[]): Value {
    const node = this.#node;
    switch (node.kind) {
      case "string": {
        if (ctx === undefined) return stringValue(node.text);
        if (!/[$%]/.test(node.text)) return stringValue(node.text);
        const template = this.#parsed(node.text);
        diagnostics.push(...template.diagnostics);
        return template.diagnostics.length > 0 ? unknownDynamic : template.value.value(ctx, diagnostics);
      }
      case "number":
        return numberValue(node.value);
      case "bool":
        return boolValue(node.value);
      case "null":
        return nullDynamic;
      case "array":
        return tupleValue(node.items.map((item) => new JsonExpression(item).value(ctx, diagnostics)));
      case "object":
        return objectOf(node.members, ctx, diagnostics);
      default:
        return unknownDynamic;
    }
  }

  #children(): JsonExpression[] {
    const node = this.#node;
    if (node.kind === "array") return node.items.map((item) => new JsonExpression(item));
    if (node.kind !== "object") return [];
    return node.members.flatMap((member) => [nameExpression(member), new JsonExpression(member.value)]);
  }

  variables(): Traversal[] {
    if (this.#node.kind !== "string") return this.#children().flatMap((child) => child.variables());
    if (!/[$%]/.test(this.#node.text)) return [];
    const template = this.#parsed(this.#node.text);
    return template.diagnostics.length > 0 ? [] : template.value.variables();
  }

  functionNames(): string[] {
    if (this.#node.kind !== "string") return this.#children().flatMap((child) => child.functionNames());
    if (!/[$%]/.test(this.#node.text)) return [];
    const template = this.#parsed(this.#node.text);
    return template.diagnostics.length > 0 ? [] : template.value.functionNames();
  }

  asTraversal(): Traversal | undefined {
    const node = this.#node;
    return node.kind === "string"
      ? parseTraversal(node.text, node.range.filename, node.range.start)
      : undefined;
  }

  asCall(): StaticCall | undefined {
    const node = this.#node;
    if (node.kind !== "string") return undefined;
    const { value, diagnostics } = parseExpression(node.text, node.range.filename, node.range.start);
    return diagnostics.length > 0 ? undefined : value.asCall();
  }

  asList(): readonly Expression[] | undefined {
    return this.#node.kind === "array" ? this.#node.items.map((item) => new JsonExpression(item)) : undefined;
  }

  asMap(): readonly KeyValuePair[] | undefined {
    if (this.#node.kind !== "object") return undefined;
    return this.#node.members.map((member) => ({
      key: nameExpression(member),
      value: new JsonExpression(member.value),
    }));
  }
}

function nameExpression(member: JsonMember): JsonExpression {
  return new JsonExpression({ kind: "string", text: member.name, range: member.nameRange });
}

const BAD_KEY = "Invalid object key expression";

function objectOf(
  members: readonly JsonMember[],
  ctx: EvalContext | undefined,
  diagnostics: Diagnostic[],
): Value {
  const attrs = new Map<string, Value>();
  const ranges = new Map<string, Range>();
  let known = true;
  for (const member of members) {
    const key = nameExpression(member).value(ctx, diagnostics);
    const value = new JsonExpression(member.value).value(ctx, diagnostics);
    const name = keyName(key, member, diagnostics);
    if (name === undefined) continue;
    if (name === null) {
      known = false;
      continue;
    }
    const earlier = ranges.get(name);
    if (earlier !== undefined) {
      const detail = `An attribute named ${quote(name)} was already defined at ${formatRange(earlier)}.`;
      diagnostics.push(errorAt("Duplicate object attribute", detail, member.nameRange));
      continue;
    }
    attrs.set(name, value);
    ranges.set(name, member.nameRange);
  }
  return known ? objectValue(attrs) : unknownDynamic;
}

/** The text of a key; `null` when it isn't known, `undefined` after a complaint. */
function keyName(key: Value, member: JsonMember, diagnostics: Diagnostic[]): string | null | undefined {
  try {
    const text = convert(key, stringType);
    if (text.isNull) {
      diagnostics.push(errorAt(BAD_KEY, "Cannot use null value as an object key.", member.nameRange));
      return undefined;
    }
    return text.isKnown ? text.string : null;
  } catch (error) {
    if (!(error instanceof ConversionError)) throw error;
    const detail = `Cannot use this expression as an object key: ${error.message}.`;
    diagnostics.push(errorAt(BAD_KEY, detail, member.nameRange));
    return undefined;
  }
}
