const strict = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
const encoder = new TextEncoder();
/** Bytes that aren't UTF-8 are kept as lone surrogates U+DC80 to U+DCFF. */
const ESCAPE = 0xdc00;

/**
 * Text of bytes. Bytes that aren't valid UTF-8 become lone surrogates, one each, so that
 * {@link bytesFromText} gives the same bytes again.
 */
export function textFromBytes(bytes: Uint8Array): string {
  try {
    return strict.decode(bytes);
  } catch {
    return decodeEscaped(bytes);
  }
}

function decodeEscaped(bytes: Uint8Array): string {
  const parts: string[] = [];
  for (let i = 0; i < bytes.length; ) {
    const size = sequenceSize(bytes, i);
    if (size === 0) parts.push(String.fromCharCode(ESCAPE + bytes[i]!));
    else parts.push(strict.decode(bytes.subarray(i, i + size)));
    i += size === 0 ? 1 : size;
  }
  return parts.join("");
}

/** Length of the valid sequence (or run of ASCII) at `i`; 0 when there is none. */
function sequenceSize(bytes: Uint8Array, i: number): number {
  const first = bytes[i]!;
  if (first < 0x80) {
    let end = i + 1;
    while (end < bytes.length && bytes[end]! < 0x80) end++;
    return end - i;
  }
  const size = first >= 0xf0 && first <= 0xf4 ? 4 : first >= 0xe0 ? 3 : 2;
  if (first < 0xc2 || first > 0xf4 || i + size > bytes.length) return 0;
  for (let k = 1; k < size; k++) if ((bytes[i + k]! & 0xc0) !== 0x80) return 0;
  const second = bytes[i + 1]!;
  if ((first === 0xe0 && second < 0xa0) || (first === 0xed && second > 0x9f)) return 0;
  if ((first === 0xf0 && second < 0x90) || (first === 0xf4 && second > 0x8f)) return 0;
  return size;
}

/** The bytes that {@link textFromBytes} made the text from. */
export function bytesFromText(text: string): Uint8Array {
  if (text.isWellFormed()) return encoder.encode(text);
  const parts: Uint8Array[] = [];
  let at = 0;
  for (const { 0: lone, index } of text.matchAll(/\p{Surrogate}/gu)) {
    parts.push(encoder.encode(text.slice(at, index)));
    const code = lone.charCodeAt(0);
    const isByte = code >= 0xdc80 && code <= 0xdcff;
    parts.push(isByte ? Uint8Array.of(code - ESCAPE) : encoder.encode(lone));
    at = index + 1;
  }
  parts.push(encoder.encode(text.slice(at)));
  const out = new Uint8Array(parts.reduce((size, part) => size + part.length, 0));
  let filled = 0;
  for (const part of parts) {
    out.set(part, filled);
    filled += part.length;
  }
  return out;
}

/** Number of bytes in UTF-8. */
export function byteLength(text: string): number {
  let size = text.length;
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    if (code < 0x80) continue;
    if (code >= 0xdc80 && code <= 0xdcff && !isHigh(text.charCodeAt(i - 1))) continue;
    // A pair of surrogates counts two units and takes four bytes.
    size += code < 0x800 || (code >= 0xd800 && code <= 0xdfff) ? 1 : 2;
  }
  return size;
}

function isHigh(code: number): boolean {
  return code >= 0xd800 && code <= 0xdbff;
}

/** One character per byte (Latin-1), for the places where the language works on bytes. */
export function latinFromText(text: string): string {
  if (/^[\x00-\x7f]*$/.test(text)) return text;
  let out = "";
  for (const byte of bytesFromText(text)) out += String.fromCharCode(byte);
  return out;
}

/** The reverse of {@link latinFromText}. */
export function textFromLatin(latin: string): string {
  if (/^[\x00-\x7f]*$/.test(latin)) return latin;
  return textFromBytes(Uint8Array.from(latin, (c) => c.charCodeAt(0)));
}
