import { Num } from "../cty/number.ts";
import { numberType } from "../cty/type.ts";
import {
  boolValue,
  nullDynamic,
  numberValue,
  unknownDynamic,
  unknownValue,
  type Value,
} from "../cty/value.ts";
import { rangeBetween } from "../diagnostics.ts";
import type { TraversalStep } from "../expression.ts";
import { SplatItemNode, SplatNode } from "./construct-nodes.ts";
import {
  addStep,
  IndexNode,
  LiteralNode,
  type Node,
  ParenthesesNode,
  RelativeTraversalNode,
  SyntaxErrorNode,
  TraversalNode,
} from "./nodes.ts";
import { BinaryNode, ConditionalNode, OPERATIONS, type Operation, UnaryNode } from "./operator-nodes.ts";
import { parseCall, parseObject, parseTuple } from "./parse-construct.ts";
import { parseTemplate, templateNode } from "./parse-template.ts";
import { oppositeBracket, type TokenReader } from "./reader.ts";
import { TemplateNode } from "./template-nodes.ts";
import type { Token, TokenType } from "./token.ts";

/** Binary operators, loosest first. */
const LEVELS: readonly ReadonlyMap<TokenType, Operation>[] = [
  new Map([["||", OPERATIONS.or]]),
  new Map([["&&", OPERATIONS.and]]),
  new Map([
    ["==", OPERATIONS.equal],
    ["!=", OPERATIONS.notEqual],
  ]),
  new Map([
    [">", OPERATIONS.greater],
    [">=", OPERATIONS.greaterOrEqual],
    ["<", OPERATIONS.less],
    ["<=", OPERATIONS.lessOrEqual],
  ]),
  new Map([
    ["+", OPERATIONS.add],
    ["-", OPERATIONS.subtract],
  ]),
  new Map([
    ["*", OPERATIONS.multiply],
    ["/", OPERATIONS.divide],
    ["%", OPERATIONS.modulo],
  ]),
];
const LEVEL_OF = new Map<TokenType, number>(
  LEVELS.flatMap((level, i) => [...level.keys()].map((type) => [type, i] as const)),
);

/** Parses an expression of any kind. */
export function parseExpression(reader: TokenReader): Node {
  const start = reader.peek().range;
  const before = reader.diagnostics.length;
  const condition = parseBinary(reader, 0);
  if (reader.recovery && reader.diagnostics.length > before) return condition;
  if (reader.peek().type !== "?") return condition;
  reader.read();
  const whenTrue = reader.expression();
  if (whenTrue.failed) return condition;
  const colon = reader.peek();
  if (colon.type !== ":") {
    reader.complain(
      "Missing false expression in conditional",
      "The conditional operator (...?...:...) requires a false expression, delimited by a colon.",
      colon.range,
      rangeBetween(start, colon.range),
    );
    return condition;
  }
  reader.read();
  const whenFalse = reader.expression();
  if (whenFalse.failed) return condition;
  return new ConditionalNode(
    condition,
    [whenTrue.node, whenFalse.node],
    rangeBetween(start, whenFalse.node.range),
  );
}

/** Operators of `level` and tighter ones, all left-associative. */
function parseBinary(reader: TokenReader, level: number): Node {
  const before = reader.diagnostics.length;
  const derailed = (): boolean => reader.recovery && reader.diagnostics.length > before;
  let left = parseWithTraversals(reader);
  if (derailed()) return left;
  for (;;) {
    const { type } = reader.peek();
    const found = LEVEL_OF.get(type);
    if (found === undefined || found < level) return left;
    reader.read();
    const right = parseBinary(reader, found + 1);
    if (derailed()) return left;
    left = new BinaryNode(left, LEVELS[found]!.get(type)!, right);
  }
}

function parseWithTraversals(reader: TokenReader): Node {
  return parseTraversals(reader, parseTerm(reader));
}

/** Steps `.a`, `.0`, `.*`, `[k]` and `[*]` after an expression. */
function parseTraversals(reader: TokenReader, from: Node): Node {
  let node = from;
  for (;;) {
    const { type } = reader.peek();
    if (type === ".") node = parseDot(reader, node, from);
    else if (type === "[") node = parseBracket(reader, node, from);
    else return node;
  }
}

function parseDot(reader: TokenReader, node: Node, from: Node): Node {
  const dot = reader.read();
  const next = reader.peek();
  switch (next.type) {
    case "ident":
      reader.read();
      return addStep(node, { kind: "attr", name: next.text, range: rangeBetween(dot.range, next.range) });
    case "number":
      return addStep(node, legacyIndex(reader, dot, ""));
    case "*":
      return parseAttributeSplat(reader, node, { dot, from });
    default: {
      const before = reader.diagnostics.length;
      reader.complain("Invalid attribute name", "An attribute name is required after a dot.", next.range);
      reader.recovery = true;
      const problems = reader.diagnostics.slice(before);
      return new SyntaxErrorNode(unknownDynamic, problems, rangeBetween(from.range, dot.range));
    }
  }
}

/** The step for `.0`; `.0.1` is one number for the scanner and refused. */
function legacyIndex(reader: TokenReader, dot: Token, splat: string): TraversalStep {
  const token = reader.read();
  const range = rangeBetween(dot.range, token.range);
  const point = token.text.indexOf(".");
  if (point < 0) return { kind: "index", key: numberLiteral(reader, token), range };
  const keys = `[${token.text.slice(0, point)}][${token.text.slice(point + 1)}]`;
  const detail = `When using the legacy index syntax, chaining two indexes together is not permitted. Use the proper index syntax${splat} instead, like ${keys}.`;
  reader.complain("Invalid legacy index syntax", detail, token.range);
  return { kind: "index", key: unknownDynamic, range };
}

function parseAttributeSplat(
  reader: TokenReader,
  node: Node,
  at: { readonly dot: Token; readonly from: Node },
): Node {
  const star = reader.read();
  const marker = rangeBetween(at.dot.range, star.range);
  const item = new SplatItemNode(marker);
  const steps: TraversalStep[] = [];
  const first = reader.peek().range;
  let last = star.range;
  while (reader.peek().type === ".") {
    const dot = reader.read();
    const next = reader.peek();
    if (next.type === "number") steps.push(legacyIndex(reader, dot, " with a full splat expression [*]"));
    else if (next.type === "ident") {
      reader.read();
      steps.push({ kind: "attr", name: next.text, range: rangeBetween(dot.range, next.range) });
    } else {
      if (!reader.recovery) {
        if (next.type === "*") {
          const detail =
            "A splat expression (*) cannot be used inside another attribute-only splat expression.";
          reader.complain("Nested splat expression not allowed", detail, next.range);
        } else
          reader.complain("Invalid attribute name", "An attribute name is required after a dot.", star.range);
      }
      reader.recovery = true;
      return node;
    }
    last = next.range;
  }
  const each = steps.length === 0 ? item : new RelativeTraversalNode(item, steps, rangeBetween(first, last));
  return new SplatNode({ source: node, each, item }, rangeBetween(at.from.range, last), marker);
}

function parseBracket(reader: TokenReader, node: Node, from: Node): Node {
  const open = reader.read();
  if (reader.peek().type === "*") {
    reader.read();
    let close = reader.read();
    if (close.type !== "]" && !reader.recovery) {
      const detail =
        'The star for a full splat operator must be immediately followed by a closing bracket ("]").';
      reader.complain("Missing close bracket on splat index", detail, close.range);
      close = reader.recover("]");
    }
    const marker = rangeBetween(open.range, close.range);
    const item = new SplatItemNode(marker);
    const each = reader.nested(() => parseTraversals(reader, item));
    return new SplatNode({ source: node, each, item }, rangeBetween(from.range, each.range), marker);
  }
  reader.pushNewlines(false);
  const key = reader.expression();
  let close: Token;
  if (key.failed) close = reader.recover("]");
  else {
    close = reader.read();
    if (close.type !== "]" && !reader.recovery) {
      reader.complain(
        "Missing close bracket on index",
        'The index operator must end with a closing bracket ("]").',
        close.range,
      );
      close = reader.recover("]");
    }
  }
  reader.popNewlines();
  const brackets = rangeBetween(open.range, close.range);
  const constant =
    key.node instanceof LiteralNode || (key.node instanceof TemplateNode && key.node.isLiteral);
  if (constant) return addStep(node, { kind: "index", key: key.node.value(undefined, []), range: brackets });
  return new IndexNode(
    { collection: node, key: key.node },
    rangeBetween(from.range, brackets),
    open.range,
    brackets,
  );
}

function numberLiteral(reader: TokenReader, token: Token): Value {
  const parsed = Num.parse(token.text);
  if (parsed !== undefined) return numberValue(parsed);
  reader.complain(
    "Invalid number literal",
    "Failed to recognize the value of this number literal.",
    token.range,
  );
  return unknownValue(numberType);
}

function parseTerm(reader: TokenReader): Node {
  const start = reader.peek();
  switch (start.type) {
    case "(":
      return parseParentheses(reader);
    case "number":
      reader.read();
      return new LiteralNode(numberLiteral(reader, start), start.range);
    case "ident":
      return parseWord(reader);
    case "oQuote":
    case "oHeredoc": {
      reader.read();
      const body = parseTemplate(reader, oppositeBracket(start.type)!, start.text.startsWith("<<-"));
      return templateNode(body, rangeBetween(start.range, reader.previousRange));
    }
    case "-":
    case "!": {
      reader.read();
      const operand = reader.nested(() => parseWithTraversals(reader));
      return new UnaryNode(start.type, operand, start.range);
    }
    case "[":
      return parseTuple(reader);
    case "{":
      return parseObject(reader);
    default:
      if (!reader.recovery) {
        if (start.type === "eof") {
          const detail = "Expected the start of an expression, but found the end of the file.";
          reader.complain("Missing expression", detail, start.range);
        } else {
          const detail = "Expected the start of an expression, but found an invalid expression token.";
          reader.complain("Invalid expression", detail, start.range);
        }
      }
      reader.recovery = true;
      return new LiteralNode(unknownDynamic, start.range);
  }
}

function parseParentheses(reader: TokenReader): Node {
  const open = reader.read();
  reader.pushNewlines(false);
  const before = reader.diagnostics.length;
  const { node } = reader.expression();
  if (reader.diagnostics.length > before) {
    reader.recover(")");
    reader.popNewlines();
    return node;
  }
  const close = reader.peek();
  if (close.type !== ")") {
    reader.complain(
      "Unbalanced parentheses",
      "Expected a closing parenthesis to terminate the expression.",
      close.range,
      rangeBetween(open.range, close.range),
    );
    reader.recovery = true;
  }
  reader.read();
  reader.popNewlines();
  return new ParenthesesNode(node, rangeBetween(open.range, close.range));
}

function parseWord(reader: TokenReader): Node {
  const token = reader.read();
  const next = reader.peek().type;
  if (next === "(" || next === "::") return parseCall(reader, token);
  switch (token.text) {
    case "true":
    case "false":
      return new LiteralNode(boolValue(token.text === "true"), token.range);
    case "null":
      return new LiteralNode(nullDynamic, token.range);
    default:
      return new TraversalNode([{ kind: "root", name: token.text, range: token.range }], token.range);
  }
}
