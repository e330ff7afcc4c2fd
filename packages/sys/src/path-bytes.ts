import { isUtf8 } from "node:buffer";

/**
 * A path as text or as bytes. Text stands for bytes as in Python's `surrogateescape`: what isn't UTF-8 is
 * kept as lone surrogates U+DC80…U+DCFF, so that every file name survives.
 */
export type PathLike = string | Uint8Array;

const NON_ASCII = /[^\0-\x7f]/;

/** Text of file-system bytes. */
export function decodePath(bytes: Uint8Array): string {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  if (isUtf8(buffer)) return buffer.toString("utf8");
  let text = "";
  let from = 0;
  while (from < buffer.length) {
    const length = sequenceLength(buffer, from);
    if (length > 0) text += buffer.toString("utf8", from, from + length);
    else text += String.fromCharCode(0xdc00 + (buffer[from] as number));
    from += Math.max(length, 1);
  }
  return text;
}

/** Text of bytes that were read as latin1 (the quickest encoding of `readdir`). */
export function decodeLatin1Path(latin1: string): string {
  return NON_ASCII.test(latin1) ? decodePath(Buffer.from(latin1, "latin1")) : latin1;
}

/** Bytes of a text made by {@link decodePath} (or of any ordinary text), without a trailing NUL. */
export function encodePath(path: PathLike): Buffer {
  if (typeof path !== "string") return Buffer.from(path.buffer, path.byteOffset, path.length);
  if (path.isWellFormed()) return Buffer.from(path, "utf8");
  const parts: Buffer[] = [];
  for (const part of path.split(/([\udc80-\udcff])/u)) {
    const code = part.length === 1 ? part.charCodeAt(0) : 0;
    if (code >= 0xdc80 && code <= 0xdcff) parts.push(Buffer.of(code - 0xdc00));
    else parts.push(Buffer.from(part, "utf8"));
  }
  return Buffer.concat(parts);
}

/** What `node:fs` takes for this path: the text itself, or bytes when it isn't UTF-8. */
export function fsPath(path: string): string | Buffer {
  return path.isWellFormed() ? path : encodePath(path);
}

/** Compares two texts by their bytes, as Go and the kernel do (UTF-16 order differs above U+D7FF). */
export function comparePaths(a: string, b: string): number {
  const length = Math.min(a.length, b.length);
  for (let i = 0; i < length; i++) {
    const x = a.charCodeAt(i);
    const y = b.charCodeAt(i);
    if (x === y) continue;
    if (x < 0xd800 && y < 0xd800) return x - y;
    return Buffer.compare(encodePath(a), encodePath(b));
  }
  return a.length - b.length;
}

/** Length of the valid UTF-8 sequence at `at`, 0 when there is none. */
function sequenceLength(buffer: Buffer, at: number): number {
  const first = buffer[at] as number;
  const length = first < 0x80 ? 1 : first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : first >= 0xc2 ? 2 : 0;
  if (length === 0 || at + length > buffer.length) return 0;
  return isUtf8(buffer.subarray(at, at + length)) ? length : 0;
}
