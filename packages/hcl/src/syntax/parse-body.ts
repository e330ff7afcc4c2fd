import type { Attribute } from "../body.ts";
import { formatRange, type Range, rangeBetween } from "../diagnostics.ts";
import { type NativeBlock, NativeBody } from "./native-body.ts";
import type { TokenReader } from "./reader.ts";
import { quotedString } from "./string-literal.ts";
import type { Token } from "./token.ts";

const REQUIRED = "Argument or block definition required";
const REQUIRED_DETAIL = "An argument or block definition is required here.";
const USE_EQUALS = `${REQUIRED_DETAIL} To set an argument, use the equals sign "=" to introduce the argument value.`;

/** Parses attributes and blocks up to `end`, which is eaten. */
export function parseBody(reader: TokenReader, end: "}" | "eof"): NativeBody {
  const attributes = new Map<string, Attribute>();
  const blocks: NativeBlock[] = [];
  const start = reader.previousRange;
  const done = (range: Range): NativeBody =>
    new NativeBody({ attributes, blocks }, rangeBetween(start, range));
  for (;;) {
    const next = reader.peek();
    if (next.type === end) {
      reader.read();
      return done(next.range);
    }
    if (next.type === "newline") reader.read();
    else if (next.type === "ident") parseItem(reader, attributes, blocks);
    else {
      const bad = reader.read();
      if (!reader.recovery) complainItem(reader, bad, { end, start });
      const range = reader.previousRange;
      reader.recover(end);
      return done(range);
    }
  }
}

function complainItem(
  reader: TokenReader,
  bad: Token,
  at: { readonly end: "}" | "eof"; readonly start: Range },
): void {
  if (bad.type === "oQuote") {
    reader.complain("Invalid argument name", "Argument names must not be quoted.", bad.range);
  } else if (bad.type === "eof" && at.end === "}") {
    reader.complain("Unclosed configuration block", UNCLOSED_BLOCK, at.start);
  } else reader.complain(REQUIRED, REQUIRED_DETAIL, bad.range);
}

const UNCLOSED_BLOCK =
  "There is no closing brace for this block before the end of the file. This may be caused by incorrect brace nesting elsewhere in this file.";

function parseItem(reader: TokenReader, attributes: Map<string, Attribute>, blocks: NativeBlock[]): void {
  const ident = reader.read();
  const next = reader.peek().type;
  if (next === "=") {
    const attribute = parseAttribute(reader, ident, false);
    const existing = attributes.get(ident.text);
    if (existing === undefined) attributes.set(ident.text, attribute);
    else {
      const detail = `The argument ${JSON.stringify(ident.text)} was already set at ${formatRange(existing.nameRange)}. Each argument may be set only once.`;
      reader.complain("Attribute redefined", detail, ident.range);
    }
  } else if (next === "oQuote" || next === "{" || next === "ident") {
    blocks.push(reader.nested(() => parseBlock(reader, ident)));
  } else {
    reader.recoverAfterItem();
    reader.complain(REQUIRED, USE_EQUALS, ident.range);
  }
}

function parseAttribute(reader: TokenReader, ident: Token, singleLine: boolean): Attribute {
  reader.read();
  const expr = reader.expression();
  let end = reader.previousRange;
  if (expr.failed) reader.recoverAfterItem();
  else if (!singleLine) {
    const token = reader.peek();
    if (token.type === "newline" || token.type === "eof") reader.read();
    else {
      if (!reader.recovery) {
        const newline = "An argument definition must end with a newline.";
        const comma = token.type === ",";
        reader.complain(
          comma ? "Unexpected comma after argument" : "Missing newline after argument",
          comma ? `Argument definitions must be separated by newlines, not commas. ${newline}` : newline,
          token.range,
          rangeBetween(ident.range, token.range),
        );
      }
      end = reader.previousRange;
      reader.recoverAfterItem();
    }
  }
  return { name: ident.text, expr: expr.node, range: rangeBetween(ident.range, end), nameRange: ident.range };
}

function parseBlock(reader: TokenReader, ident: Token): NativeBlock {
  const labels: string[] = [];
  const labelRanges: Range[] = [];
  for (;;) {
    const token = reader.peek();
    if (token.type === "{") break;
    if (token.type === "oQuote") {
      const label = quotedString(reader);
      labels.push(label.text);
      labelRanges.push(label.range);
    } else if (token.type === "ident") {
      reader.read();
      labels.push(token.text);
      labelRanges.push(token.range);
    } else return brokenBlock(reader, ident, token, { labels, labelRanges });
  }
  const open = reader.read();
  const body = parseBlockBody(reader, ident, open);
  const next = reader.peek();
  if (next.type === "newline" || next.type === "eof") reader.read();
  else {
    if (!reader.recovery) {
      reader.complain(
        "Missing newline after block definition",
        "A block definition must end with a newline.",
        next.range,
        rangeBetween(ident.range, next.range),
      );
    }
    reader.recoverAfterItem();
  }
  const defRange = rangeBetween(ident.range, labelRanges.at(-1) ?? ident.range);
  return {
    type: ident.text,
    labels,
    body,
    defRange,
    typeRange: ident.range,
    labelRanges,
    openRange: open.range,
  };
}

interface Labels {
  readonly labels: readonly string[];
  readonly labelRanges: readonly Range[];
}

function brokenBlock(reader: TokenReader, ident: Token, token: Token, header: Labels): NativeBlock {
  const context = rangeBetween(ident.range, token.range);
  const summary = "Invalid block definition";
  if (token.type === "=") {
    const detail =
      'The equals sign "=" indicates an argument definition, and must not be used when defining a block.';
    reader.complain(summary, detail, token.range, context);
  } else if (token.type === "newline") {
    const detail =
      'A block definition must have block content delimited by "{" and "}", starting on the same line as the block header.';
    reader.complain(summary, detail, token.range, context);
  } else if (!reader.recovery) {
    const detail = 'Either a quoted string block label or an opening brace ("{") is expected here.';
    reader.complain(summary, detail, token.range, context);
  }
  reader.recoverAfterItem();
  const body = new NativeBody({ attributes: new Map(), blocks: [] }, ident.range);
  const { range } = ident;
  return { type: ident.text, ...header, body, defRange: range, typeRange: range, openRange: range };
}

function parseBlockBody(reader: TokenReader, ident: Token, open: Token): NativeBody {
  const first = reader.peek().type;
  if (first === "newline" || first === "eof" || first === "}") return parseBody(reader, "}");
  const body = parseSingleAttribute(reader);
  const next = reader.peek();
  if (next.type === "}") reader.read();
  else {
    complainSingle(reader, next, { ident, open });
    reader.recover("}");
  }
  return (
    body ??
    new NativeBody({ attributes: new Map(), blocks: [] }, rangeBetween(open.range, reader.previousRange))
  );
}

const INVALID_SINGLE = "Invalid single-argument block definition";

function complainSingle(
  reader: TokenReader,
  next: Token,
  header: { readonly ident: Token; readonly open: Token },
): void {
  if (next.type === ",") {
    const detail =
      "Single-line block syntax can include only one argument definition. To define multiple arguments, use the multi-line block syntax with one argument definition per line.";
    reader.complain(INVALID_SINGLE, detail, next.range);
  } else if (next.type === "newline") {
    const detail =
      "An argument definition on the same line as its containing block creates a single-line block definition, which must also be closed on the same line. Place the block's closing brace immediately after the argument definition.";
    reader.complain(INVALID_SINGLE, detail, next.range);
  } else if (reader.recovery) {
    return;
  } else if (next.type === "eof") {
    const { ident, open } = header;
    reader.complain(
      "Unclosed configuration block",
      UNCLOSED_BLOCK,
      open.range,
      rangeBetween(ident.range, open.range),
    );
  } else {
    const detail =
      "A single-line block definition must end with a closing brace immediately after its single argument definition.";
    reader.complain(INVALID_SINGLE, detail, next.range);
  }
}

function parseSingleAttribute(reader: TokenReader): NativeBody | undefined {
  const ident = reader.read();
  const fail = (summary: string, detail: string, range: Range): undefined => {
    reader.recoverAfterItem();
    reader.complain(summary, detail, range);
    return undefined;
  };
  if (ident.type !== "ident") return fail(REQUIRED, REQUIRED_DETAIL, ident.range);
  const next = reader.peek();
  if (next.type === "=") {
    const attribute = parseAttribute(reader, ident, true);
    return new NativeBody({ attributes: new Map([[ident.text, attribute]]), blocks: [] }, attribute.range);
  }
  if (next.type !== "oQuote" && next.type !== "{" && next.type !== "ident") {
    return fail(REQUIRED, USE_EQUALS, ident.range);
  }
  const detail = `A single-line block definition can contain only a single argument. If you meant to define argument ${JSON.stringify(ident.text)}, use an equals sign to assign it a value. To define a nested block, place it on a line of its own within its parent block.`;
  return fail("Argument definition required", detail, rangeBetween(ident.range, next.range));
}
