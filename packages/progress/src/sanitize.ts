/**
 * Makes foreign text harmless for a terminal. What a step prints, and every name that comes from a daemon or a
 * Dockerfile, may hold sequences that move the cursor, set the title or write the clipboard; only colours
 * (`ESC [ … m`) and tabs pass.
 */

/** Longest parameter list of a colour sequence; real ones have at most a dozen characters. */
const MAX_SGR_LENGTH = 64;

type State = "text" | "escape" | "csi" | "string" | "string-escape" | "intermediate" | "return";

/**
 * Cleans a stream of text that comes in pieces, split anywhere. A line end closes every open sequence, so
 * that an unterminated one can't hide what follows. A lone carriage return becomes a line end.
 */
export class LogSanitizer {
  #state: State = "text";
  #parameters = "";

  /** The next piece, cleaned. What remains open at its end is held back. */
  push(text: string): string {
    if (this.#state === "text" && isPlain(text)) return text;
    let out = "";
    for (const char of text) out += this.#next(char);
    return out;
  }

  /** What was held back at the end of the stream. */
  end(): string {
    const held = this.#state === "return" ? "\n" : "";
    this.#state = "text";
    return held;
  }

  #next(char: string): string {
    if (this.#state === "return") {
      if (char === "\r") return "";
      this.#state = "text";
      if (char === "\n") return "\n";
      return `\n${this.#next(char)}`;
    }
    if (char === "\n") {
      this.#state = "text";
      return "\n";
    }
    if (char === "\r" && this.#state === "text") {
      this.#state = "return";
      return "";
    }
    return this.#inLine(char);
  }

  #inLine(char: string): string {
    const code = char.codePointAt(0) as number;
    switch (this.#state) {
      case "text":
      case "return":
        return this.#inText(char, code);
      case "escape":
        this.#afterEscape(char);
        return "";
      case "csi":
        return this.#inCsi(char, code);
      case "string":
        if (char === "\x1b") this.#state = "string-escape";
        else if (char === "\x07" || char === "\x9c") this.#state = "text";
        return "";
      case "string-escape":
        this.#state = char === "\\" ? "text" : "string";
        return "";
      case "intermediate":
        if (code < 0x20 || code > 0x2f) this.#state = "text";
        return "";
    }
  }

  #inText(char: string, code: number): string {
    if (char === "\x1b") {
      this.#state = "escape";
      return "";
    }
    if (char === "\x9b") {
      this.#state = "csi";
      this.#parameters = "";
      return "";
    }
    if (code === 0x90 || code === 0x98 || (code >= 0x9d && code <= 0x9f)) {
      this.#state = "string";
      return "";
    }
    return isControl(code) && char !== "\t" ? "" : char;
  }

  #afterEscape(char: string): void {
    const code = char.charCodeAt(0);
    this.#parameters = "";
    if (char === "[") this.#state = "csi";
    else if ("]PX^_".includes(char)) this.#state = "string";
    else if (char === "\x1b") this.#state = "escape";
    else if (code >= 0x20 && code <= 0x2f) this.#state = "intermediate";
    else this.#state = "text";
  }

  #inCsi(char: string, code: number): string {
    if (char === "\x1b") {
      this.#state = "escape";
      return "";
    }
    if (code >= 0x40 && code <= 0x7e) {
      this.#state = "text";
      return char === "m" && /^[0-9;:]*$/.test(this.#parameters) ? `\x1b[${this.#parameters}m` : "";
    }
    // Beyond the bound nothing can become a colour any more; "?" makes it fail the test above.
    if (this.#parameters.length < MAX_SGR_LENGTH) this.#parameters += char;
    else this.#parameters = "?".repeat(MAX_SGR_LENGTH);
    return "";
  }
}

/** A whole text of several lines, cleaned. */
export function sanitizeText(text: string): string {
  if (isPlain(text)) return text;
  const sanitizer = new LogSanitizer();
  return sanitizer.push(text) + sanitizer.end();
}

/** A name for one line: no control characters at all, line ends and tabs become spaces. */
export function sanitizeName(name: string): string {
  return sanitizeText(name)
    .replace(/\x1b\[[0-9;:]*m/g, "")
    .replace(/[\n\t]/g, " ");
}

function isPlain(text: string): boolean {
  return !/[\x00-\x08\x0b-\x1f\x7f-\x9f]/.test(text);
}

function isControl(code: number): boolean {
  return code < 0x20 || (code >= 0x7f && code <= 0x9f);
}
