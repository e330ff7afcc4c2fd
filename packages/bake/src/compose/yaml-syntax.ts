import type { LineCounter, YAMLParseError } from "yaml";

/** What is wrong with a file, as Go's YAML library says it. Places are those of its scanner. */
export function syntaxProblem(text: string, lines: LineCounter, error: YAMLParseError): string {
  const [start] = error.pos;
  const place = (offset: number): string => {
    const { line, col } = lines.linePos(offset);
    return col > 1 ? `line ${line}, column ${col}` : `line ${line}`;
  };
  const token = `while scanning for the next token at ${place(start)}: found character that cannot start any token`;
  const quoted = (offset: number): string => `while scanning a quoted scalar at ${place(offset)}`;
  switch (error.code) {
    case "TAB_AS_INDENT":
    case "BAD_SCALAR_START":
      return token;
    case "BLOCK_AS_IMPLICIT_KEY":
    case "MULTILINE_IMPLICIT_KEY": {
      const colon = start + Math.max(text.slice(start).search(/:(?:\s|$)/), 0);
      return `${place(colon)}: mapping values are not allowed in this context`;
    }
    case "BAD_DQ_ESCAPE":
      return `${quoted(text.lastIndexOf('"', start - 1))}: ${place(start)}: found unknown escape character`;
    default:
  }
  if (error.message.startsWith("Missing closing")) {
    const sign = error.message.includes('"quote') ? '"' : "'";
    const end = `line ${text.split("\n").length}`;
    return `${quoted(text.lastIndexOf(sign, start - 1))}: ${end}: found unexpected end of stream`;
  }
  if (error.message.startsWith("Unexpected block-seq-ind")) {
    return `${place(start)}: block sequence entries are not allowed in this context`;
  }
  return parserProblem(text, lines, error);
}

/** A place as Go's parser tells it: it counts lines from zero, and doesn't know the first. */
function parserPlace({ line, col }: { readonly line: number; readonly col: number }): string {
  if (line <= 1) return "<unknown position>";
  return col > 1 ? `line ${line - 1}, column ${col}` : `line ${line - 1}`;
}

/** How far back to look for the bracket that a mistake is in. */
const MAX_CONTEXT = 10_000;

function parserProblem(text: string, lines: LineCounter, error: YAMLParseError): string {
  const [start] = error.pos;
  const from = Math.max(0, start - MAX_CONTEXT);
  const bracket = openBracket(text.slice(from, start));
  const open = bracket < 0 ? -1 : from + bracket;
  if (open >= 0) {
    const [kind, end] = text[open] === "[" ? ["sequence", "]"] : ["mapping", "}"];
    const places = `${parserPlace(lines.linePos(open))}: ${parserPlace(lines.linePos(start))}`;
    return `while parsing a flow ${kind} at ${places}: did not find expected ',' or '${end}'`;
  }
  const token = start + text.slice(start).search(/[^ ]/);
  const at = lines.linePos(Math.max(token, start));
  const { kind, line, col, wanted } = enclosingBlock(text.split("\n").slice(0, at.line - 1), at.col - 1);
  return `while parsing a block ${kind} at ${parserPlace({ line, col })}: ${parserPlace(at)}: did not find expected ${wanted}`;
}

/** The last bracket that isn't closed, -1 for none. Brackets within quotes don't count. */
function openBracket(text: string): number {
  const open: number[] = [];
  const bare = text.replaceAll(/"(?:[^"\\]|\\.)*"|'[^']*'|(?:^|\s)#.*$/gm, (part) =>
    part.replaceAll(/[^\n]/g, "_"),
  );
  for (const { 0: char, index } of bare.matchAll(/(?<=[\s:,[{-])[[{]|[\]}]/g)) {
    if (char === "[" || char === "{") open.push(index);
    else open.pop();
  }
  return open.at(-1) ?? -1;
}

interface EnclosingBlock {
  readonly kind: "mapping" | "collection";
  readonly line: number;
  readonly col: number;
  readonly wanted: "key" | "'-' indicator";
}

/** The block that a wrongly indented token would have to belong to. */
function enclosingBlock(above: readonly string[], column: number): EnclosingBlock {
  const indents = above.map((line) => (line.trim() === "" ? Number.POSITIVE_INFINITY : line.search(/\S/)));
  const isItem = (i: number): boolean => /^ *- /.test(above[i] ?? "");
  const nearest = indents.findLastIndex((indent, i) => indent < column || (indent === column && isItem(i)));
  if (nearest < 0) return { kind: "mapping", line: 1, col: 1, wanted: "key" };
  const indent = indents[nearest]!;
  let first = nearest;
  for (let i = nearest; i >= 0 && indents[i]! >= indent; i--) if (indents[i] === indent) first = i;
  const collection = indent === column && isItem(nearest);
  return {
    kind: collection ? "collection" : "mapping",
    line: first + 1,
    col: indent + 1,
    wanted: collection ? "'-' indicator" : "key",
  };
}
