import { quote } from "@kiln/hcl";
import { fail } from "../problem.ts";
import { type Lookup, notingLookup, substitute } from "./template.ts";

const BLANK = /[\t\v\f\r \u0085\u00a0]/;
const LEADING_BLANKS = /^[\t\v\f\r \u0085\u00a0]+/;

/** Reads a `.env` file: `NAME=value` lines, quotes, `export`, comments, and variables in values. */
export function parseDotEnv(text: string, out: Map<string, string>, lookup: Lookup): void {
  new DotEnvReader(text.replaceAll("\r\n", "\n"), out, lookup).read();
}

class DotEnvReader {
  #rest: string;
  readonly #out: Map<string, string>;
  readonly #lookup: Lookup;
  #line = 1;

  constructor(text: string, out: Map<string, string>, lookup: Lookup) {
    this.#rest = text;
    this.#out = out;
    this.#lookup = lookup;
  }

  read(): void {
    while (this.#findStatement()) {
      const { key, inherited } = this.#key();
      if (key.includes(" ")) fail(`line ${this.#line}: key cannot contain a space`);
      if (inherited) {
        const value = this.#lookup(key);
        if (value !== undefined) this.#out.set(key, value);
      } else this.#out.set(key, this.#value());
    }
  }

  #findStatement(): boolean {
    for (;;) {
      const start = this.#rest.search(/\S/);
      if (start < 0) return false;
      this.#countLines(this.#rest.slice(0, start));
      this.#rest = this.#rest.slice(start);
      if (this.#rest[0] !== "#") return true;
      const end = this.#rest.indexOf("\n");
      if (end < 0) return false;
      this.#rest = this.#rest.slice(end);
    }
  }

  #countLines(text: string): void {
    for (const char of text) if (char === "\n") this.#line++;
  }

  #key(): { readonly key: string; readonly inherited: boolean } {
    if (/^export\s+/.test(this.#rest))
      this.#rest = this.#rest.slice("export".length).replace(LEADING_BLANKS, "");
    let key = "";
    let offset = 0;
    let inherited = false;
    for (let i = 0; i < this.#rest.length; i++) {
      const char = this.#rest[i]!;
      if (BLANK.test(char)) continue;
      if (char === "=" || char === ":" || char === "\n") {
        key = this.#rest.slice(0, i);
        offset = i + 1;
        inherited = char === "\n";
        break;
      }
      if (!/[_.\-[\]\p{L}\p{N}]/u.test(char)) {
        const name = this.#rest.split("\n", 1)[0] ?? "";
        fail(`line ${this.#line}: unexpected character ${quote(char)} in variable name ${quote(name)}`);
      }
    }
    if (inherited && !key.includes(" ")) this.#line++;
    if (offset === 0) {
      // The file ends within the name: it counts for nothing, and there is no more.
      this.#rest = "";
      return { key: "", inherited: true };
    }
    this.#rest = this.#rest.slice(offset).replace(LEADING_BLANKS, "");
    return { key: key.trimEnd(), inherited };
  }

  #expand(text: string): string {
    const lookup = notingLookup((name) => this.#lookup(name) ?? this.#out.get(name), this.#lookup.unset);
    return substitute(text, lookup);
  }

  #value(): string {
    const quoteChar = this.#rest[0];
    if (quoteChar !== '"' && quoteChar !== "'") {
      const end = this.#rest.indexOf("\n");
      const line = end < 0 ? this.#rest : this.#rest.slice(0, end);
      this.#rest = end < 0 ? "" : this.#rest.slice(end + 1);
      this.#line++;
      return this.#expand((line.split(" #", 1)[0] ?? "").trimEnd());
    }
    return this.#quoted(quoteChar);
  }

  #quoted(quoteChar: string): string {
    const parts: string[] = [];
    for (let i = 1; i < this.#rest.length; i++) {
      const char = this.#rest[i]!;
      if (char === "\n") this.#line++;
      if (char === "\\" && i + 1 < this.#rest.length) {
        const next = this.#rest[++i]!;
        if (next === "\n") this.#line++;
        parts.push(next === quoteChar ? next : `\\${next}`);
        continue;
      }
      if (char !== quoteChar) {
        parts.push(char);
        continue;
      }
      this.#rest = this.#rest.slice(i + 1);
      const text = parts.join("");
      return quoteChar === '"' ? this.#expand(expandEscapes(text)) : text;
    }
    return fail(`line ${this.#line}: unterminated quoted value ${this.#rest.split("\n", 1)[0] ?? ""}`);
  }
}

const ESCAPES: Readonly<Record<string, string>> = {
  a: "\x07",
  b: "\b",
  f: "\f",
  n: "\n",
  r: "\r",
  t: "\t",
  v: "\v",
  '"': '"',
  "\\": "\\",
};

function expandEscapes(text: string): string {
  return text.replace(/\\([abcfnrtv$"\\]|0\d{0,3})/g, (whole, name: string) => {
    if (name === "$") return "$$";
    if (name.startsWith("0")) {
      const octal = name.slice(1);
      return /^[0-7]{3}$/.test(octal) && Number.parseInt(octal, 8) < 256
        ? String.fromCharCode(Number.parseInt(octal, 8))
        : `\\${octal}`;
    }
    return ESCAPES[name] ?? whole;
  });
}
