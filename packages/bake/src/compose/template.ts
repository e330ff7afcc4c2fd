import { BuildError } from "@kiln/base";
import { fail } from "../problem.ts";

/** The value of a variable; `undefined` when it isn't set. */
export type Lookup = (name: string) => string | undefined;

/** A template that can't be read. */
export class InvalidTemplateError extends Error {
  readonly template: string;

  constructor(template: string) {
    super(`Invalid template: ${JSON.stringify(template)}`);
    this.template = template;
  }
}

const PATTERN = /\$(?:(\$)|([_a-z][_a-z0-9]*)|\{(?:([_a-z][_a-z0-9]*(?::?[-+?].*)?)\}|()))/gi;
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

const OPERATORS: readonly (readonly [sign: string, operator: Operator])[] = [
  [":?", required(emptyOrUnset)],
  ["?", required(unset)],
  [":-", (_name, rest, value, expand) => (emptyOrUnset(value) ? expand(rest) : (value ?? ""))],
  ["-", (_name, rest, value, expand) => (value === undefined ? expand(rest) : value)],
  [":+", (_name, rest, value, expand) => (emptyOrUnset(value) ? (value ?? "") : expand(rest))],
  ["+", (_name, rest, value, expand) => (value === undefined ? "" : expand(rest))],
];

/** Puts variables into a text: `$NAME`, `${NAME}`, `${NAME:-default}` and the other forms; `$$` is a dollar. */
export function substitute(template: string, lookup: Lookup): string {
  return expandText(template, lookup, 0);
}

function expandText(template: string, lookup: Lookup, depth: number): string {
  if (!template.includes("$")) return template;
  if (depth > MAX_DEPTH) fail("variables are nested too deeply");
  return template.replace(PATTERN, (whole, escaped?: string, named?: string, braced?: string) => {
    if (escaped !== undefined) return "$";
    if (named !== undefined) return lookup(named) ?? "";
    if (braced === undefined) throw new InvalidTemplateError(template);
    return expandBraced(whole, lookup, depth);
  });
}

/** The match reaches to the last brace of its line; what follows the first complete one is text again. */
function expandBraced(whole: string, lookup: Lookup, depth: number): string {
  const end = closingBrace(whole);
  const first = end < 0 ? whole : whole.slice(0, end + 1);
  const rest = end < 0 ? "" : whole.slice(end + 1);
  const inner = /^\$\{([_a-z][_a-z0-9]*(?::?[-+?].*)?)\}$/i.exec(first)?.[1];
  if (inner === undefined) throw new InvalidTemplateError(whole);
  const found = OPERATORS.map(([sign, operator]) => ({ sign, operator, at: whole.indexOf(sign) }))
    .filter(({ at }) => at >= 0)
    .sort((a, b) => a.at - b.at)[0];
  if (found === undefined || !inner.includes(found.sign)) {
    return (lookup(inner) ?? "") + expandText(rest, lookup, depth + 1);
  }
  const at = inner.indexOf(found.sign);
  const name = inner.slice(0, at);
  const value = found.operator(name, inner.slice(at + found.sign.length), lookup(name), (text) =>
    expandText(text, lookup, depth + 1),
  );
  return value + expandText(rest, lookup, depth + 1);
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
