import { BuildError } from "@kiln/base";
import { fail } from "../problem.ts";

/** The value of a variable; `undefined` when it isn't set. */
export interface Lookup {
  (name: string): string | undefined;
  /** Collects the names that a text takes for blank because they aren't set. */
  readonly unset?: Set<string>;
}

/** A lookup that notes what isn't set. */
export function notingLookup(
  find: (name: string) => string | undefined,
  unset: Set<string> | undefined,
): Lookup {
  return unset === undefined ? find : Object.assign(find, { unset });
}

/** A template that can't be read. */
export class InvalidTemplateError extends Error {
  readonly template: string;

  constructor(template: string) {
    super(`Invalid template: ${JSON.stringify(template)}`);
    this.template = template;
  }
}

const NAME = /[_a-z][_a-z0-9]*/iy;
const MAX_DEPTH = 200;

type Operator = (
  name: string,
  rest: string,
  value: string | undefined,
  expand: (text: string) => string,
) => string;

function required(isMissing: (value: string | undefined) => boolean): Operator {
  return (name, rest, value, expand) => {
    if (!isMissing(value)) return value ?? "";
    const reason = expand(rest);
    throw new BuildError(
      "invalid_argument",
      `required variable ${name} is missing a value${reason === "" ? "" : `: ${reason}`}`,
    );
  };
}

const unset = (value: string | undefined): boolean => value === undefined;
const emptyOrUnset = (value: string | undefined): boolean => value === undefined || value === "";

const SIGN = /:?[-+?]/y;

const OPERATORS: ReadonlyMap<string, Operator> = new Map<string, Operator>([
  [":?", required(emptyOrUnset)],
  ["?", required(unset)],
  [":-", (_name, rest, value, expand) => (emptyOrUnset(value) ? expand(rest) : (value ?? ""))],
  ["-", (_name, rest, value, expand) => (value === undefined ? expand(rest) : value)],
  [":+", (_name, rest, value, expand) => (emptyOrUnset(value) ? (value ?? "") : expand(rest))],
  ["+", (_name, rest, value, expand) => (value === undefined ? "" : expand(rest))],
]);

/** Puts variables into a text: `$NAME`, `${NAME}`, `${NAME:-default}` and the other forms; `$$` is a dollar. */
export function substitute(template: string, lookup: Lookup): string {
  return template.includes("$") ? expandText(template, lookup, 0) : template;
}

function matchAt(pattern: RegExp, text: string, at: number): string {
  pattern.lastIndex = at;
  return pattern.exec(text)?.[0] ?? "";
}

function expandText(template: string, lookup: Lookup, depth: number): string {
  if (depth > MAX_DEPTH) fail("variables are nested too deeply");
  const parts: string[] = [];
  let done = 0;
  for (let at = template.indexOf("$"); at >= 0; at = template.indexOf("$", done)) {
    const { text, end } = expandAt(template, at, (inner) => expandText(inner, lookup, depth + 1), lookup);
    parts.push(template.slice(done, at), text);
    done = end;
  }
  return parts.join("") + template.slice(done);
}

interface Expanded {
  readonly text: string;
  /** Where the text after the variable starts. */
  readonly end: number;
}

type Expand = (text: string) => string;

/** Reads what a dollar starts. One that starts nothing stays. */
function expandAt(template: string, at: number, expand: Expand, lookup: Lookup): Expanded {
  const next = template[at + 1];
  if (next === "$") return { text: "$", end: at + 2 };
  if (next !== "{") {
    const name = matchAt(NAME, template, at + 1);
    return name === ""
      ? { text: "$", end: at + 1 }
      : { text: plain(name, lookup), end: at + 1 + name.length };
  }
  const name = matchAt(NAME, template, at + 2);
  const after = at + 2 + name.length;
  if (name === "") throw new InvalidTemplateError(template);
  if (template[after] === "}") return { text: plain(name, lookup), end: after + 1 };
  const sign = matchAt(SIGN, template, after);
  const line = template.indexOf("\n", after);
  const last = template.lastIndexOf("}", line < 0 ? template.length : line);
  if (sign === "" || last < after + sign.length) throw new InvalidTemplateError(template);
  const length = closingBrace(template.slice(at, last + 1));
  const end = length < 0 ? last + 1 : at + length + 1;
  const operator = OPERATORS.get(sign)!;
  return { text: operator(name, template.slice(after + sign.length, end - 1), lookup(name), expand), end };
}

/** The value of a variable that has no default: blank when it isn't set. */
function plain(name: string, lookup: Lookup): string {
  const value = lookup(name);
  if (value === undefined) lookup.unset?.add(name);
  return value ?? "";
}

function closingBrace(text: string): number {
  let open = 0;
  for (let i = 0; i < text.length; i++) {
    if (text[i] === "}" && --open === 0) return i;
    if (text[i] === "{") {
      open++;
      i++;
    }
  }
  return -1;
}
