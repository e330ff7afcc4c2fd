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
  const captures = placeParts({ parts, text, dead: new Set() }, 1, first.length);
  return captures === undefined ? undefined : [text, ...captures];
}

interface Placing {
  readonly parts: readonly string[];
  readonly text: string;
  /** Places known to fail. */
  readonly dead: Set<string>;
}

/** What the stars from number `at` on stand for, each as long as can be. */
function placeParts(placing: Placing, at: number, from: number): string[] | undefined {
  const { parts, text, dead } = placing;
  const part = parts[at] as string;
  if (at === parts.length - 1) {
    const start = text.length - part.length;
    return start >= from && text.endsWith(part) ? [text.slice(from, start)] : undefined;
  }
  const key = `${at}:${from}`;
  if (dead.has(key)) return undefined;
  let start = text.lastIndexOf(part);
  while (start >= from) {
    const rest = placeParts(placing, at + 1, start + part.length);
    if (rest !== undefined) return [text.slice(from, start), ...rest];
    start = start === 0 ? -1 : text.lastIndexOf(part, start - 1);
  }
  dead.add(key);
  return undefined;
}

/** Go's `Regexp.Expand` for numbered groups: `$1`, `${1}`, `$$`; a group that isn't there is empty. */
export function expandTemplate(template: string, groups: readonly (string | undefined)[]): string {
  return template.replace(/\$(?:\$|\{(\w+)\}|(\w+))/g, (whole, braced?: string, bare?: string) => {
    if (whole === "$$") return "$";
    const name = braced ?? bare ?? "";
    return /^\d{1,4}$/.test(name) ? (groups[Number(name)] ?? "") : "";
  });
}
