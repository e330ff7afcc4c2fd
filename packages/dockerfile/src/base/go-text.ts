/** Go's `unicode.IsSpace`. */
export function isSpace(code: number): boolean {
  if (code <= 0x20) return code === 0x20 || (code >= 9 && code <= 13);
  if (code < 0x1680) return code === 0x85 || code === 0xa0;
  return (
    code === 0x1680 ||
    (code >= 0x2000 && code <= 0x200a) ||
    code === 0x2028 ||
    code === 0x2029 ||
    code === 0x202f ||
    code === 0x205f ||
    code === 0x3000
  );
}

/** Go's `strings.TrimSpace`. */
export function trimSpace(text: string): string {
  let end = text.length;
  while (end > 0 && isSpace(text.charCodeAt(end - 1))) end--;
  return trimLeftSpace(text.slice(0, end));
}

/** Go's `strings.TrimLeftFunc(unicode.IsSpace)`. */
export function trimLeftSpace(text: string): string {
  let start = 0;
  while (start < text.length && isSpace(text.charCodeAt(start))) start++;
  return start === 0 ? text : text.slice(start);
}

const ASCII = /^[\x00-\x7f]*$/;

/** Go's `strings.ToLower`: one character for one. */
export function lower(text: string): string {
  if (ASCII.test(text)) return text.toLowerCase();
  return Array.from(text, (c) => Array.from(c.toLowerCase())[0]!).join("");
}

/** Go's `strings.ToUpper`: one character for one; what would become two stays. */
export function upper(text: string): string {
  if (ASCII.test(text)) return text.toUpperCase();
  return Array.from(text, (c) => {
    const mapped = Array.from(c.toUpperCase());
    return mapped.length === 1 ? mapped[0]! : c;
  }).join("");
}

/** Go's `strings.EqualFold`. */
export function equalFold(a: string, b: string): boolean {
  return a === b || lower(upper(a)) === lower(upper(b));
}

/** Go's `strings.Cut`. */
export function cut(text: string, separator: string): [string, string, boolean] {
  const at = text.indexOf(separator);
  return at < 0 ? [text, "", false] : [text.slice(0, at), text.slice(at + separator.length), true];
}

/** Go's `strconv.ParseBool`; undefined for anything else. */
export function parseBool(text: string): boolean | undefined {
  if (/^(?:1|t|T|TRUE|true|True)$/.test(text)) return true;
  return /^(?:0|f|F|FALSE|false|False)$/.test(text) ? false : undefined;
}

/** The instruction parser's white space: as a regular expression's `[\t\v\f\r ]+`, without line feeds. */
export const WHITESPACE = /[\t\v\f\r ]+/;

/** Splits at the first run of {@link WHITESPACE}; the second part is undefined when there is none. */
export function splitFirst(text: string): [string, string | undefined] {
  const match = WHITESPACE.exec(text);
  if (match === null) return [text, undefined];
  return [text.slice(0, match.index), text.slice(match.index + match[0].length)];
}
