import { BuildError } from "@kiln/base";

/**
 * JSON as Go's `json.Compact` and `json.Indent` rewrite it: white space between tokens goes or is set anew,
 * strings and numbers stay as they were written. `<`, `>`, `&`, U+2028 and U+2029 are escaped, as Go does
 * when it marshals a `json.RawMessage`.
 *
 * @param text one JSON value; "" stands for `null`.
 * @param indent white space per level; undefined for compact text.
 * @throws BuildError `invalid_argument` for what is no JSON.
 */
export function rewriteJson(text: string, indent?: string): string {
  if (text === "") return "null";
  checkJson(text);
  const out: string[] = [];
  const layout = new Layout(indent);
  for (let at = 0; at < text.length; ) {
    const quote = text.indexOf('"', at);
    const between = text.slice(at, quote < 0 ? undefined : quote).replace(/\s+/g, "");
    out.push(indent === undefined ? between : layout.punctuation(between));
    if (quote < 0) break;
    at = endOfString(text, quote);
    out.push(layout.value, escapeHtml(text.slice(quote, at)));
  }
  return out.join("");
}

/** Puts white space around punctuation, level by level. */
class Layout {
  readonly #indent: string | undefined;
  #depth = 0;
  /** Just behind an opening bracket: nothing is known yet of what it holds. */
  #opened = false;

  constructor(indent: string | undefined) {
    this.#indent = indent;
  }

  /** White space before a value that begins now. */
  get value(): string {
    if (!this.#opened) return "";
    this.#opened = false;
    return this.#newline();
  }

  /** What stands between two strings, laid out; it has no white space. */
  punctuation(text: string): string {
    let out = "";
    for (const c of text) {
      if (c === "}" || c === "]") {
        this.#depth--;
        out += this.#opened ? c : this.#newline() + c;
        this.#opened = false;
        continue;
      }
      if (c === ",") out += c + this.#newline();
      else if (c === ":") out += ": ";
      else out += this.value + c;
      if (c !== "{" && c !== "[") continue;
      this.#depth++;
      this.#opened = this.#indent !== undefined;
    }
    return out;
  }

  #newline(): string {
    return this.#indent === undefined ? "" : `\n${this.#indent.repeat(this.#depth)}`;
  }
}

function checkJson(text: string): void {
  try {
    JSON.parse(text);
  } catch (error) {
    throw new BuildError("invalid_argument", "predicate of an attestation is not JSON", { cause: error });
  }
}

/** End of the string literal that begins at `start`; the text has been parsed, so there is one. */
function endOfString(text: string, start: number): number {
  let at = start + 1;
  for (;;) {
    const quote = text.indexOf('"', at);
    let slashes = quote;
    while (text[slashes - 1] === "\\") slashes--;
    if ((quote - slashes) % 2 === 0) return quote + 1;
    at = quote + 1;
  }
}

function escapeHtml(literal: string): string {
  return literal.replace(/[<>&\u2028\u2029]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`);
}
