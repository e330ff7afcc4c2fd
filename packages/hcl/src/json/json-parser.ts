import { Num } from "../cty/number.ts";
import { quote } from "../cty/text.ts";
import {
  type Diagnostic,
  didYouMean,
  errorAt,
  INITIAL_POS,
  type Range,
  rangeBetween,
} from "../diagnostics.ts";
import { type JsonToken, type JsonTokenType, scanJson } from "./json-scanner.ts";

/** One value of a JSON document, with its place. */
export type JsonNode =
  | { readonly kind: "string"; readonly text: string; readonly range: Range }
  | { readonly kind: "number"; readonly value: Num; readonly range: Range }
  | { readonly kind: "bool"; readonly value: boolean; readonly range: Range }
  | { readonly kind: "null" | "invalid"; readonly range: Range }
  | {
      readonly kind: "array";
      readonly items: readonly JsonNode[];
      readonly range: Range;
      readonly open: Range;
    }
  | {
      readonly kind: "object";
      readonly members: readonly JsonMember[];
      readonly range: Range;
      readonly open: Range;
      readonly close: Range;
    };

export interface JsonMember {
  readonly name: string;
  readonly nameRange: Range;
  readonly value: JsonNode;
}

/** Where a node begins: the bracket of arrays and objects. */
export function nodeStart(node: JsonNode): Range {
  return node.kind === "array" || node.kind === "object" ? node.open : node.range;
}

const MAX_DEPTH = 200;

/** Parses a JSON document. */
export function parseJsonNode(text: string, filename: string): { node: JsonNode; diagnostics: Diagnostic[] } {
  const parser = new JsonParser(scanJson(text, filename, INITIAL_POS));
  const node = parser.document();
  return { node, diagnostics: parser.diagnostics };
}

const START = "A JSON value must start with a brace, a bracket, a number, a string, or a keyword.";

class JsonParser {
  readonly #tokens: readonly JsonToken[];
  readonly diagnostics: Diagnostic[] = [];
  #next = 0;
  #depth = 0;

  constructor(tokens: readonly JsonToken[]) {
    this.#tokens = tokens;
  }

  document(): JsonNode {
    const node = this.#value();
    if (this.diagnostics.length === 0 && this.#peek().type !== "eof") {
      this.#fail(
        "Extraneous data after value",
        "Extra characters appear after the JSON value.",
        this.#peek().range,
      );
    }
    return node;
  }

  #peek(): JsonToken {
    return this.#tokens[this.#next] ?? this.#tokens.at(-1)!;
  }

  #read(): JsonToken {
    const token = this.#peek();
    if (this.#next < this.#tokens.length) this.#next++;
    return token;
  }

  #fail(summary: string, detail: string, range: Range, context?: Range): undefined {
    this.diagnostics.push(errorAt(summary, detail, range, context));
    return undefined;
  }

  #value(): JsonNode {
    const token = this.#peek();
    if (++this.#depth > MAX_DEPTH) {
      this.#next = this.#tokens.length;
      this.#fail("Nesting too deep", "This is nested too deeply to be understood.", token.range);
      return { kind: "invalid", range: token.range };
    }
    const node = this.#start(token);
    this.#depth--;
    return node ?? { kind: "invalid", range: token.range };
  }

  #start(token: JsonToken): JsonNode | undefined {
    switch (token.type) {
      case "{":
        return this.#object();
      case "[":
        return this.#array();
      case "number":
        return this.#number();
      case "string":
        return this.#string();
      case "keyword":
        return this.#keyword();
      case "}":
        return this.#fail("Missing JSON value", START, token.range);
      case "]":
        return this.#fail("Missing array element value", START, token.range);
      case "eof":
        return this.#fail("Missing value", "The JSON data ends prematurely.", token.range);
      default:
        return this.#fail("Invalid start of value", START, token.range);
    }
  }

  /** Skips to the end of the object or array at hand, beginning with a token that has been read. */
  #recover(token: JsonToken, openType: JsonTokenType, closeType: JsonTokenType): void {
    let open = 1;
    for (let current = token; ; current = this.#read()) {
      if (current.type === openType) open++;
      else if (current.type === closeType && --open <= 1) return;
      else if (current.type === "eof") return;
    }
  }

  #object(): JsonNode | undefined {
    const open = this.#read();
    const members: JsonMember[] = [];
    while (this.#peek().type !== "}") {
      const key = this.#value();
      if (key.kind !== "string") {
        const detail = "A JSON object property name must be a string";
        return this.#fail("Invalid object property name", detail, nodeStart(key));
      }
      if (!this.#colon()) return undefined;
      members.push({ name: key.text, nameRange: key.range, value: this.#value() });
      const next = this.#peek();
      if (next.type === "}") break;
      if (next.type !== ",") return this.#badObjectEnd(open, next);
      this.#read();
      if (this.#peek().type === "}") {
        const detail = "JSON does not permit a trailing comma after the final property in an object.";
        return this.#fail("Trailing comma in object", detail, next.range);
      }
    }
    const close = this.#read();
    const range = rangeBetween(open.range, close.range);
    return { kind: "object", members, range, open: open.range, close: close.range };
  }

  #colon(): boolean {
    const colon = this.#read();
    if (colon.type === ":") return true;
    this.#recover(colon, "{", "}");
    if (colon.type === "}" || colon.type === ",") {
      const detail = "A JSON object attribute must have a value, introduced by a colon.";
      this.#fail("Missing object value", detail, colon.range);
    } else {
      const detail =
        colon.type === "="
          ? "JSON uses a colon as its name/value delimiter, not an equals sign."
          : "A colon must appear between an object property's name and its value.";
      this.#fail("Missing property value colon", detail, colon.range);
    }
    return false;
  }

  #badObjectEnd(open: JsonToken, next: JsonToken): undefined {
    if (next.type === "eof") {
      return this.#fail("Unclosed object", "No closing brace was found for this JSON object.", open.range);
    }
    if (next.type === "]") {
      this.#read();
      const detail = "A JSON object must be closed with a brace, not a bracket.";
      return this.#fail("Mismatched braces", detail, this.#peek().range);
    }
    this.#recover(this.#read(), "{", "}");
    const detail = "A comma must appear between each property definition in an object.";
    return this.#fail("Missing attribute seperator comma", detail, this.#peek().range);
  }

  #array(): JsonNode | undefined {
    const open = this.#read();
    const items: JsonNode[] = [];
    while (this.#peek().type !== "]") {
      items.push(this.#value());
      const next = this.#peek();
      if (next.type === "]") break;
      if (next.type !== ",") return this.#badArrayEnd(open, next);
      this.#read();
      if (this.#peek().type === "]") {
        const detail = "JSON does not permit a trailing comma after the final value in an array.";
        return this.#fail("Trailing comma in array", detail, next.range);
      }
    }
    const close = this.#read();
    return { kind: "array", items, range: rangeBetween(open.range, close.range), open: open.range };
  }

  #badArrayEnd(open: JsonToken, next: JsonToken): undefined {
    this.#recover(this.#read(), "[", "]");
    const { range } = this.#peek();
    switch (next.type) {
      case ":":
        return this.#fail(
          "Invalid array value",
          "A colon is not used to introduce values in a JSON array.",
          range,
        );
      case "eof":
        return this.#fail("Unclosed object", "No closing bracket was found for this JSON array.", open.range);
      case "}":
        return this.#fail(
          "Mismatched brackets",
          "A JSON array must be closed with a bracket, not a brace.",
          range,
        );
      default: {
        const detail = "A comma must appear between each value in an array.";
        return this.#fail("Missing attribute seperator comma", detail, range);
      }
    }
  }

  #number(): JsonNode | undefined {
    const token = this.#read();
    const value = /^-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?$/.test(token.text)
      ? Num.parse(token.text)
      : undefined;
    if (value !== undefined) return { kind: "number", value, range: token.range };
    return this.#fail(
      "Invalid JSON number",
      "There is a syntax error in the given JSON number.",
      token.range,
    );
  }

  #string(): JsonNode | undefined {
    const token = this.#read();
    try {
      const text: unknown = JSON.parse(token.text);
      if (typeof text === "string") return { kind: "string", text: text.toWellFormed(), range: token.range };
    } catch {
      // Said below, with its place.
    }
    const bad = /\\(?!["\\/bfnrt]|u[0-9a-fA-F]{4})/.exec(token.text);
    const shift = bad === null ? token.text.length : bad.index + 2;
    const { start } = token.range;
    const at = { line: start.line, column: start.column + shift, offset: start.offset + shift };
    const end = { ...at, column: at.column + 1, offset: at.offset + 1 };
    const detail = "There is a syntax error in the given JSON string.";
    return this.#fail("Invalid JSON string", detail, { ...token.range, start: at, end }, token.range);
  }

  #keyword(): JsonNode | undefined {
    const token = this.#read();
    const { text, range } = token;
    if (text === "true" || text === "false") return { kind: "bool", value: text === "true", range };
    if (text === "null") return { kind: "null", range };
    const javascript = ["undefined", "NaN", "Infinity"].includes(text);
    const detail = javascript
      ? `The JavaScript identifier ${quote(text)} cannot be used in JSON.`
      : `${quote(text)} is not a valid JSON keyword.${didYouMean(text, ["true", "false", "null"])}`;
    return this.#fail("Invalid JSON keyword", detail, range);
  }
}
