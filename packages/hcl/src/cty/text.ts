/** Compares as Go does: by UTF-8 bytes, which is by code points. */
export function compareStrings(a: string, b: string): number {
  if (a === b) return 0;
  const length = Math.min(a.length, b.length);
  for (let i = 0; i < length; i++) {
    let x = a.charCodeAt(i);
    let y = b.charCodeAt(i);
    if (x === y) continue;
    if (x >= 0xd800 && y >= 0xd800) {
      x = x >= 0xe000 ? x - 0x800 : x + 0x2000;
      y = y >= 0xe000 ? y - 0x800 : y + 0x2000;
    }
    return x < y ? -1 : 1;
  }
  return a.length < b.length ? -1 : 1;
}

/** The keys of a map in Go's sorted order. */
export function sortedKeys(map: ReadonlyMap<string, unknown>): string[] {
  return [...map.keys()].sort(compareStrings);
}

const ESCAPES = new Map([
  [7, "\\a"],
  [8, "\\b"],
  [9, "\\t"],
  [10, "\\n"],
  [11, "\\v"],
  [12, "\\f"],
  [13, "\\r"],
  [34, '\\"'],
  [92, "\\\\"],
]);

/** Quotes as Go's `%q` does for a string. */
export function quote(text: string): string {
  let out = '"';
  for (const char of text) {
    const code = char.codePointAt(0) ?? 0;
    const short = ESCAPES.get(code);
    if (short !== undefined) out += short;
    else if (code < 32 || code === 127) out += `\\x${code.toString(16).padStart(2, "0")}`;
    else if (code >= 128 && !isPrintable(char)) {
      out +=
        code > 0xffff
          ? `\\U${code.toString(16).padStart(8, "0")}`
          : `\\u${code.toString(16).padStart(4, "0")}`;
    } else out += char;
  }
  return `${out}"`;
}

/** Quotes as Go's `%q` does for one character. */
export function quoteChar(char: string): string {
  if (char === "'") return "'\\''";
  if (char === '"') return "'\"'";
  return `'${quote(char).slice(1, -1)}'`;
}

function isPrintable(char: string): boolean {
  return char === " " || /^[\p{L}\p{M}\p{N}\p{P}\p{S}]$/u.test(char);
}

/** One string as Go's `encoding/json` writes it, with `<`, `>` and `&` escaped. */
export function jsonString(text: string): string {
  return JSON.stringify(text.toWellFormed()).replace(/[<>&\u2028\u2029\u007f]/g, (char) =>
    char === "\u007f" ? char : `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}

const segmenter = new Intl.Segmenter("und", { granularity: "grapheme" });

/** True when every character stands alone and columns are offsets. */
export function isPlainAscii(text: string): boolean {
  return /^[\x00-\x0c\x0e-\x7f]*$/.test(text);
}

/** The text's grapheme clusters. */
export function graphemes(text: string): string[] {
  if (isPlainAscii(text)) return text.split("");
  const out: string[] = [];
  for (const { segment } of segmenter.segment(text)) out.push(segment);
  return out;
}

const encoder = new TextEncoder();

/** Length of the text in UTF-8. */
export function utf8Length(text: string): number {
  if (isPlainAscii(text)) return text.length;
  return encoder.encode(text).length;
}
