/** Enumerations of {@link LeanFile}. */
import type { LeanFile } from "./lean-file.ts";
import type { LeanMessage } from "./lean-message.ts";
import { fullName, nameOf, optionOf, safeProperty } from "./lean-names.ts";
import { WireReader } from "./wire-reader.ts";

interface LeanEnumValue {
  readonly kind: "enum_value";
  readonly deprecated: boolean;
  readonly parent: LeanEnum;
  readonly name: string;
  readonly localName: string;
  readonly number: number;
  readonly jsonName: string;
  toString(): string;
}

interface EnumParts {
  readonly values: LeanEnumValue[];
  readonly value: Record<number, LeanEnumValue>;
  readonly sharedPrefix: string | undefined;
}

/** An enumeration. */
export class LeanEnum {
  readonly kind = "enum";
  readonly deprecated = false;
  readonly open = true;
  readonly file: LeanFile;
  readonly parent: LeanMessage | undefined;
  readonly name: string;
  readonly #bytes: Uint8Array;
  #parts: EnumParts | undefined;

  constructor(bytes: Uint8Array, file: LeanFile, parent: LeanMessage | undefined) {
    this.#bytes = bytes;
    this.file = file;
    this.parent = parent;
    this.name = nameOf(bytes);
  }

  get typeName(): string {
    return fullName(this.name, this.file, this.parent);
  }

  get values(): LeanEnumValue[] {
    return this.#read().values;
  }

  get value(): Record<number, LeanEnumValue> {
    return this.#read().value;
  }

  get sharedPrefix(): string | undefined {
    return this.#read().sharedPrefix;
  }

  #read(): EnumParts {
    if (this.#parts !== undefined) return this.#parts;
    const protos: { name: string; number: number; deprecated: boolean }[] = [];
    const reader = new WireReader(this.#bytes);
    while (reader.next()) {
      if (reader.field === 2) protos.push(readEnumValue(reader.bytes()));
      else reader.skip();
    }
    const sharedPrefix = sharedPrefixOf(this.name, protos);
    const parts: EnumParts = { values: [], value: {}, sharedPrefix };
    for (const { name, number, deprecated } of protos) {
      const localName = safeProperty(sharedPrefix === undefined ? name : name.slice(sharedPrefix.length));
      const value: LeanEnumValue = {
        kind: "enum_value",
        deprecated,
        parent: this,
        name,
        localName,
        number,
        jsonName: name,
        toString: () => `enum value ${this.typeName}.${name}`,
      };
      parts.values.push(value);
      parts.value[number] ??= value;
    }
    this.#parts = parts;
    return parts;
  }

  toString(): string {
    return `enum ${this.typeName}`;
  }
}

function readEnumValue(bytes: Uint8Array): { name: string; number: number; deprecated: boolean } {
  const value = { name: "", number: 0, deprecated: false };
  const reader = new WireReader(bytes);
  while (reader.next()) {
    if (reader.field === 1) value.name = reader.text();
    else if (reader.field === 2) value.number = reader.varint();
    else if (reader.field === 3) value.deprecated = optionOf(reader.bytes(), 1) === 1;
    else reader.skip();
  }
  return value;
}

/** `MY_ENUM_` for `MyEnum` when all values start with it. */
function sharedPrefixOf(name: string, values: readonly { readonly name: string }[]): string | undefined {
  const prefix = `${(name.slice(0, 1) + name.slice(1).replace(/[A-Z]/g, "_$&")).toLowerCase()}_`;
  const fits = values.every(
    (value) => value.name.toLowerCase().startsWith(prefix) && /^\D/.test(value.name.slice(prefix.length)),
  );
  return fits ? prefix : undefined;
}
