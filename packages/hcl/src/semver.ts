/** A text that isn't a version or constraint. */
export class SemverError extends Error {}

interface Version {
  readonly numbers: readonly [major: bigint, minor: bigint, patch: bigint];
  readonly pre: string;
}

const VERSION =
  /^v?([0-9]+)(\.[0-9]+)?(\.[0-9]+)?(-([0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*))?(\+([0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*))?$/;
const LOOSE =
  "v?([0-9|x|X|*]+)(\\.[0-9|x|X|*]+)?(\\.[0-9|x|X|*]+)?(-([0-9A-Za-z-]+(\\.[0-9A-Za-z-]+)*))?(\\+([0-9A-Za-z-]+(\\.[0-9A-Za-z-]+)*))?";
const OPERATORS = "=||!=|>|<|>=|=>|<=|=<|~|~>|\\^";
const VALID = new RegExp(
  `^(\\s*(${OPERATORS})\\s*(${LOOSE})\\s*)((?:\\s+|,\\s*)(${OPERATORS})\\s*(${LOOSE})\\s*)*$`,
);
const FIND = new RegExp(`(?:=>|=<|!=|>=|<=|~>|=|>|<|~|\\^|)\\s*(?:${LOOSE})`, "g");
const ONE = new RegExp(`^\\s*(${OPERATORS})\\s*(${LOOSE})\\s*$`);
const RANGE = new RegExp(`\\s*(${LOOSE})\\s+-\\s+(${LOOSE})\\s*`, "g");
const MAX_LENGTH = 1024;

function parseVersion(text: string): Version {
  const match = text.length > MAX_LENGTH ? null : VERSION.exec(text);
  if (match === null) throw new SemverError("invalid semantic version");
  const segment = (part: string | undefined): bigint => BigInt((part ?? "0").replace(".", ""));
  const pre = match[5] ?? "";
  if (pre.split(".").some((part) => /^0\d+$/.test(part)))
    throw new SemverError("version segment starts with 0");
  return { numbers: [segment(match[1]), segment(match[2]), segment(match[3])], pre };
}

function comparePre(a: string, b: string): number {
  if (a === b) return 0;
  if (a === "") return 1;
  if (b === "") return -1;
  const [left, right] = [a.split("."), b.split(".")];
  for (let i = 0; i < Math.max(left.length, right.length); i++) {
    const [x, y] = [left[i], right[i]];
    if (x === y) continue;
    if (x === undefined) return -1;
    if (y === undefined) return 1;
    const [xNumber, yNumber] = [/^\d+$/.test(x), /^\d+$/.test(y)];
    if (xNumber && yNumber) return BigInt(x) < BigInt(y) ? -1 : 1;
    if (xNumber !== yNumber) return xNumber ? -1 : 1;
    return x < y ? -1 : 1;
  }
  return 0;
}

function compare(a: Version, b: Version): number {
  for (let i = 0; i < 3; i++) {
    const [x, y] = [a.numbers[i]!, b.numbers[i]!];
    if (x !== y) return x < y ? -1 : 1;
  }
  return comparePre(a.pre, b.pre);
}

interface Constraint {
  readonly operator: string;
  readonly version: Version;
  /** Which segments are left open (`x` or absent). */
  readonly open: "none" | "patch" | "minor" | "all";
}

function isOpen(segment: string | undefined): boolean {
  return segment === undefined || ["", "x", "X", "*"].includes(segment.replace(".", ""));
}

function parseConstraint(text: string): Constraint {
  const match = ONE.exec(text);
  if (match === null) throw new SemverError(`improper constraint: ${text}`);
  const [operator, major, minor, patch, pre] = [
    match[1] ?? "",
    match[3] ?? "",
    match[4],
    match[5],
    match[6] ?? "",
  ];
  const parse = (version: string): Version => {
    try {
      return parseVersion(version);
    } catch {
      throw new SemverError("constraint parser error");
    }
  };
  if (isOpen(major)) return { operator, version: parse(`0.0.0${pre}`), open: "all" };
  if (isOpen(minor)) return { operator, version: parse(`${major}.0.0${pre}`), open: "minor" };
  if (isOpen(patch)) return { operator, version: parse(`${major}${minor}.0${pre}`), open: "patch" };
  return { operator, version: parse(match[2] ?? ""), open: "none" };
}

/** Whether a version satisfies a constraint such as `>= 1.2, < 2` or `^1 || ~2.3`. */
export function satisfies(version: string, constraint: string): boolean {
  const v = parseVersion(version);
  if (constraint.length > MAX_LENGTH) throw new SemverError("improper constraint: too long");
  const written = constraint.replace(
    RANGE,
    (_all, low: string, ...groups: unknown[]) => `>= ${low}, <= ${String(groups[8])} `,
  );
  let fits = false;
  for (const alternative of written.split("||")) {
    if (!VALID.test(alternative)) throw new SemverError(`improper constraint: ${alternative}`);
    const parts = (alternative.match(FIND) ?? [alternative]).map(parseConstraint);
    const withPre = parts.some((part) => part.version.pre !== "");
    fits ||= parts.every((part) => (v.pre === "" || withPre) && check(v, part));
  }
  return fits;
}

function check(v: Version, { operator, version: c, open }: Constraint): boolean {
  const order = compare(v, c);
  const minorOpen = open === "minor";
  switch (operator) {
    case "":
    case "=":
      return open === "none" ? order === 0 : tilde(v, c, open);
    case "!=":
      return notEqual(v, c, open);
    case ">":
      if (open === "none" || v.numbers[0] !== c.numbers[0])
        return order > 0 && (open === "none" || v.numbers[0] > c.numbers[0]);
      if (minorOpen) return false;
      return open === "patch" ? v.numbers[1] > c.numbers[1] : order > 0;
    case "<":
      return order < 0;
    case ">=":
    case "=>":
      return order >= 0;
    case "<=":
    case "=<":
      if (open === "none") return order <= 0;
      if (v.numbers[0] > c.numbers[0]) return false;
      return !(v.numbers[0] === c.numbers[0] && v.numbers[1] > c.numbers[1] && !minorOpen);
    case "^":
      return caret(v, c, open);
    default:
      return tilde(v, c, open);
  }
}

function tilde(v: Version, c: Version, open: Constraint["open"]): boolean {
  if (compare(v, c) < 0) return false;
  if (c.numbers.every((n) => n === 0n) && open !== "minor" && open !== "patch") return true;
  if (v.numbers[0] !== c.numbers[0]) return false;
  return v.numbers[1] === c.numbers[1] || open === "minor";
}

function notEqual(v: Version, c: Version, open: Constraint["open"]): boolean {
  if (open === "none") return compare(v, c) !== 0;
  if (c.numbers[0] !== v.numbers[0]) return true;
  if (open === "minor") return false;
  if (c.numbers[1] !== v.numbers[1]) return true;
  if (open === "patch") return (v.pre !== "" || c.pre !== "") && comparePre(v.pre, c.pre) !== 0;
  return c.numbers[2] !== v.numbers[2] || compare(v, c) !== 0;
}

function caret(v: Version, c: Version, open: Constraint["open"]): boolean {
  if (compare(v, c) < 0) return false;
  if (c.numbers[0] > 0n || open === "minor") return v.numbers[0] === c.numbers[0];
  if (v.numbers[0] > 0n) return false;
  if (c.numbers[1] > 0n || open === "patch") return v.numbers[1] === c.numbers[1];
  if (v.numbers[1] > 0n) return false;
  return c.numbers[2] === v.numbers[2];
}
