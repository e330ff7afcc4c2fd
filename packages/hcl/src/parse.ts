import type { Body, HclFile } from "./body.ts";
import { unknownDynamic } from "./cty/value.ts";
import { type Diagnostic, errorAt, INITIAL_POS, type Pos } from "./diagnostics.ts";
import type { Traversal, TraversalStep } from "./expression.ts";
import { NativeBody } from "./syntax/native-body.ts";
import { LiteralNode, type Node, TraversalNode } from "./syntax/nodes.ts";
import { parseBody } from "./syntax/parse-body.ts";
import { parseExpression as parseNode } from "./syntax/parse-expression.ts";
import { parseTemplate as parseTemplateBody, templateNode } from "./syntax/parse-template.ts";
import { NestingError, TokenReader } from "./syntax/reader.ts";
import { scanTokens } from "./syntax/scanner.ts";
import { checkInvalidTokens } from "./syntax/token.ts";

/** A parsed thing and the problems found; the thing is usable as far as the problems allow. */
export interface Parsed<T> {
  readonly value: T;
  readonly diagnostics: readonly Diagnostic[];
}

const decoder = new TextDecoder("utf-8", { ignoreBOM: true });

/** The text of a file; a byte order mark stays, wrong bytes become U+FFFD. */
export function decodeSource(data: Uint8Array | string): string {
  return typeof data === "string" ? data : decoder.decode(data);
}

/** Parses a file of the native syntax. */
export function parseHcl(source: Uint8Array | string, filename: string): Parsed<HclFile> {
  const text = decodeSource(source);
  const tokens = scanTokens(text, filename, INITIAL_POS, "normal");
  const reader = new TokenReader(tokens, parseNode);
  const body = guarded<Body>(reader, filename, () => parseBody(reader, "eof")) ?? emptyBody(filename);
  return {
    value: { filename, text, body },
    diagnostics: [...checkInvalidTokens(tokens), ...reader.diagnostics],
  };
}

function emptyBody(filename: string): Body {
  return new NativeBody(
    { attributes: new Map(), blocks: [] },
    { filename, start: INITIAL_POS, end: INITIAL_POS },
  );
}

/** Runs a parser; nesting that is too deep becomes a diagnostic. */
function guarded<T>(reader: TokenReader, filename: string, parse: () => T): T | undefined {
  try {
    return parse();
  } catch (error) {
    if (!(error instanceof NestingError)) throw error;
    const { range } = reader.peek();
    reader.diagnostics.unshift(
      errorAt("Nesting too deep", "This is nested too deeply to be understood.", { ...range, filename }),
    );
    return undefined;
  }
}

/** Parses one expression; anything after it is an error. */
export function parseExpression(text: string, filename: string, start: Pos = INITIAL_POS): Parsed<Node> {
  const tokens = scanTokens(text, filename, start, "normal");
  const reader = new TokenReader(tokens, parseNode);
  reader.pushNewlines(false);
  const node = guarded(reader, filename, () => parseNode(reader));
  const next = reader.peek();
  if (node !== undefined && next.type !== "eof" && !reader.recovery) {
    reader.complain(
      "Extra characters after expression",
      "An expression was successfully parsed, but extra characters were found after it.",
      next.range,
    );
  }
  const value = node ?? new LiteralNode(unknownDynamic, tokens[0]!.range);
  return { value, diagnostics: [...checkInvalidTokens(tokens), ...reader.diagnostics] };
}

/** Parses a template that stands without quotes, such as a JSON string's content. */
export function parseTemplate(text: string, filename: string, start: Pos = INITIAL_POS): Parsed<Node> {
  const tokens = scanTokens(text, filename, start, "template");
  const reader = new TokenReader(tokens, parseNode);
  const body = guarded(reader, filename, () => parseTemplateBody(reader, "eof", false));
  const value =
    body === undefined ? new LiteralNode(unknownDynamic, tokens[0]!.range) : templateNode(body, body.range);
  return { value, diagnostics: [...checkInvalidTokens(tokens), ...reader.diagnostics] };
}

/** Parses a reference without splats; `undefined` when the text isn't one. */
export function parseTraversal(
  text: string,
  filename: string,
  start: Pos = INITIAL_POS,
): Traversal | undefined {
  const { value, diagnostics } = parseExpression(text, filename, start);
  if (diagnostics.length > 0 || !(value instanceof TraversalNode)) return isKeyword(value, diagnostics);
  return value.traversal;
}

function isKeyword(node: Node, diagnostics: readonly Diagnostic[]): readonly TraversalStep[] | undefined {
  return diagnostics.length === 0 && node instanceof LiteralNode ? node.asTraversal() : undefined;
}
