import { BuildError } from "@kiln/base";

/**
 * Go's `path.Match` (and `filepath.Match` on Unix): `*` and `?` stop at `/`, `[a-z]` and `[^a-z]` are
 * classes, `\` quotes. The whole name must match. Takes time in proportion to pattern × name at worst.
 *
 * Throws `invalid_argument` (`syntax error in pattern`) for a malformed pattern, also when the name differs
 * before the flaw.
 */
export function matchPath(pattern: string, name: string): boolean {
  const items = parseGlob(pattern);
  const chars = Array.from(name, (c) => c.codePointAt(0)!);
  let item = 0;
  let at = 0;
  let starItem = -1;
  let starAt = 0;
  while (at < chars.length) {
    const current = items[item];
    const c = chars[at]!;
    if (current === "star") {
      starItem = item++;
      starAt = at;
    } else if (current !== undefined && matchesItem(current, c)) {
      item++;
      at++;
    } else if (starItem >= 0 && chars[starAt] !== SLASH) {
      item = starItem + 1;
      at = ++starAt;
    } else return false;
  }
  while (items[item] === "star") item++;
  return item === items.length;
}

const SLASH = 47;

type Item =
  | "star"
  | "any"
  | number
  | { readonly negated: boolean; readonly ranges: readonly (readonly [number, number])[] };

function matchesItem(item: Exclude<Item, "star">, c: number): boolean {
  if (item === "any") return c !== SLASH;
  if (typeof item === "number") return item === c;
  return item.ranges.some(([lo, hi]) => lo <= c && c <= hi) !== item.negated;
}

function parseGlob(pattern: string): Item[] {
  const chars = Array.from(pattern, (c) => c.codePointAt(0)!);
  const items: Item[] = [];
  let at = 0;
  const literal = (): number => {
    let c = chars[at++];
    if (c === undefined || c === 45 || c === 93) throw badPattern();
    if (c === 92) c = chars[at++];
    if (c === undefined || at >= chars.length) throw badPattern();
    return c;
  };
  while (at < chars.length) {
    const c = chars[at++]!;
    if (c === 42) {
      if (items.at(-1) !== "star") items.push("star");
    } else if (c === 63) items.push("any");
    else if (c === 92) {
      const quoted = chars[at++];
      if (quoted === undefined) throw badPattern();
      items.push(quoted);
    } else if (c === 91) {
      const negated = chars[at] === 94;
      if (negated) at++;
      const ranges: [number, number][] = [];
      while (!(chars[at] === 93 && ranges.length > 0)) {
        const lo = literal();
        let hi = lo;
        if (chars[at] === 45) {
          at++;
          hi = literal();
        }
        ranges.push([lo, hi]);
      }
      at++;
      items.push({ negated, ranges });
    } else items.push(c);
  }
  return items;
}

/** The error of every malformed pattern; Go's `filepath.ErrBadPattern`. */
export function badPattern(cause?: unknown): BuildError {
  return new BuildError("invalid_argument", "syntax error in pattern", { cause });
}
