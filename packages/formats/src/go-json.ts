/** How {@link goJson} writes. */
export interface GoJsonOptions {
  /** Text of one indentation step, as in `json.MarshalIndent`; compact without. */
  readonly indent?: string;
  /** Text in front of each line but the first, with `indent`. Default "". */
  readonly prefix?: string;
  /** Write `<`, `>` and `&` as `\u003c` …, as Go does by default. */
  readonly escapeHtml?: boolean;
}

/**
 * JSON as Go's encoding/json writes it; digests of many documents depend on its bytes.
 *
 * Objects keep the order of their keys (that of the Go struct: the caller's job) and drop `undefined`; a
 * `Map` is a Go map, written in byte order of its keys. `Uint8Array` becomes base64, `bigint` a plain number.
 * NaN and infinities throw a `TypeError`, as do functions and symbols.
 */
export function goJson(value: unknown, options: GoJsonOptions = {}): string {
  const { indent, prefix = "", escapeHtml = true } = options;
  const newline = indent === undefined ? undefined : `\n${prefix}`;
  return encode(value, { indent: indent ?? "", escapeHtml }, newline);
}

interface Style {
  readonly indent: string;
  readonly escapeHtml: boolean;
}

function encode(value: unknown, style: Style, newline: string | undefined): string {
  switch (typeof value) {
    case "string":
      return quoteJson(value, style.escapeHtml);
    case "boolean":
    case "bigint":
      return String(value);
    case "number":
      if (!Number.isFinite(value)) throw new TypeError(`json: unsupported value: ${value}`);
      // Go and ECMAScript agree on the form of numbers, apart from -0.
      return Object.is(value, -0) ? "-0" : String(value);
    case "object":
      return value === null ? "null" : encodeObject(value, style, newline);
    case "undefined":
      return "null";
    default:
      throw new TypeError(`json: unsupported type: ${typeof value}`);
  }
}

function encodeObject(value: object, style: Style, newline: string | undefined): string {
  if (value instanceof Uint8Array) return `"${base64FromBytes(value)}"`;
  const inner = newline === undefined ? undefined : newline + style.indent;
  if (Array.isArray(value)) {
    return enclose(
      "[]",
      value.map((item) => encode(item, style, inner)),
      newline,
      inner,
    );
  }
  const entries: [string, unknown][] =
    value instanceof Map
      ? [...value].map(([k, v]): [string, unknown] => [String(k), v]).sort(([a], [b]) => compareBytes(a, b))
      : Object.entries(value).filter(([, v]) => v !== undefined);
  const colon = newline === undefined ? ":" : ": ";
  const items = entries.map(([k, v]) => quoteJson(k, style.escapeHtml) + colon + encode(v, style, inner));
  return enclose("{}", items, newline, inner);
}

function enclose(
  pair: "[]" | "{}",
  items: readonly string[],
  newline: string | undefined,
  inner: string | undefined,
): string {
  if (items.length === 0) return pair;
  if (newline === undefined || inner === undefined) return pair[0]! + items.join(",") + pair[1]!;
  return pair[0]! + inner + items.join(`,${inner}`) + newline + pair[1]!;
}

/** One JSON string as Go writes it. Lone surrogates become U+FFFD. */
export function quoteJson(text: string, escapeHtml = true): string {
  const unsafe = escapeHtml ? UNSAFE_HTML : UNSAFE;
  if (!unsafe.test(text)) return `"${text}"`;
  return `"${text.toWellFormed().replace(escapeHtml ? ESCAPE_HTML : ESCAPE, escapeChar)}"`;
}

const UNSAFE = /["\\\u0000-\u001f\u2028\u2029\ud800-\udfff]/;
const UNSAFE_HTML = /["\\<>&\u0000-\u001f\u2028\u2029\ud800-\udfff]/;
const ESCAPE = /["\\\u0000-\u001f\u2028\u2029]/g;
const ESCAPE_HTML = /["\\<>&\u0000-\u001f\u2028\u2029]/g;
const SHORT: ReadonlyMap<string, string> = new Map([
  ['"', '\\"'],
  ["\\", "\\\\"],
  ["\n", "\\n"],
  ["\r", "\\r"],
  ["\t", "\\t"],
  ["\b", "\\b"],
  ["\f", "\\f"],
]);

function escapeChar(c: string): string {
  return SHORT.get(c) ?? `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`;
}

/** Order of Go's strings: by UTF-8 bytes, which is by code point. */
export function compareBytes(a: string, b: string): number {
  const length = Math.min(a.length, b.length);
  for (let i = 0; i < length; i++) {
    const x = a.charCodeAt(i);
    const y = b.charCodeAt(i);
    if (x === y) continue;
    const surrogateX = x >= 0xd800 && x <= 0xdfff;
    const surrogateY = y >= 0xd800 && y <= 0xdfff;
    if (surrogateX !== surrogateY) return surrogateX ? 1 : -1;
    return x - y;
  }
  return a.length - b.length;
}

const BASE64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/** Standard base64 with padding. */
export function base64FromBytes(bytes: Uint8Array): string {
  let out = "";
  for (let i = 0; i < bytes.length; i += 3) {
    const a = bytes[i]!;
    const b = bytes[i + 1];
    const c = bytes[i + 2];
    out += BASE64[a >> 2]! + BASE64[((a & 3) << 4) | ((b ?? 0) >> 4)]!;
    out += b === undefined ? "=" : BASE64[((b & 15) << 2) | ((c ?? 0) >> 6)]!;
    out += c === undefined ? "=" : BASE64[c & 63]!;
  }
  return out;
}

/** Bytes of standard base64, padding optional; undefined when it isn't any. */
export function bytesFromBase64(text: string): Uint8Array | undefined {
  if (!/^[A-Za-z0-9+/]*={0,2}$/.test(text)) return undefined;
  const body = text.replace(/=+$/, "");
  if (body.length % 4 === 1) return undefined;
  const out = new Uint8Array(Math.floor((body.length * 3) / 4));
  let bits = 0;
  let held = 0;
  let at = 0;
  for (let i = 0; i < body.length; i++) {
    bits = ((bits << 6) | BASE64.indexOf(body[i]!)) & 0xffffff;
    held += 6;
    if (held >= 8) {
      held -= 8;
      out[at++] = (bits >> held) & 0xff;
    }
  }
  return out;
}
