import { createContext, Script } from "node:vm";
import { BuildError, errorMessage } from "@kiln/base";

/** A user's regular expression may run this long on one text. */
const REGEX_TIMEOUT_MS = 200;

/** Stars in one wildcard; each multiplies the ways to match. */
const MAX_STARS = 16;

const MATCH = new Script("new RegExp(pattern, 'u').exec(text)");

/**
 * Matches a regular expression of a client. It runs in a context of its own under a time limit, as a
 * hostile one can take for ever.
 *
 * @returns the groups, or undefined.
 */
export function matchRegex(pattern: string, text: string): readonly (string | undefined)[] | undefined {
  const context = createContext(Object.assign(Object.create(null), { pattern, text }));
  try {
    const match: RegExpExecArray | null = MATCH.runInContext(context, { timeout: REGEX_TIMEOUT_MS });
    return match === null ? undefined : [...match];
  } catch (error) {
    throw new BuildError(
      "invalid_argument",
      `invalid regex ${JSON.stringify(pattern)}: ${errorMessage(error)}`,
    );
  }
}

/**
 * Matches a text against a pattern in which `*` stands for anything, greedily from the left.
 *
 * @returns the whole text and what each star stood for, or undefined.
 */
export function matchWildcard(pattern: string, text: string): readonly string[] | undefined {
  if (pattern.includes("**")) {
    throw new BuildError(
      "invalid_argument",
      `failed to translate wildcard ${JSON.stringify(pattern)} to regexp: invalid wildcard: "**"`,
    );
  }
  const parts = pattern.split("*");
  if (parts.length - 1 > MAX_STARS) {
    throw new BuildError("invalid_argument", `wildcard ${JSON.stringify(pattern)} has too many stars`);
  }
  const first = parts[0] as string;
  if (!text.startsWith(first)) return undefined;
  if (parts.length === 1) return text === first ? [text] : undefined;
  const starts = placeFromRight(parts, text);
  if (starts === undefined || (starts[0] as number) < first.length) return undefined;
  const captures = starts.map((start, at) => {
    const from = at === 0 ? first.length : (starts[at - 1] as number) + (parts[at] as string).length;
    return text.slice(from, start);
  });
  return [text, ...captures];
}

/**
 * Where the parts behind the stars begin when each stands as far right as it can, which is what leaves the
 * most to the stars on the left; undefined when they don't fit.
 */
function placeFromRight(parts: readonly string[], text: string): number[] | undefined {
  const last = parts.at(-1) as string;
  if (!text.endsWith(last)) return undefined;
  const starts = [text.length - last.length];
  for (const part of parts.slice(1, -1).reverse()) {
    const latest = (starts[0] as number) - part.length;
    const start = latest < 0 ? -1 : text.lastIndexOf(part, latest);
    if (start < 0) return undefined;
    starts.unshift(start);
  }
  return starts;
}

/** Go's `Regexp.Expand` for numbered groups: `$1`, `${1}`, `$$`; a group that isn't there is empty. */
export function expandTemplate(template: string, groups: readonly (string | undefined)[]): string {
  return template.replace(/\$(?:\$|\{(\w+)\}|(\w+))/g, (whole, braced?: string, bare?: string) => {
    if (whole === "$$") return "$";
    const name = braced ?? bare ?? "";
    return /^\d{1,4}$/.test(name) ? (groups[Number(name)] ?? "") : "";
  });
}
