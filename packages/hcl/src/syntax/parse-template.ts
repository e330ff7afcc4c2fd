import { graphemes } from "../cty/text.ts";
import { stringValue, unknownDynamic } from "../cty/value.ts";
import { didYouMean, formatRange, type Range, rangeBetween } from "../diagnostics.ts";
import { ForNode } from "./construct-nodes.ts";
import { LiteralNode, type Node } from "./nodes.ts";
import { ConditionalNode } from "./operator-nodes.ts";
import type { TokenReader } from "./reader.ts";
import { literalText } from "./string-literal.ts";
import { TemplateJoinNode, TemplateNode, TemplateWrapNode } from "./template-nodes.ts";
import type { Token, TokenType } from "./token.ts";

type Part =
  | { readonly kind: "literal"; text: string; range: Range }
  | { readonly kind: "interp"; readonly expr: Node; readonly range: Range }
  | { readonly kind: "if"; readonly condition: Node; readonly range: Range }
  | {
      readonly kind: "for";
      readonly names: readonly [key: string, value: string];
      readonly collection: Node;
      readonly range: Range;
    }
  | { readonly kind: "else" | "endif" | "endfor" | "end"; readonly range: Range };

/** What comes between a template's markers. */
export interface TemplateBody {
  readonly parts: readonly Node[];
  /** Nothing but one `${…}`: its value is kept as it is. */
  readonly passthrough: boolean;
  readonly range: Range;
}

/** The node for a template that spans `range`. */
export function templateNode(body: TemplateBody, range: Range): Node {
  const [first] = body.parts;
  return body.passthrough && first !== undefined
    ? new TemplateWrapNode(first, range)
    : new TemplateNode(body.parts, range);
}

/** Reads a template up to the token that closes it; `flush` takes away the indentation of `<<-`. */
export function parseTemplate(reader: TokenReader, end: TokenType, flush: boolean): TemplateBody {
  const { parts, range } = readParts(reader, end);
  if (flush) removeIndentation(parts);
  const melded = meld(parts);
  const nodes = new DirectiveParser(melded, reader).root();
  return { parts: nodes, passthrough: melded.length === 2 && melded[0]?.kind === "interp", range };
}

function trimStart(text: string): string {
  return text.replace(/^[\s\u0085]+/u, "");
}

function readParts(reader: TokenReader, end: TokenType): { readonly parts: Part[]; readonly range: Range } {
  const parts: Part[] = [];
  const start = reader.peek().range;
  let trimNext = false;
  let endRange = start;
  for (;;) {
    const token = reader.read();
    if (token.type === end) {
      endRange = token.range;
      break;
    }
    const trim = trimNext;
    trimNext = false;
    if (token.type === "stringLit" || token.type === "quotedLit") {
      const text = literalText(token, reader);
      parts.push({ kind: "literal", text: trim ? trimStart(text) : text, range: token.range });
    } else if (token.type === "interp" || token.type === "control") {
      if (token.text.length === 3) trimPrevious(parts);
      reader.pushNewlines(false);
      const part =
        token.type === "interp" ? readInterpolation(reader, token, start, end) : readDirective(reader, token);
      if (part !== undefined) {
        parts.push(part);
        trimNext = closeSequence(reader, part, { start, end, open: token });
      }
      reader.popNewlines();
    } else {
      if (!reader.recovery) {
        const context = rangeBetween(start, token.range);
        reader.complain(
          "Unterminated template string",
          "No closing marker was found for the string.",
          token.range,
          context,
        );
      }
      endRange = reader.recover(end).range;
      break;
    }
  }
  if (parts.length === 0) {
    parts.push({ kind: "literal", text: "", range: { ...start, start: start.end, end: start.end } });
  }
  parts.push({ kind: "end", range: endRange });
  return { parts, range: rangeBetween(start, endRange) };
}

function trimPrevious(parts: readonly Part[]): void {
  const last = parts.at(-1);
  if (last?.kind === "literal") last.text = last.text.replace(/[\s\u0085]+$/u, "");
}

function readInterpolation(reader: TokenReader, open: Token, start: Range, end: TokenType): Part {
  const expr = reader.expression().node;
  const close = reader.peek();
  if (close.type !== "seqEnd" && !reader.recovery) complainUnclosed(reader, close, start, end);
  return { kind: "interp", expr, range: rangeBetween(open.range, close.range) };
}

const EXTRA = "Extra characters after interpolation expression";
const UNCLOSED = "Unclosed template interpolation sequence";

function complainUnclosed(reader: TokenReader, close: Token, start: Range, end: TokenType): void {
  const context = rangeBetween(start, close.range);
  if (close.type === "eof") {
    reader.complain(
      UNCLOSED,
      "There is no closing brace for this interpolation sequence before the end of the file. This might be caused by incorrect nesting inside the given expression.",
      start,
    );
  } else if (close.type === ":") {
    reader.complain(
      EXTRA,
      'Template interpolation doesn\'t expect a colon at this location. Did you intend this to be a literal sequence to be processed as part of another language? If so, you can escape it by starting with "$${" instead of just "${".',
      close.range,
      context,
    );
  } else if ((close.type === "cQuote" || close.type === "oQuote") && end === "cQuote") {
    reader.complain(
      UNCLOSED,
      "There is no closing brace for this interpolation sequence before the end of the quoted template. This might be caused by incorrect nesting inside the given expression.",
      start,
    );
  } else {
    reader.complain(
      EXTRA,
      'Expected a closing brace to end the interpolation expression, but found extra characters.\n\nThis can happen when you include interpolation syntax for another language, such as shell scripting, but forget to escape the interpolation start token. If this is an embedded sequence for another language, escape it by starting with "$${" instead of just "${".',
      close.range,
      context,
    );
  }
}

/** Eats the closing brace; true when it trims what follows. */
function closeSequence(
  reader: TokenReader,
  part: Part,
  at: { readonly start: Range; readonly end: TokenType; readonly open: Token },
): boolean {
  const close = reader.peek();
  if (close.type === "seqEnd") {
    reader.read();
    return close.text === "~}";
  }
  if (part.kind !== "interp" && !reader.recovery) {
    reader.complain(
      `Extra characters in ${part.kind} marker`,
      "Expected a closing brace to end the sequence, but found extra characters.",
      close.range,
      rangeBetween(at.start, close.range),
    );
  }
  reader.recover("seqEnd");
  return false;
}

function readDirective(reader: TokenReader, open: Token): Part | undefined {
  const word = reader.peek();
  const context = rangeBetween(open.range, word.range);
  const skip = (summary: string, detail: string): undefined => {
    if (!reader.recovery) reader.complain(summary, detail, word.range, context);
    reader.recover("seqEnd");
    return undefined;
  };
  if (word.type !== "ident") {
    return skip(
      "Invalid template directive",
      'A template directive keyword ("if", "for", etc) is expected at the beginning of a %{ sequence.',
    );
  }
  reader.read();
  switch (word.text) {
    case "if": {
      const condition = reader.expression().node;
      return { kind: "if", condition, range: rangeBetween(open.range, reader.peek().range) };
    }
    case "else":
    case "endif":
    case "endfor":
      return { kind: word.text, range: rangeBetween(open.range, reader.peek().range) };
    case "for":
      return readFor(reader, open);
    default: {
      const hint = didYouMean(word.text, ["if", "for", "else", "endif", "endfor"]);
      return skip(
        "Invalid template control keyword",
        `${JSON.stringify(word.text)} is not a valid template control keyword.${hint}`,
      );
    }
  }
}

function readFor(reader: TokenReader, open: Token): Part | undefined {
  const skip = (detail: string): undefined => {
    if (!reader.recovery) reader.complain("Invalid 'for' directive", detail, reader.peek().range);
    reader.recover("seqEnd");
    return undefined;
  };
  if (reader.peek().type !== "ident") return skip("For directive requires variable name after 'for'.");
  let key = "";
  let value = reader.read().text;
  if (reader.peek().type === ",") {
    reader.read();
    key = value;
    if (reader.peek().type !== "ident")
      return skip("For directive requires value variable name after comma.");
    value = reader.read().text;
  }
  if (!reader.atWord("in")) return skip("For directive requires 'in' keyword after names.");
  reader.read();
  const collection = reader.expression().node;
  return {
    kind: "for",
    names: [key, value],
    collection,
    range: rangeBetween(open.range, reader.peek().range),
  };
}

function removeIndentation(parts: readonly Part[]): void {
  let least = Number.POSITIVE_INFINITY;
  let lineStart = true;
  const adjust: Extract<Part, { kind: "literal" }>[] = [];
  for (const part of parts) {
    if (lineStart) {
      lineStart = false;
      let spaces = 0;
      if (part.kind === "literal") {
        const trimmed = trimStart(part.text);
        if (trimmed === "" && part.text.endsWith("\n")) spaces = Number.POSITIVE_INFINITY;
        else {
          spaces = graphemes(part.text.slice(0, part.text.length - trimmed.length)).length;
          adjust.push(part);
        }
      } else if (part.kind === "end") break;
      least = Math.min(least, spaces);
    }
    if (part.kind === "literal" && part.text.endsWith("\n")) lineStart = true;
  }
  if (least === Number.POSITIVE_INFINITY) return;
  for (const part of adjust) part.text = graphemes(part.text).slice(least).join("");
}

function meld(parts: readonly Part[]): Part[] {
  const out: Part[] = [];
  for (const part of parts) {
    const last = out.at(-1);
    if (last?.kind === "literal" && part.kind === "literal") {
      last.text += part.text;
      last.range = rangeBetween(last.range, part.range);
    } else out.push(part);
  }
  return out;
}

const UNBALANCED = "The control directives within this template are unbalanced.";

/** Builds nodes from a template's parts, matching directives with their ends. */
class DirectiveParser {
  readonly #parts: readonly Part[];
  readonly #reader: TokenReader;
  #next = 0;

  constructor(parts: readonly Part[], reader: TokenReader) {
    this.#parts = parts;
    this.#reader = reader;
  }

  root(): Node[] {
    const nodes: Node[] = [];
    while (this.#peek().kind !== "end") nodes.push(this.#node());
    return nodes;
  }

  #peek(): Part {
    return this.#parts[this.#next]!;
  }

  #failed(summary: string, detail: string, range: Range): Node {
    this.#reader.complain(summary, detail, range);
    return new LiteralNode(unknownDynamic, range);
  }

  #node(): Node {
    const part = this.#peek();
    if (part.kind !== "end") this.#next++;
    switch (part.kind) {
      case "literal":
        return new LiteralNode(stringValue(part.text), part.range);
      case "interp":
        return part.expr;
      case "if":
        return this.#reader.nested(() => this.#if(part.condition, part.range));
      case "for":
        return this.#reader.nested(() => this.#for(part));
      case "end":
        return this.#failed("Unexpected end of template", UNBALANCED, part.range);
      default:
        return this.#failed(`Unexpected ${part.kind} directive`, UNBALANCED, part.range);
    }
  }

  #if(condition: Node, open: Range): Node {
    const branches: [Node[], Node[]] = [[], []];
    let current = branches[0];
    for (;;) {
      const part = this.#peek();
      if (part.kind === "end") {
        const detail = `The if directive at ${formatRange(open)} is missing its corresponding endif directive.`;
        return this.#failed("Unexpected end of template", detail, part.range);
      }
      if (part.kind === "else" && current === branches[0]) {
        this.#next++;
        current = branches[1];
      } else if (part.kind === "endif") {
        this.#next++;
        const whenTrue = wrap(branches[0], open.end, open);
        const whenFalse = wrap(branches[1], part.range.start, part.range);
        return new ConditionalNode(condition, [whenTrue, whenFalse], rangeBetween(open, part.range));
      } else if (part.kind === "else" || part.kind === "endfor") {
        this.#next++;
        const detail =
          part.kind === "else"
            ? `Already in the else clause for the if started at ${formatRange(open)}.`
            : `Expecting an endif directive for the if started at ${formatRange(open)}.`;
        return this.#failed(`Unexpected ${part.kind} directive`, detail, part.range);
      } else current.push(this.#node());
    }
  }

  #for(open: Extract<Part, { kind: "for" }>): Node {
    const content: Node[] = [];
    for (;;) {
      const part = this.#peek();
      if (part.kind === "end") {
        const detail = `The for directive at ${formatRange(open.range)} is missing its corresponding endfor directive.`;
        return this.#failed("Unexpected end of template", detail, part.range);
      }
      if (part.kind === "endfor") {
        this.#next++;
        const [keyName, valueName] = open.names;
        const value = wrap(content, open.range.end, open.range);
        const parts = { keyName, valueName, collection: open.collection, value, group: false };
        return new TemplateJoinNode(new ForNode(parts, rangeBetween(open.range, part.range), open.range));
      }
      if (part.kind === "else" || part.kind === "endif") {
        this.#next++;
        const detail =
          part.kind === "else"
            ? "An else clause is not expected for a for directive."
            : `Expecting an endfor directive corresponding to the for directive at ${formatRange(open.range)}.`;
        return this.#failed(`Unexpected ${part.kind} directive`, detail, part.range);
      }
      content.push(this.#node());
    }
  }
}

/** Several nodes as one template; an empty text at `at` when there are none. */
function wrap(nodes: readonly Node[], at: Range["start"], near: Range): Node {
  const [first] = nodes;
  const parts =
    first === undefined ? [new LiteralNode(stringValue(""), { ...near, start: at, end: at })] : nodes;
  return new TemplateNode(parts, rangeBetween(parts[0]!.range, parts.at(-1)!.range));
}
