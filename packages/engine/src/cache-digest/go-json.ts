import { type DescField, type DescMessage, type MessageShape, ScalarType } from "@bufbuild/protobuf";
import { type ReflectMessage, reflect } from "@bufbuild/protobuf/reflect";

/** A value as Go's `encoding/json` sees it: struct fields and map entries in the order given. */
export type GoJson =
  | string
  | number
  | bigint
  | boolean
  | null
  | Uint8Array
  | readonly GoJson[]
  | { readonly [key: string]: GoJson | undefined };

/**
 * JSON text exactly as Go's `encoding/json.Marshal` writes it: no spaces, `<`, `>`, `&`, U+2028 and U+2029
 * escaped, bytes in base64. Cache digests are made from such texts.
 */
export function goJsonText(value: GoJson): string {
  if (value === null) return "null";
  if (typeof value === "bigint") return value.toString();
  if (typeof value === "string") return goJsonString(value);
  if (typeof value !== "object") return JSON.stringify(value);
  if (value instanceof Uint8Array) return `"${Buffer.from(value).toString("base64")}"`;
  if (Array.isArray(value)) return `[${value.map(goJsonText).join(",")}]`;
  const fields = Object.entries(value).filter((entry): entry is [string, GoJson] => entry[1] !== undefined);
  return `{${fields.map(([key, field]) => `${goJsonString(key)}:${goJsonText(field)}`).join(",")}}`;
}

const ESCAPED = /[<>&\u2028\u2029]/g;

function goJsonString(text: string): string {
  return JSON.stringify(text.toWellFormed()).replace(
    ESCAPED,
    (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}

/**
 * A message as the Go struct that protoc-gen-go makes of it: fields in the order of the .proto under their
 * .proto names, zero values left out; a oneof as a field of its own (`{"X":{"Name":…}}`, `null` when unset).
 * `pb.Op`, `pb.FileAction` and `pb.UserOpt` as their own marshallers upstream write them.
 */
export function goStruct<Desc extends DescMessage>(schema: Desc, message: MessageShape<Desc>): GoJson {
  return structOf(reflect(schema, message));
}

function structOf(message: ReflectMessage): GoJson {
  return MARSHALLERS.get(message.desc.typeName)?.(message) ?? plainStruct(message);
}

/** Messages that upstream marshals by hand: the case of a oneof keeps its .proto name. */
const MARSHALLERS: ReadonlyMap<string, (message: ReflectMessage) => GoJson> = new Map<
  string,
  (message: ReflectMessage) => GoJson
>([
  [
    "pb.Op",
    (message) => {
      const { Op: _, inputs, platform, constraints } = plainStruct(message);
      return { inputs, Op: oneofCase(message, "op") ?? {}, platform, constraints };
    },
  ],
  [
    "pb.FileAction",
    (message) => {
      const { input = 0, secondaryInput = 0, output = 0 } = plainStruct(message);
      return { input, secondaryInput, output, Action: oneofCase(message, "action") ?? {} };
    },
  ],
  [
    "pb.UserOpt",
    (message) => {
      const { byId, ...rest } = oneofCase(message, "user") ?? {};
      return { User: byId === undefined || byId === 0 ? rest : { byId } };
    },
  ],
]);

function oneofCase(message: ReflectMessage, name: string): Record<string, GoJson> | undefined {
  const member = message.members.find((item) => item.kind === "oneof" && item.name === name);
  const field = member?.kind === "oneof" ? message.oneofCase(member) : undefined;
  return field && { [field.name === "byID" ? "byId" : field.name]: fieldValue(message, field) };
}

function plainStruct(message: ReflectMessage): Record<string, GoJson> {
  const out: Record<string, GoJson> = Object.create(null);
  for (const member of message.members) {
    if (member.kind === "oneof") {
      const field = message.oneofCase(member);
      out[capitalised(member.name)] =
        field === undefined ? null : { [capitalised(field.name)]: fieldValue(message, field) };
    } else if (message.isSet(member)) {
      out[member.name] = fieldValue(message, member);
    }
  }
  return out;
}

function fieldValue(message: ReflectMessage, field: DescField): GoJson {
  switch (field.fieldKind) {
    case "message":
      return structOf(message.get(field) as ReflectMessage);
    case "list": {
      const items = [...(message.get(field) as Iterable<unknown>)];
      return items.map((item) =>
        field.listKind === "message" ? structOf(item as ReflectMessage) : (item as GoJson),
      );
    }
    case "map": {
      const entries = [...(message.get(field) as Iterable<[unknown, unknown]>)].map(
        ([key, value]): [string, GoJson] => [
          String(key),
          field.mapKind === "message" ? structOf(value as ReflectMessage) : (value as GoJson),
        ],
      );
      entries.sort(([a], [b]) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
      const out: Record<string, GoJson> = Object.create(null);
      for (const [key, value] of entries) out[key] = value;
      return out;
    }
    case "scalar":
      return scalarValue(field.scalar, message.get(field));
    case "enum":
      return message.get(field) as number;
  }
}

function scalarValue(type: ScalarType, value: unknown): GoJson {
  return type === ScalarType.BYTES ? (value as Uint8Array) : (value as GoJson);
}

/** Go's name of a field: `byName` is `ByName`. */
function capitalised(name: string): string {
  return name.charAt(0).toUpperCase() + name.slice(1);
}

/** A Go map: entries in byte order of their keys. */
export function sortedRecord(map: ReadonlyMap<string, GoJson>): GoJson {
  const out: Record<string, GoJson> = Object.create(null);
  const entries = [...map].sort(([a], [b]) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
  for (const [key, value] of entries) out[key] = value;
  return out;
}

/** A value that Go has passed through `map[string]any`: keys in order at every depth, numbers as doubles. */
export function sortedKeys(value: GoJson): GoJson {
  if (typeof value === "bigint") return Number(value);
  if (typeof value !== "object" || value === null || value instanceof Uint8Array) return value;
  if (Array.isArray(value)) return value.map(sortedKeys);
  const entries = Object.entries(value).filter((entry): entry is [string, GoJson] => entry[1] !== undefined);
  return sortedRecord(new Map(entries.map(([key, item]) => [key, sortedKeys(item)])));
}
