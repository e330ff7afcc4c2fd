import { BuildError } from "@kiln/base";

/** Value of a field and whether it is there; a field without a value is there as `""`. */
export type FieldReader = (path: readonly string[]) => string | undefined;

/** True when what the reader stands for passes. */
export type Filter = (read: FieldReader) => boolean;

const MAX_LENGTH = 4096;

/**
 * containerd's filter syntax: each text is a list of selectors joined by `,`, all of which must hold; one of
 * the texts must. A selector is a field (`id`, `labels."a.b"`), alone for "is there", or with `==`, `!=` or
 * `~=` (regular expression) and a value, quoted when need be. No text, and an empty one, let everything pass.
 *
 * @throws `invalid_argument`
 */
export function parseFilters(texts: readonly string[]): Filter {
  if (texts.length === 0) return () => true;
  const filters = texts.map(parseFilter);
  return (read) => filters.some((filter) => filter(read));
}

function parseFilter(text: string): Filter {
  if (text === "") return () => true;
  if (text.length > MAX_LENGTH) throw new BuildError("invalid_argument", "filter is too long");
  const scanner = new Scanner(text);
  const selectors: Filter[] = [];
  do selectors.push(scanner.selector());
  while (scanner.take(","));
  scanner.end();
  return (read) => selectors.every((selector) => selector(read));
}

class Scanner {
  readonly #text: string;
  #at = 0;

  constructor(text: string) {
    this.#text = text;
  }

  selector(): Filter {
    const path = [this.#field()];
    while (this.take(".")) path.push(this.#field());
    const operator = ["==", "!=", "~="].find((candidate) => this.take(candidate));
    if (operator === undefined) return (read) => read(path) !== undefined;
    const value = this.#value(operator === "~=");
    switch (operator) {
      case "==":
        return (read) => read(path) === value;
      case "!=":
        return (read) => (read(path) ?? "") !== value;
      default:
        return this.#matcher(path, value);
    }
  }

  #matcher(path: readonly string[], value: string): Filter {
    let pattern: RegExp;
    try {
      pattern = new RegExp(value);
    } catch (error) {
      throw new BuildError("invalid_argument", `filter: bad regular expression ${JSON.stringify(value)}`, {
        cause: error,
      });
    }
    return (read) => {
      const field = read(path);
      return field !== undefined && pattern.test(field);
    };
  }

  take(token: string): boolean {
    this.#space();
    if (!this.#text.startsWith(token, this.#at)) return false;
    this.#at += token.length;
    return true;
  }

  end(): void {
    this.#space();
    if (this.#at < this.#text.length) throw this.#fail("unexpected input");
  }

  #space(): void {
    while (/\s/.test(this.#text[this.#at] ?? "")) this.#at++;
  }

  #field(): string {
    this.#space();
    if (this.#text[this.#at] === '"') return this.#quoted('"');
    const match = /^[A-Za-z0-9_]+/.exec(this.#text.slice(this.#at));
    if (!match) throw this.#fail("expected field or quoted");
    this.#at += match[0].length;
    return match[0];
  }

  #value(isPattern: boolean): string {
    this.#space();
    const next = this.#text[this.#at] ?? "";
    if (next === '"' || (isPattern && (next === "/" || next === "|"))) return this.#quoted(next);
    const match = /^[^\s,"]+/.exec(this.#text.slice(this.#at));
    if (!match) throw this.#fail("expected value or quoted");
    this.#at += match[0].length;
    return match[0];
  }

  #quoted(quote: string): string {
    const from = this.#at++;
    while (this.#at < this.#text.length && this.#text[this.#at] !== quote) {
      this.#at += this.#text[this.#at] === "\\" ? 2 : 1;
    }
    if (this.#text[this.#at] !== quote) throw this.#fail("literal not terminated");
    const inner = this.#text.slice(from + 1, this.#at++);
    if (quote !== '"') return inner.replaceAll(`\\${quote}`, quote);
    return inner.replace(/\\(["\\nt])/g, (_, c: string) => (c === "n" ? "\n" : c === "t" ? "\t" : c));
  }

  #fail(reason: string): BuildError {
    const before = this.#text.slice(0, this.#at);
    const after = this.#text.slice(this.#at + 1);
    const here = this.#text[this.#at] ?? "";
    return new BuildError(
      "invalid_argument",
      `filters: parse error: [${before} >|${here}|< ${after}]: ${reason}`,
    );
  }
}
