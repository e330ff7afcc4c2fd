/** Names and options of descriptors, by protobuf-es's rules. */
import type { LeanFile } from "./lean-file.ts";
import { WireReader } from "./wire-reader.ts";

/** The name with those of the package and of the message around it. */
export function fullName(
  name: string,
  file: LeanFile,
  parent: { readonly typeName: string } | undefined,
): string {
  if (parent !== undefined) return `${parent.typeName}.${name}`;
  return file.packageName === "" ? name : `${file.packageName}.${name}`;
}

/** Reads the name, which comes first in every descriptor. */
export function nameOf(bytes: Uint8Array): string {
  const reader = new WireReader(bytes);
  return reader.next() && reader.field === 1 ? reader.text() : "";
}

/** A number or truth value among options. */
export function optionOf(options: Uint8Array, field: number): number | undefined {
  const reader = new WireReader(options);
  let value: number | undefined;
  while (reader.next()) {
    if (reader.field === field) value = reader.varint();
    else reader.skip();
  }
  return value;
}

/** The name of a field in JSON, by protoc's rule. */
export function camelCase(snake: string): string {
  return snake.replace(/_+(.?)/g, (_, next: string) => next.toUpperCase());
}

/** Names that every object has are escaped. */
export function safeProperty(name: string): string {
  return name === "constructor" || name === "toString" || name === "toJSON" || name === "valueOf"
    ? `${name}$`
    : name;
}
