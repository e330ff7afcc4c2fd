import type { Tree } from "./tree.ts";

const NULLS = new Set(["", "~", "null", "Null", "NULL"]);
const TRUES = new Set(["true", "True", "TRUE"]);
const FALSES = new Set(["false", "False", "FALSE"]);
const SPECIAL_FLOATS = new Map([
  [".nan", Number.NaN],
  [".NaN", Number.NaN],
  [".NAN", Number.NaN],
  ...["", "+", "-"].flatMap((sign) =>
    ["inf", "Inf", "INF"].map((name) => [`${sign}.${name}`, sign === "-" ? -Infinity : Infinity] as const),
  ),
]);
const FLOAT = /^[-+]?(?:\.\d+|\d+(?:\.\d*)?)(?:[eE][-+]?\d+)?$/;
const TIMESTAMP =
  /^(\d{4})-(\d{1,2})-(\d{1,2})(?:(?:[Tt]|[ \t]+)(\d{1,2}):(\d{2}):(\d{2})(\.\d*)?[ \t]*(Z|[-+]\d{1,2}(?::?\d{2})?)?)?$/;

function wholeNumber(text: string): bigint | undefined {
  const match = /^([-+]?)(?:0[xX]([\dA-Fa-f]+)|0[bB]([01]+)|0[oO]?([0-7]+)|(0|[1-9]\d*))$/.exec(text);
  if (match === null) return undefined;
  const [, sign = "", hex, binary, octal, decimal] = match;
  const digits =
    hex !== undefined
      ? `0x${hex}`
      : binary !== undefined
        ? `0b${binary}`
        : octal !== undefined
          ? `0o${octal}`
          : (decimal ?? "0");
  const value = sign === "-" ? -BigInt(digits) : BigInt(digits);
  return value >= -(2n ** 63n) && value < 2n ** 64n ? value : undefined;
}

function timestamp(text: string): string | undefined {
  const match = TIMESTAMP.exec(text);
  if (match === null) return undefined;
  const [, year = "", month = "", day = "", hour = "0", minute = "0", second = "0", fraction = "", zone] =
    match;
  const two = (part: string): string => part.padStart(2, "0");
  const fractionText = fraction.replace(/0+$/, "").replace(/^\.$/, "");
  const shown = `${year}-${two(month)}-${two(day)} ${two(hour)}:${two(minute)}:${two(second)}${fractionText}`;
  if (zone === undefined || zone === "Z") return `${shown} +0000 UTC`;
  const offset = zone.replace(":", "");
  const full = offset.length <= 3 ? `${offset[0]}${two(offset.slice(1))}00` : offset;
  return `${shown} ${full} ${full}`;
}

/**
 * What an unquoted scalar stands for, as Go's YAML libraries decide: `yes` and `on` are text, `017` is octal,
 * and a date becomes the text that Go prints for it.
 */
export function plainScalar(text: string): Tree {
  if (NULLS.has(text)) return null;
  if (TRUES.has(text)) return true;
  if (FALSES.has(text)) return false;
  const special = SPECIAL_FLOATS.get(text);
  if (special !== undefined) return special;
  if (!/^[-+.\d]/.test(text)) return text;
  const plain = text.replaceAll("_", "");
  const date = timestamp(text);
  if (date !== undefined) return date;
  const whole = wholeNumber(plain);
  if (whole !== undefined) return whole;
  return FLOAT.test(plain) ? Number(plain) : text;
}
