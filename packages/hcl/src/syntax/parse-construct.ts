import { unknownDynamic } from "../cty/value.ts";
import { errorAt, type Range, rangeBetween } from "../diagnostics.ts";
import { CallNode } from "./call-node.ts";
import { ForNode, type ObjectItem, ObjectKeyNode, ObjectNode, TupleNode } from "./construct-nodes.ts";
import { LiteralNode, type Node, SyntaxErrorNode } from "./nodes.ts";
import type { TokenReader } from "./reader.ts";
import type { Token } from "./token.ts";

/** A call's name has been read; what follows is `(` or `::`. */
export function parseCall(reader: TokenReader, name: Token): Node {
  let open = reader.read();
  let text = name.text;
  let end = name.range;
  const fail = (summary: string, detail: string, token: Token): Node => {
    const problem = errorAt(summary, detail, token.range, rangeBetween(name.range, token.range));
    reader.diagnostics.push(problem);
    reader.recoverOver("(");
    return new SyntaxErrorNode(unknownDynamic, [problem], rangeBetween(name.range, token.range));
  };
  while (open.type === "::") {
    const part = reader.read();
    if (part.type !== "ident") {
      const detail = "Function scope resolution symbol :: must be followed by a function name in this scope.";
      return fail("Missing function name", detail, part);
    }
    text += `::${part.text}`;
    end = part.range;
    open = reader.read();
  }
  if (open.type !== "(") {
    const detail = "Function selector must be followed by an open parenthesis to begin the function call.";
    return fail("Missing open parenthesis", detail, open);
  }
  const { args, expand, close } = parseArguments(reader, name, open);
  return new CallNode({
    name: text,
    args,
    expand,
    nameRange: rangeBetween(name.range, end),
    open: open.range,
    close: close.range,
  });
}

interface Arguments {
  readonly args: readonly Node[];
  readonly expand: boolean;
  readonly close: Token;
}

function parseArguments(reader: TokenReader, name: Token, open: Token): Arguments {
  const args: Node[] = [];
  reader.pushNewlines(false);
  const done = (close: Token, expand = false): Arguments => {
    reader.popNewlines();
    return { args, expand, close };
  };
  for (;;) {
    if (reader.peek().type === ")") return done(reader.read());
    const arg = reader.expression();
    args.push(arg.node);
    if (arg.failed) return done(reader.recover(")"));
    const separator = reader.read();
    const context = rangeBetween(name.range, separator.range);
    if (separator.type === ")") return done(separator);
    if (separator.type === "...") {
      if (reader.peek().type === ")") return done(reader.read(), true);
      if (!reader.recovery) {
        const detail =
          "An expanded function argument (with ...) must be immediately followed by closing parentheses.";
        reader.complain("Missing closing parenthesis", detail, separator.range, context);
      }
      return done(reader.recover(")"), true);
    }
    if (separator.type === ",") continue;
    if (separator.type === "eof") {
      const detail =
        "There is no closing parenthesis for this function call before the end of the file. This may be caused by incorrect parenthesis nesting elsewhere in this file.";
      reader.complain("Unterminated function call", detail, rangeBetween(name.range, open.range));
    } else {
      const detail = "A comma is required to separate each function argument from the next.";
      reader.complain("Missing argument separator", detail, separator.range, context);
    }
    return done(reader.recover(")"));
  }
}

/** `[…]`, or a `for` expression in brackets. */
export function parseTuple(reader: TokenReader): Node {
  const open = reader.read();
  reader.pushNewlines(false);
  const node = reader.atWord("for") ? parseFor(reader, open) : parseElements(reader, open);
  reader.popNewlines();
  return node;
}

function parseElements(reader: TokenReader, open: Token): Node {
  const elems: Node[] = [];
  const done = (close: Token): Node =>
    new TupleNode(elems, rangeBetween(open.range, close.range), open.range);
  for (;;) {
    if (reader.peek().type === "]") return done(reader.read());
    const elem = reader.expression();
    elems.push(elem.node);
    if (elem.failed) return done(reader.recover("]"));
    const next = reader.peek();
    if (next.type === "]") return done(reader.read());
    if (next.type === ",") {
      reader.read();
      continue;
    }
    if (!reader.recovery) {
      if (next.type === "eof") {
        const detail =
          "There is no corresponding closing bracket before the end of the file. This may be caused by incorrect bracket nesting elsewhere in this file.";
        reader.complain("Unterminated tuple constructor expression", detail, open.range);
      } else {
        const detail = "Expected a comma to mark the beginning of the next item.";
        reader.complain("Missing item separator", detail, next.range, rangeBetween(open.range, next.range));
      }
    }
    return done(reader.recover("]"));
  }
}

/** `{…}`, or a `for` expression in braces. */
export function parseObject(reader: TokenReader): Node {
  const open = reader.read();
  reader.pushNewlines(false);
  const isFor = reader.atWord("for");
  reader.popNewlines();
  if (isFor) return parseFor(reader, open);
  reader.pushNewlines(true);
  const node = parseItems(reader, open);
  reader.popNewlines();
  return node;
}

const UNTERMINATED_OBJECT =
  "There is no corresponding closing brace before the end of the file. This may be caused by incorrect brace nesting elsewhere in this file.";

function parseItems(reader: TokenReader, open: Token): Node {
  const items: ObjectItem[] = [];
  const done = (close: Token): Node =>
    new ObjectNode(items, rangeBetween(open.range, close.range), open.range);
  for (;;) {
    const next = reader.peek();
    if (next.type === "newline") {
      reader.read();
      continue;
    }
    if (next.type === "}") return done(reader.read());
    const key = reader.expression();
    if (key.failed) return done(reader.recover("}"));
    const separator = reader.peek();
    if (separator.type !== "=" && separator.type !== ":") {
      if (!reader.recovery) complainNoValue(reader, separator, open);
      return done(reader.recover("}"));
    }
    reader.read();
    const value = reader.expression();
    const item = { key: new ObjectKeyNode(key.node, next.type === "("), value: value.node };
    if (value.failed) {
      if (value.node instanceof SyntaxErrorNode) items.push(item);
      return done(reader.recover("}"));
    }
    items.push(item);
    const end = reader.peek();
    if (end.type === "}") return done(reader.read());
    if (end.type !== "," && end.type !== "newline") {
      if (!reader.recovery) complainNoEnd(reader, end, open);
      return done(reader.recover("}"));
    }
    reader.read();
  }
}

function complainNoValue(reader: TokenReader, token: Token, open: Token): void {
  const context = rangeBetween(open.range, token.range);
  const separator = "Missing key/value separator";
  const expected = 'Expected an equals sign ("=") to mark the beginning of the attribute value.';
  switch (token.type) {
    case "newline":
    case ",":
      reader.complain(
        "Missing attribute value",
        'Expected an attribute value, introduced by an equals sign ("=").',
        token.range,
        context,
      );
      break;
    case "ident":
      reader.complain(
        separator,
        `${expected} If you intended to given an attribute name containing periods or spaces, write the name in quotes to create a string literal.`,
        token.range,
        context,
      );
      break;
    case "eof":
      reader.complain("Unterminated object constructor expression", UNTERMINATED_OBJECT, open.range);
      break;
    default:
      reader.complain(separator, expected, token.range, context);
  }
}

function complainNoEnd(reader: TokenReader, token: Token, open: Token): void {
  if (token.type === "eof") {
    reader.complain("Unterminated object constructor expression", UNTERMINATED_OBJECT, open.range);
    return;
  }
  const detail = "Expected a newline or comma to mark the beginning of the next attribute.";
  reader.complain("Missing attribute separator", detail, token.range, rangeBetween(open.range, token.range));
}

const INVALID_FOR = "Invalid 'for' expression";

/** The bracket has been read; next is the word `for`. */
function parseFor(reader: TokenReader, open: Token): Node {
  reader.pushNewlines(false);
  const node = parseForBody(reader, open);
  reader.popNewlines();
  return node;
}

function parseForBody(reader: TokenReader, open: Token): Node {
  const closeType = open.type === "{" ? "}" : "]";
  const give = (): Node => {
    const close = reader.recover(closeType);
    return new LiteralNode(unknownDynamic, rangeBetween(open.range, close.range));
  };
  const fail = (detail: string): Node => {
    const { range } = reader.peek();
    if (!reader.recovery) reader.complain(INVALID_FOR, detail, range, rangeBetween(open.range, range));
    return give();
  };
  reader.read();
  if (reader.peek().type !== "ident") return fail("For expression requires variable name after 'for'.");
  let keyName = "";
  let valueName = reader.read().text;
  if (reader.peek().type === ",") {
    reader.read();
    keyName = valueName;
    if (reader.peek().type !== "ident")
      return fail("For expression requires value variable name after comma.");
    valueName = reader.read().text;
  }
  if (!reader.atWord("in"))
    return fail("For expression requires the 'in' keyword after its name declarations.");
  reader.read();
  const collection = reader.expression();
  if (collection.failed) return give();
  if (reader.peek().type !== ":")
    return fail("For expression requires a colon after the collection expression.");
  reader.read();
  let key: Node | undefined;
  let value = reader.expression();
  let failed = value.failed;
  if (reader.peek().type === "=>") {
    reader.read();
    key = value.node;
    value = reader.expression();
    failed ||= value.failed;
  }
  if (failed) return give();
  const ellipsis = reader.peek().type === "..." ? reader.read() : undefined;
  let condition: Node | undefined;
  if (reader.atWord("if")) {
    reader.read();
    const parsed = reader.expression();
    if (parsed.failed) return give();
    condition = parsed.node;
  }
  const close = closeFor(reader, open, closeType);
  const range = rangeBetween(open.range, close.range);
  checkForKind(reader, { makesObject: open.type === "{", key, value: value.node, ellipsis }, range);
  const group = ellipsis !== undefined;
  const parts = { keyName, valueName, collection: collection.node, key, value: value.node, condition, group };
  return new ForNode(parts, range, open.range);
}

function closeFor(reader: TokenReader, open: Token, closeType: "}" | "]"): Token {
  const next = reader.peek();
  if (next.type === closeType) return reader.read();
  if (!reader.recovery) {
    const detail = "Extra characters after the end of the 'for' expression.";
    reader.complain(INVALID_FOR, detail, next.range, rangeBetween(open.range, next.range));
  }
  return reader.recover(closeType);
}

interface ForKind {
  readonly makesObject: boolean;
  readonly key: Node | undefined;
  readonly value: Node;
  readonly ellipsis: Token | undefined;
}

function checkForKind(reader: TokenReader, kind: ForKind, range: Range): void {
  const { makesObject, key, value, ellipsis } = kind;
  if (makesObject) {
    if (key === undefined) {
      reader.complain(INVALID_FOR, "Key expression is required when building an object.", value.range, range);
    }
    return;
  }
  if (key !== undefined) {
    reader.complain(INVALID_FOR, "Key expression is not valid when building a tuple.", key.range, range);
  }
  if (ellipsis !== undefined) {
    const detail = "Grouping ellipsis (...) cannot be used when building a tuple.";
    reader.complain(INVALID_FOR, detail, ellipsis.range, range);
  }
}
