/**
 * Descriptors of generated code that come to life when they are used.
 *
 * protobuf-es builds all descriptors of a file, by means of its own descriptor of descriptors, as soon as the
 * generated code is imported. That takes longer than most builds' client needs in all. {@link fileDesc} has the same
 * form and the same result for files of proto3 without extensions, made from the same bytes: an index of a file's
 * types when it is imported, the parts of a type when it is first asked for. The bundles have it in the library's
 * place (`scripts/build.ts`).
 */
import type { DescFile } from "@bufbuild/protobuf";
import { LeanEnum } from "./lean-enum.ts";
import { LeanMessage } from "./lean-message.ts";
import { LeanService } from "./lean-service.ts";
import { WireReader } from "./wire-reader.ts";

const EDITION_PROTO3 = 999;

type TypeDesc = LeanMessage | LeanEnum;

/** Stands for protobuf-es's function of this name. @throws Error for a file that isn't proto3. */
export function fileDesc(base64: string, imports: readonly DescFile[] = []): DescFile {
  return new LeanFile(bytesOf(base64), imports as unknown as readonly LeanFile[]) as unknown as DescFile;
}

function bytesOf(base64: string): Uint8Array {
  const { fromBase64 } = Uint8Array as { fromBase64?(text: string): Uint8Array };
  if (fromBase64 !== undefined) return fromBase64.call(Uint8Array, base64);
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

/** The bytes of a file's descriptor, if {@link fileDesc} made it. */
export function descriptorBytes(file: DescFile): Uint8Array | undefined {
  const lean: unknown = file;
  return lean instanceof LeanFile ? lean.withImports() : undefined;
}

/** A file: an index of its types. */
export class LeanFile {
  readonly kind = "file";
  readonly deprecated = false;
  readonly edition = EDITION_PROTO3;
  readonly name: string;
  readonly dependencies: readonly LeanFile[];
  readonly enums: LeanEnum[] = [];
  readonly messages: LeanMessage[] = [];
  readonly extensions: never[] = [];
  readonly services: LeanService[] = [];
  readonly packageName: string;
  readonly #bytes: Uint8Array;
  readonly #fileName: string;
  #types: Map<string, TypeDesc> | undefined;

  constructor(bytes: Uint8Array, dependencies: readonly LeanFile[]) {
    this.#bytes = bytes;
    this.dependencies = dependencies;
    const reader = new WireReader(bytes);
    let fileName = "";
    let packageName = "";
    let syntax = "";
    while (reader.next()) {
      if (reader.field === 1) fileName = reader.text();
      else if (reader.field === 2) packageName = reader.text();
      else if (reader.field === 4) this.messages.push(new LeanMessage(reader.bytes(), this, undefined));
      else if (reader.field === 5) this.enums.push(new LeanEnum(reader.bytes(), this, undefined));
      else if (reader.field === 6) this.services.push(new LeanService(reader.bytes(), this));
      else if (reader.field === 7) throw new Error(`${fileName}: extensions aren't supported`);
      else if (reader.field === 12) syntax = reader.text();
      else reader.skip();
    }
    if (syntax !== "proto3") throw new Error(`${fileName}: unsupported syntax "${syntax}"`);
    this.#fileName = fileName;
    this.packageName = packageName;
    this.name = fileName.replace(/\.proto$/, "");
  }

  /** Stands for protobuf-es's FileDescriptorProto as far as names go. */
  get proto(): { readonly name: string; readonly package: string } {
    return { name: this.#fileName, package: this.packageName };
  }

  /** The type of a name with a leading dot, of this file or of one that it imports. */
  type(name: string): TypeDesc {
    for (const file of [this, ...this.dependencies]) {
      const found = file.#ownType(name);
      if (found !== undefined) return found;
    }
    throw new Error(`${this.#fileName}: type ${name} not found`);
  }

  /** Looks into no other message than those that the name leads through. */
  #ownType(name: string): TypeDesc | undefined {
    const prefix = this.packageName === "" ? "." : `.${this.packageName}.`;
    if (!name.startsWith(prefix)) return undefined;
    const [first = "", ...inner] = name.slice(prefix.length).split(".");
    let found = this.#topTypes().get(first);
    for (const part of inner) {
      if (!(found instanceof LeanMessage)) return undefined;
      const { nestedMessages, mapEntries, nestedEnums } = found;
      found = [...nestedMessages, ...mapEntries, ...nestedEnums].find((one) => one.name === part);
    }
    return found;
  }

  #topTypes(): ReadonlyMap<string, TypeDesc> {
    this.#types ??= new Map([...this.messages, ...this.enums].map((one) => [one.name, one]));
    return this.#types;
  }

  /** Generated code leaves the names of imports out. */
  withImports(): Uint8Array {
    const names = this.dependencies.map((file) => file.#fileName);
    const fields = names.flatMap((name) => [
      0x1a,
      name.length,
      ...Array.from(name, (letter) => letter.charCodeAt(0)),
    ]);
    const out = new Uint8Array(this.#bytes.length + fields.length);
    out.set(this.#bytes);
    out.set(fields, this.#bytes.length);
    return out;
  }

  toString(): string {
    return `file ${this.#fileName}`;
  }
}
