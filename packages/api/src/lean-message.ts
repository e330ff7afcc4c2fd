/** Messages of {@link LeanFile}, their fields and oneof groups. */
import { LeanEnum } from "./lean-enum.ts";
import type { LeanFile } from "./lean-file.ts";
import { camelCase, fullName, nameOf, optionOf, safeProperty } from "./lean-names.ts";
import { WireReader } from "./wire-reader.ts";

/** Numbers of descriptor.proto. */
const LABEL_REPEATED = 3;
const TYPE_STRING = 9;
const TYPE_MESSAGE = 11;
const TYPE_BYTES = 12;
const TYPE_ENUM = 14;
const PRESENCE_EXPLICIT = 1;
const PRESENCE_IMPLICIT = 2;
/** A message; its parts are read when they are first asked for. */
export class LeanMessage {
  readonly kind = "message";
  readonly deprecated = false;
  readonly file: LeanFile;
  readonly parent: LeanMessage | undefined;
  readonly nestedExtensions: never[] = [];
  readonly #bytes: Uint8Array;
  #name: string | undefined;
  #typeName: string | undefined;
  #nested: NestedTypes | undefined;
  #parts: MessageParts | undefined;

  constructor(bytes: Uint8Array, file: LeanFile, parent: LeanMessage | undefined) {
    this.#bytes = bytes;
    this.file = file;
    this.parent = parent;
  }

  get name(): string {
    this.#name ??= nameOf(this.#bytes);
    return this.#name;
  }

  get typeName(): string {
    this.#typeName ??= fullName(this.name, this.file, this.parent);
    return this.#typeName;
  }

  get nestedMessages(): LeanMessage[] {
    return this.#inner().messages;
  }

  get nestedEnums(): LeanEnum[] {
    return this.#inner().enums;
  }

  /** The types of the entries of maps. */
  get mapEntries(): LeanMessage[] {
    return this.#inner().entries;
  }

  get isMapEntry(): boolean {
    return this.#inner().isEntry;
  }

  get fields(): LeanField[] {
    return this.#members().fields;
  }

  get field(): Record<string, LeanField> {
    return this.#members().field;
  }

  get oneofs(): LeanOneof[] {
    return this.#members().oneofs;
  }

  get members(): (LeanField | LeanOneof)[] {
    return this.#members().members;
  }

  #inner(): NestedTypes {
    if (this.#nested !== undefined) return this.#nested;
    const inner: NestedTypes = { messages: [], entries: [], enums: [], isEntry: false };
    const reader = new WireReader(this.#bytes);
    while (reader.next()) {
      if (reader.field === 3) {
        const message = new LeanMessage(reader.bytes(), this.file, this);
        (message.isMapEntry ? inner.entries : inner.messages).push(message);
      } else if (reader.field === 4) inner.enums.push(new LeanEnum(reader.bytes(), this.file, this));
      else if (reader.field === 7) inner.isEntry = optionOf(reader.bytes(), 7) === 1;
      else reader.skip();
    }
    this.#nested = inner;
    return inner;
  }

  #members(): MessageParts {
    this.#parts ??= readMembers(this, this.#bytes);
    return this.#parts;
  }

  toString(): string {
    return `message ${this.typeName}`;
  }
}

interface NestedTypes {
  readonly messages: LeanMessage[];
  readonly entries: LeanMessage[];
  readonly enums: LeanEnum[];
  isEntry: boolean;
}

interface MessageParts {
  readonly fields: LeanField[];
  readonly field: Record<string, LeanField>;
  readonly oneofs: LeanOneof[];
  readonly members: (LeanField | LeanOneof)[];
}

function readMembers(parent: LeanMessage, bytes: Uint8Array): MessageParts {
  const parts: MessageParts = { fields: [], field: {}, oneofs: [], members: [] };
  const protos: FieldProto[] = [];
  const oneofs: LeanOneof[] = [];
  const reader = new WireReader(bytes);
  while (reader.next()) {
    if (reader.field === 2) protos.push(readFieldProto(reader.bytes()));
    else if (reader.field === 8) oneofs.push(new LeanOneof(nameOf(reader.bytes()), parent));
    else reader.skip();
  }
  for (const proto of protos) {
    const oneof = proto.oneofIndex === undefined || proto.isOptional ? undefined : oneofs[proto.oneofIndex];
    const field = makeField(proto, parent, oneof);
    parts.fields.push(field);
    parts.field[field.localName] = field;
    if (oneof === undefined) parts.members.push(field);
    else {
      if (oneof.fields.length === 0) parts.members.push(oneof);
      oneof.fields.push(field);
    }
  }
  parts.oneofs.push(...oneofs.filter(({ fields }) => fields.length > 0));
  return parts;
}

class LeanOneof {
  readonly kind = "oneof";
  readonly deprecated = false;
  readonly fields: LeanField[] = [];
  readonly name: string;
  readonly localName: string;
  readonly parent: LeanMessage;

  constructor(name: string, parent: LeanMessage) {
    this.name = name;
    this.localName = safeProperty(camelCase(name));
    this.parent = parent;
  }

  toString(): string {
    return `oneof ${this.parent.typeName}.${this.name}`;
  }
}

interface FieldProto {
  name: string;
  number: number;
  label: number;
  type: number;
  typeName: string;
  jsonName: string | undefined;
  oneofIndex: number | undefined;
  isOptional: boolean;
  packed: boolean | undefined;
  longAsString: boolean;
  deprecated: boolean;
}

function readFieldProto(bytes: Uint8Array): FieldProto {
  const proto: FieldProto = {
    name: "",
    number: 0,
    label: 0,
    type: 0,
    typeName: "",
    jsonName: undefined,
    oneofIndex: undefined,
    isOptional: false,
    packed: undefined,
    longAsString: false,
    deprecated: false,
  };
  const reader = new WireReader(bytes);
  while (reader.next()) {
    if (reader.field === 1) proto.name = reader.text();
    else if (reader.field === 3) proto.number = reader.varint();
    else if (reader.field === 4) proto.label = reader.varint();
    else if (reader.field === 5) proto.type = reader.varint();
    else if (reader.field === 6) proto.typeName = reader.text();
    else if (reader.field === 8) {
      const options = reader.bytes();
      const packed = optionOf(options, 2);
      proto.packed = packed === undefined ? undefined : packed === 1;
      proto.deprecated = optionOf(options, 3) === 1;
      proto.longAsString = optionOf(options, 6) === 1;
    } else if (reader.field === 9) proto.oneofIndex = reader.varint();
    else if (reader.field === 10) proto.jsonName = reader.text();
    else if (reader.field === 17) proto.isOptional = reader.varint() === 1;
    else reader.skip();
  }
  return proto;
}

/** A field, with all properties that protobuf-es gives it. */
class LeanField {
  readonly kind = "field";
  readonly deprecated: boolean;
  readonly name: string;
  readonly number: number;
  readonly parent: LeanMessage;
  readonly oneof: LeanOneof | undefined;
  readonly localName: string;
  readonly jsonName: string;
  readonly presence: number;
  readonly utf8Validation: boolean;
  fieldKind = "scalar";
  scalar: number | undefined;
  message: LeanMessage | undefined;
  enum: LeanEnum | undefined;
  listKind: string | undefined;
  mapKind: string | undefined;
  mapKey: number | undefined;
  delimitedEncoding: boolean | undefined;
  packed: boolean | undefined;
  longAsString = false;
  getDefaultValue: (() => undefined) | undefined;

  constructor(proto: FieldProto, parent: LeanMessage, oneof: LeanOneof | undefined) {
    this.deprecated = proto.deprecated;
    this.name = proto.name;
    this.number = proto.number;
    this.parent = parent;
    this.oneof = oneof;
    const camel = camelCase(proto.name);
    this.localName = oneof === undefined ? safeProperty(camel) : camel;
    this.jsonName = proto.jsonName ?? camel;
    this.presence = presenceOf(proto, oneof);
    this.utf8Validation = true;
  }

  toString(): string {
    return `field ${this.parent.typeName}.${this.name}`;
  }
}

function presenceOf(proto: FieldProto, oneof: LeanOneof | undefined): number {
  if (proto.label === LABEL_REPEATED) return PRESENCE_IMPLICIT;
  const isExplicit = oneof !== undefined || proto.isOptional || proto.type === TYPE_MESSAGE;
  return isExplicit ? PRESENCE_EXPLICIT : PRESENCE_IMPLICIT;
}

function makeField(proto: FieldProto, parent: LeanMessage, oneof: LeanOneof | undefined): LeanField {
  const field = new LeanField(proto, parent, oneof);
  const type = proto.typeName === "" ? undefined : parent.file.type(proto.typeName);
  const message = type instanceof LeanMessage ? type : undefined;
  if (proto.label === LABEL_REPEATED && message?.isMapEntry === true) {
    const [key, value] = [1, 2].map((number) => message.fields.find((one) => one.number === number));
    field.fieldKind = "map";
    field.mapKey = key?.scalar;
    field.mapKind = value?.fieldKind;
    field.message = value?.message;
    field.enum = value?.enum;
    field.scalar = value?.scalar;
    field.delimitedEncoding = false;
    return field;
  }
  const kind = proto.type === TYPE_MESSAGE ? "message" : proto.type === TYPE_ENUM ? "enum" : "scalar";
  if (kind === "message") {
    field.message = message;
    field.delimitedEncoding = false;
  } else if (kind === "enum") field.enum = type as LeanEnum;
  else {
    field.scalar = proto.type;
    field.longAsString = proto.longAsString;
  }
  if (proto.label === LABEL_REPEATED) {
    field.fieldKind = "list";
    field.listKind = kind;
    const canBePacked =
      kind === "enum" || (kind === "scalar" && proto.type !== TYPE_STRING && proto.type !== TYPE_BYTES);
    field.packed = canBePacked && (proto.packed ?? true);
  } else {
    field.fieldKind = kind;
    field.getDefaultValue = () => undefined;
  }
  return field;
}
