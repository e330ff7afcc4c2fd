import { ConversionError, convert } from "./convert.ts";
import { Num } from "./number.ts";
import { jsonString, quote, sortedKeys } from "./text.ts";
import {
  boolType,
  dynamicType,
  friendlyName,
  isCollection,
  listType,
  mapType,
  numberType,
  type ObjectType,
  objectType,
  setType,
  stringType,
  type TupleType,
  type Type,
  tupleType,
  typesEqual,
} from "./type.ts";
import {
  boolValue,
  emptyObject,
  emptyTuple,
  listValue,
  mapValue,
  nullValue,
  numberValue,
  objectValue,
  setValue,
  stringValue,
  tupleValue,
  type Value,
} from "./value.ts";

/** A text that isn't the JSON that was wanted. */
export class JsonError extends Error {}

const MAX_DEPTH = 10_000;

/** Writes a wholly known value as a `type`. Where the type says `any`, value and type are both written. */
export function marshalJson(value: Value, type: Type): string {
  if (!value.isKnown) throw new JsonError("value is not known");
  if (type.kind === "dynamic" && value.type.kind !== "dynamic") {
    return `{"value":${marshalJson(value, value.type)},"type":${marshalType(value.type)}}`;
  }
  if (value.isNull) return "null";
  switch (type.kind) {
    case "string":
      return jsonString(value.string);
    case "number":
      if (value.number.kind === "inf") throw new JsonError("cannot serialize infinity as JSON");
      return value.number.toString();
    case "bool":
      return value.isTrue ? "true" : "false";
    case "list":
    case "set":
      return `[${value.elements.map((elem) => marshalJson(elem, type.elem)).join(",")}]`;
    case "tuple":
      return `[${value.elements.map((elem, i) => marshalJson(elem, type.elems[i]!)).join(",")}]`;
    case "map":
      return marshalMembers(value, () => type.elem);
    case "object":
      return marshalMembers(value, (key) => type.attrs.get(key)!);
    case "dynamic":
      return "null";
    default:
      throw new JsonError(`cannot JSON-serialize ${friendlyName(type)}`);
  }
}

function marshalMembers(value: Value, typeOf: (key: string) => Type): string {
  const parts = sortedKeys(value.members).map(
    (key) => `${jsonString(key)}:${marshalJson(value.members.get(key)!, typeOf(key))}`,
  );
  return `{${parts.join(",")}}`;
}

/** A type in cty's JSON form: `"string"`, `["list","number"]`, `["object",{…}]`. */
export function marshalType(type: Type): string {
  if (isCollection(type)) return `["${type.kind}",${marshalType(type.elem)}]`;
  if (type.kind === "tuple") return `["tuple",[${type.elems.map(marshalType).join(",")}]]`;
  if (type.kind === "object") {
    const attrs = sortedKeys(type.attrs).map(
      (name) => `${jsonString(name)}:${marshalType(type.attrs.get(name)!)}`,
    );
    const optional = [...type.optional].sort().map(jsonString);
    return `["object",{${attrs.join(",")}}${optional.length > 0 ? `,[${optional.join(",")}]` : ""}]`;
  }
  if (type.kind === "capsule") throw new JsonError("type not allowed");
  return `"${type.kind}"`;
}

/** One JSON token tree; numbers keep their text, members their order and duplicates. */
type Node =
  | { readonly kind: "null" }
  | { readonly kind: "bool"; readonly value: boolean }
  | { readonly kind: "number" | "string"; readonly text: string }
  | { readonly kind: "array"; readonly items: readonly Node[] }
  | { readonly kind: "object"; readonly members: readonly (readonly [string, Node])[] };

/** The type that a JSON document has by itself: objects and tuples. */
export function impliedJsonType(text: string): Type {
  const reader = new JsonReader(text);
  const type = implied(reader.read(0));
  if (reader.more()) throw new JsonError("extraneous data after JSON object");
  return type;
}

function implied(node: Node): Type {
  switch (node.kind) {
    case "null":
      return dynamicType;
    case "bool":
      return boolType;
    case "number":
      return numberType;
    case "string":
      return stringType;
    case "array":
      return tupleType(node.items.map(implied));
    default: {
      const attrs = new Map<string, Type>();
      for (const [key, member] of node.members) {
        const type = implied(member);
        const existing = attrs.get(key);
        if (existing !== undefined && !typesEqual(existing, type)) {
          throw new JsonError(`duplicate ${quote(key)} property in JSON object`);
        }
        attrs.set(key, type);
      }
      return objectType(attrs);
    }
  }
}

/** Reads JSON as a value of a type. Attributes may be missing (null), but none may be added. */
export function unmarshalJson(text: string, type: Type): Value {
  return fromNode(new JsonReader(text).read(0), type);
}

function fromNode(node: Node, type: Type): Value {
  if (node.kind === "null") return nullValue(type);
  switch (type.kind) {
    case "dynamic":
      return fromDynamic(node);
    case "string":
    case "number":
    case "bool":
      return fromPrimitive(node, type);
    case "list":
    case "set": {
      const items = expectArray(node).map((item) => fromNode(item, type.elem));
      return type.kind === "list" ? listValue(items, type.elem) : setValue(items, type.elem);
    }
    case "map":
      return mapValue(
        new Map(expectObject(node).map(([key, member]) => [key, fromNode(member, type.elem)])),
        type.elem,
      );
    case "tuple":
      return fromTuple(node, type);
    case "object":
      return fromObject(node, type);
    default:
      throw new JsonError(`unsupported type ${friendlyName(type)}`);
  }
}

function fromPrimitive(node: Node, type: Type): Value {
  if (type.kind === "bool") {
    if (node.kind === "bool") return boolValue(node.value);
    if (node.kind === "string") return convert(stringValue(node.text), type);
    throw new JsonError("bool is required");
  }
  if (type.kind === "number") {
    if (node.kind !== "number" && node.kind !== "string") throw new JsonError("number is required");
    const parsed = Num.parse(node.text);
    if (parsed === undefined) throw new ConversionError("a number is required");
    return numberValue(parsed);
  }
  if (node.kind === "bool") return stringValue(node.value ? "true" : "false");
  if (node.kind !== "number" && node.kind !== "string") throw new JsonError("string is required");
  return stringValue(node.text);
}

function fromTuple(node: Node, type: TupleType): Value {
  const items = expectArray(node);
  if (items.length > type.elems.length)
    throw new JsonError(`too many tuple elements (need ${type.elems.length})`);
  const elems = items.map((item, i) => fromNode(item, type.elems[i]!));
  if (elems.length < type.elems.length)
    throw new JsonError(`not enough tuple elements (need ${type.elems.length})`);
  return elems.length === 0 ? emptyTuple : tupleValue(elems);
}

function fromObject(node: Node, type: ObjectType): Value {
  const attrs = new Map<string, Value>();
  for (const [key, member] of expectObject(node)) {
    const attr = type.attrs.get(key);
    if (attr === undefined) throw new JsonError(`unsupported attribute ${quote(key)}`);
    attrs.set(key, fromNode(member, attr));
  }
  for (const [name, attr] of type.attrs) if (!attrs.has(name)) attrs.set(name, nullValue(attr));
  return attrs.size === 0 ? emptyObject : objectValue(attrs);
}

function fromDynamic(node: Node): Value {
  let type: Type | undefined;
  let body: Node | undefined;
  for (const [key, member] of expectObject(node)) {
    if (key === "type") type = typeFromNode(member);
    else if (key === "value") body = member;
    else throw new JsonError(`invalid key ${quote(key)} in dynamically-typed value`);
  }
  if (type === undefined) throw new JsonError("missing type in dynamically-typed value");
  if (body === undefined) throw new JsonError("missing value in dynamically-typed value");
  return fromNode(body, type);
}

function typeFromNode(node: Node): Type {
  const wrong = new JsonError("failed to decode type for dynamic value: invalid complex type description");
  if (node.kind === "string") {
    const found = [stringType, numberType, boolType, dynamicType].find((type) => type.kind === node.text);
    if (found === undefined)
      throw new JsonError(
        `failed to decode type for dynamic value: invalid primitive type name ${quote(node.text)}`,
      );
    return found;
  }
  if (node.kind !== "array" || node.items[0]?.kind !== "string" || node.items[1] === undefined) throw wrong;
  const inner = node.items[1];
  switch (node.items[0].text) {
    case "list":
      return listType(typeFromNode(inner));
    case "set":
      return setType(typeFromNode(inner));
    case "map":
      return mapType(typeFromNode(inner));
    case "tuple":
      return tupleType(expectArray(inner).map(typeFromNode));
    case "object":
      return objectType(new Map(expectObject(inner).map(([key, member]) => [key, typeFromNode(member)])));
    default:
      throw wrong;
  }
}

function expectArray(node: Node): readonly Node[] {
  if (node.kind !== "array") throw new JsonError("missing expected [");
  return node.items;
}

function expectObject(node: Node): readonly (readonly [string, Node])[] {
  if (node.kind !== "object") throw new JsonError("missing expected {");
  return node.members;
}

/** Reads JSON with the messages of Go's `encoding/json`. */
class JsonReader {
  readonly #text: string;
  #at = 0;

  constructor(text: string) {
    this.#text = text;
  }

  more(): boolean {
    this.#space();
    return this.#at < this.#text.length;
  }

  read(depth: number): Node {
    if (depth > MAX_DEPTH) throw new JsonError("exceeded max depth");
    this.#space();
    const char = this.#text.charAt(this.#at);
    if (char === "") throw new JsonError("EOF");
    if (char === "{") return this.#object(depth);
    if (char === "[") return this.#array(depth);
    if (char === '"') return { kind: "string", text: this.#string() };
    for (const word of ["true", "false", "null"]) {
      if (this.#text.startsWith(word, this.#at)) {
        this.#at += word.length;
        return word === "null" ? { kind: "null" } : { kind: "bool", value: word === "true" };
      }
    }
    const rest = this.#text.slice(this.#at);
    if (["true", "false", "null"].some((word) => word.startsWith(rest)))
      throw new JsonError("unexpected EOF");
    const begun = ["true", "false", "null"].find((word) => word.startsWith(rest.charAt(0)));
    if (begun !== undefined) {
      let same = 1;
      while (rest[same] === begun[same]) same++;
      this.#at += same;
      throw this.#invalid(`in literal ${begun} (expecting '${begun.charAt(same)}')`);
    }
    const number = /-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?/y;
    number.lastIndex = this.#at;
    const match = number.exec(this.#text);
    if (match === null) throw this.#invalid("looking for beginning of value");
    this.#at += match[0].length;
    return { kind: "number", text: match[0] };
  }

  #space(): void {
    while (" \t\r\n".includes(this.#text.charAt(this.#at)) && this.#at < this.#text.length) this.#at++;
  }

  #invalid(context: string): JsonError {
    const char = this.#text.charAt(this.#at);
    if (char === "") return new JsonError("EOF");
    return new JsonError(
      `invalid character ${quote(char).replace(/^"|"$/g, "'")}${context === "" ? "" : ` ${context}`}`,
    );
  }

  #string(): string {
    const start = this.#at;
    for (let i = start + 1; i < this.#text.length; i++) {
      const char = this.#text.charAt(i);
      if (char === "\\") i++;
      else if (char === '"') {
        this.#at = i + 1;
        try {
          return String(JSON.parse(this.#text.slice(start, i + 1)));
        } catch {
          throw new JsonError("invalid character in string literal");
        }
      }
    }
    throw new JsonError("unexpected EOF");
  }

  #object(depth: number): Node {
    const members: [string, Node][] = [];
    this.#at++;
    this.#space();
    while (this.#text.charAt(this.#at) !== "}") {
      if (members.length > 0) {
        if (this.#text.charAt(this.#at) !== ",") throw this.#invalid("after object key:value pair");
        this.#at++;
        this.#space();
      }
      if (this.#text.charAt(this.#at) !== '"') throw this.#invalid("");
      const key = this.#string();
      this.#space();
      if (this.#text.charAt(this.#at) !== ":") throw this.#invalid("after object key");
      this.#at++;
      members.push([key, this.read(depth + 1)]);
      this.#space();
    }
    this.#at++;
    return { kind: "object", members };
  }

  #array(depth: number): Node {
    const items: Node[] = [];
    this.#at++;
    this.#space();
    while (this.#text.charAt(this.#at) !== "]") {
      if (items.length > 0) {
        if (this.#text.charAt(this.#at) !== ",") throw this.#invalid("after array element");
        this.#at++;
      }
      items.push(this.read(depth + 1));
      this.#space();
    }
    this.#at++;
    return { kind: "array", items };
  }
}
