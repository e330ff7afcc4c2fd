import { Problem } from "../base/problem.ts";

const MAX_MODE = 0o7777;

/** Reads `--chmod`: octal digits, or chmod's symbols, which stay text. Throws a problem. */
export function parseChmod(text: string): number | string {
  const notOctal = `invalid chmod parameter: '${text}'. it should be octal string and between 0 and 07777`;
  if (/^[0-7]+$/.test(text)) {
    const mode = Number.parseInt(text, 8);
    // Numbers beyond 32 bits are none, and no symbols either.
    if (mode > MAX_MODE) throw new Problem(notOctal);
    return mode;
  }
  if (/^[0-9]/.test(text)) throw new Problem(notOctal);
  if (!isSymbolic(text)) throw new Problem("invalid syntax");
  return text;
}

/** `[ugoa]*([-+=][rwxXstugo]*)+`, separated by commas. */
function isSymbolic(text: string): boolean {
  return /^[ugoa]*(?:[-+=][rwxXstugo]*)+(?:,[ugoa]*(?:[-+=][rwxXstugo]*)+)*$/.test(text);
}
