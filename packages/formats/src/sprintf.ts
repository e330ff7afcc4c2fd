import { goJson } from "./go-json.ts";
import { quoteGo } from "./quote.ts";

/** Go's `%.<precision>g`: at most that many digits, exponent form for very large and small values. */
export function formatG(value: number, precision = -1): string {
  if (!Number.isFinite(value)) return Number.isNaN(value) ? "NaN" : value > 0 ? "+Inf" : "-Inf";
  if (value === 0) return "0";
  const digits = precision === 0 ? 1 : precision;
  const [mantissa, exponent] = (
    digits < 0 ? value.toExponential() : exponential(value, Math.min(digits, 60) - 1)
  ).split("e") as [string, string];
  const power = Number(exponent);
  const trimmed = mantissa.includes(".") ? mantissa.replace(/\.?0+$/, "") : mantissa;
  if (power < -4 || power >= (digits < 0 ? 21 : digits)) return `${trimmed}e${exponentText(power)}`;
  const all = trimmed.replace("-", "").replace(".", "");
  const sign = value < 0 ? "-" : "";
  if (power < 0) return `${sign}0.${"0".repeat(-power - 1)}${all}`;
  const whole = all.slice(0, power + 1).padEnd(power + 1, "0");
  const rest = all.slice(power + 1);
  return `${sign}${whole}${rest === "" ? "" : `.${rest}`}`;
}

/** Digits enough to see whether a double lies exactly between two shorter numbers. */
const TIE_DIGITS = 30;

/** `toExponential`, but halves go to the even digit, as in Go. */
function exponential(value: number, digits: number): string {
  const text = value.toExponential(digits);
  const [long, power] = value.toExponential(Math.min(100, digits + TIE_DIGITS)).split("e") as [
    string,
    string,
  ];
  const point = digits === 0 ? long.indexOf(".") : long.indexOf(".") + 1 + digits;
  const [kept, rest] = [long.slice(0, point), long.slice(point).replace(".", "")];
  return isTie(kept, rest) ? `${kept}e${power}` : text;
}

/** `toFixed`, but halves go to the even digit, as in Go. */
function fixed(value: number, digits: number): string {
  const text = value.toFixed(digits);
  if (!text.includes("e")) {
    const long = value.toFixed(Math.min(100, digits + TIE_DIGITS));
    const point = digits === 0 ? long.indexOf(".") : long.indexOf(".") + 1 + digits;
    const [kept, rest] = [long.slice(0, point), long.slice(point).replace(".", "")];
    if (isTie(kept, rest)) return kept;
  }
  return text;
}

/** True when `rest` is exactly one half and `kept` ends in an even digit, so that rounding cuts. */
function isTie(kept: string, rest: string): boolean {
  return /^50*$/.test(rest) && "02468".includes(kept.at(-1) ?? "");
}

function exponentText(power: number): string {
  return `${power < 0 ? "-" : "+"}${String(Math.abs(power)).padStart(2, "0")}`;
}

/** A value as Go's `%v` (and a template) prints it: lists in brackets, maps as `map[k:v]`. */
export function formatValue(value: unknown): string {
  if (value === undefined) return "<no value>";
  if (value === null) return "<nil>";
  if (typeof value === "number") return Number.isInteger(value) ? String(value) : formatG(value);
  if (value instanceof Error) return value.message;
  if (value instanceof Date) return value.toISOString();
  if (Array.isArray(value) || value instanceof Uint8Array)
    return `[${Array.from(value, formatValue).join(" ")}]`;
  if (value instanceof Map) {
    const keys = [...value.keys()].map(String).sort();
    return `map[${keys.map((key) => `${key}:${formatValue(value.get(key))}`).join(" ")}]`;
  }
  if (typeof value === "object") {
    const own = Object.prototype.toString !== value.toString && typeof value.toString === "function";
    if (own) return String(value);
    return `{${Object.values(value).map(formatValue).join(" ")}}`;
  }
  return String(value);
}

const VERB = /%([-+# 0]*)(\*|\d+)?(?:\.(\*|\d+)?)?([a-zA-Z%])|%/g;
const MAX_WIDTH = 10_000;

/**
 * Go's `fmt.Sprintf` for `%v %s %q %d %x %X %o %b %c %t %f %e %g %T %%` with flags, width and precision. A
 * missing or wrong operand gives Go's `%!d(MISSING)` or `%!d(string=x)`.
 */
export function sprintf(format: string, ...args: readonly unknown[]): string {
  let next = 0;
  const out = format.replace(VERB, (whole: string, ...groups: (string | undefined)[]) => {
    const [flags = "", width, precision, verb] = groups;
    if (verb === undefined) return "%!(NOVERB)";
    if (verb === "%") return "%";
    const wide = width === "*" ? Number(args[next++]) : Number(width ?? 0);
    const hasPrecision = whole.includes(".");
    const exact = precision === "*" ? Number(args[next++]) : Number(precision ?? 0);
    if (next >= args.length) return `%!${verb}(MISSING)`;
    const text = formatVerb(verb, args[next++], { flags, precision: hasPrecision ? exact : undefined });
    return pad(text, flags, Math.min(wide, MAX_WIDTH), verb);
  });
  if (next >= args.length) return out;
  const extra = args.slice(next).map((arg) => `${typeName(arg)}=${formatValue(arg)}`);
  return `${out}%!(EXTRA ${extra.join(", ")})`;
}

interface Spec {
  readonly flags: string;
  readonly precision: number | undefined;
}

function pad(text: string, flags: string, width: number, verb: string): string {
  const missing = width - Array.from(text).length;
  if (missing <= 0) return text;
  if (flags.includes("-")) return text + " ".repeat(missing);
  if (!flags.includes("0") || "svqT".includes(verb)) return " ".repeat(missing) + text;
  const sign = /^[+-]/.exec(text)?.[0] ?? "";
  return sign + "0".repeat(missing) + text.slice(sign.length);
}

function formatVerb(verb: string, arg: unknown, spec: Spec): string {
  switch (verb) {
    case "v":
      return spec.flags.includes("#") ? goJson(arg) : formatValue(arg);
    case "s": {
      if (typeof arg === "number" || typeof arg === "boolean" || typeof arg === "bigint")
        return wrong(verb, arg);
      const text = formatValue(arg);
      return spec.precision === undefined ? text : Array.from(text).slice(0, spec.precision).join("");
    }
    case "q":
      if (Array.isArray(arg)) return `[${arg.map((item) => quoteGo(formatValue(item))).join(" ")}]`;
      return quoteGo(formatValue(arg));
    case "t":
      return typeof arg === "boolean" ? String(arg) : wrong(verb, arg);
    case "T":
      return typeName(arg);
    case "c":
      return typeof arg === "number" && Number.isInteger(arg) && arg >= 0 && arg <= 0x10ffff
        ? String.fromCodePoint(arg)
        : wrong(verb, arg);
    case "x":
    case "X":
      if (typeof arg === "string") {
        const hex = Array.from(new TextEncoder().encode(arg), (b) => b.toString(16).padStart(2, "0")).join(
          "",
        );
        return verb === "X" ? hex.toUpperCase() : hex;
      }
      return integer(verb, arg, spec.flags);
    case "d":
    case "o":
    case "b":
      return integer(verb, arg, spec.flags);
    case "f":
    case "F":
    case "e":
    case "g":
      return float(verb, arg, spec);
    default:
      return wrong(verb, arg);
  }
}

function integer(verb: string, arg: unknown, flags: string): string {
  if (typeof arg !== "bigint" && !(typeof arg === "number" && Number.isInteger(arg))) return wrong(verb, arg);
  const radix = verb === "d" ? 10 : verb === "o" ? 8 : verb === "b" ? 2 : 16;
  const text = arg.toString(radix);
  const signed = flags.includes("+") && !text.startsWith("-") ? `+${text}` : text;
  return verb === "X" ? signed.toUpperCase() : signed;
}

function float(verb: string, arg: unknown, spec: Spec): string {
  if (typeof arg !== "number") return wrong(verb, arg);
  const sign = spec.flags.includes("+") && arg >= 0 ? "+" : "";
  if (verb === "g") return sign + formatG(arg, spec.precision ?? -1);
  const digits = Math.min(spec.precision ?? 6, 60);
  if (verb !== "e") return sign + fixed(arg, digits);
  const [mantissa, power] = exponential(arg, digits).split("e") as [string, string];
  return `${sign}${mantissa}e${exponentText(Number(power))}`;
}

function wrong(verb: string, arg: unknown): string {
  return `%!${verb}(${typeName(arg)}=${formatValue(arg)})`;
}

/** Go's name for the type of a value, as far as it can be told. */
export function typeName(value: unknown): string {
  if (value === null || value === undefined) return "<nil>";
  if (typeof value === "number") return Number.isInteger(value) ? "int" : "float64";
  if (typeof value === "bigint") return "int64";
  if (typeof value === "boolean") return "bool";
  if (typeof value === "string") return "string";
  if (Array.isArray(value)) return "[]interface {}";
  if (value instanceof Map) return "map[string]interface {}";
  const name = typeof value === "object" ? value.constructor?.name : undefined;
  return name === undefined || name === "Object" ? "struct {}" : name;
}
