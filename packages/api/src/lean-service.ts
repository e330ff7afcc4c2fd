/** Services of {@link LeanFile}. */
import type { DescMethod } from "@bufbuild/protobuf";
import type { LeanFile } from "./lean-file.ts";
import type { LeanMessage } from "./lean-message.ts";
import { fullName, nameOf, optionOf, safeProperty } from "./lean-names.ts";
import { WireReader } from "./wire-reader.ts";

interface ServiceParts {
  readonly methods: LeanMethod[];
  readonly method: Record<string, LeanMethod>;
}

/** A service and its methods. */
export class LeanService {
  readonly kind = "service";
  readonly deprecated = false;
  readonly file: LeanFile;
  readonly #bytes: Uint8Array;
  #name: string | undefined;
  #parts: ServiceParts | undefined;

  constructor(bytes: Uint8Array, file: LeanFile) {
    this.#bytes = bytes;
    this.file = file;
  }

  get name(): string {
    this.#name ??= nameOf(this.#bytes);
    return this.#name;
  }

  get typeName(): string {
    return fullName(this.name, this.file, undefined);
  }

  get methods(): LeanMethod[] {
    return this.#read().methods;
  }

  get method(): Record<string, LeanMethod> {
    return this.#read().method;
  }

  #read(): ServiceParts {
    if (this.#parts !== undefined) return this.#parts;
    const parts: ServiceParts = { methods: [], method: {} };
    const reader = new WireReader(this.#bytes);
    while (reader.next()) {
      if (reader.field === 2) {
        const method = new LeanMethod(reader.bytes(), this);
        parts.methods.push(method);
        parts.method[method.localName] = method;
      } else reader.skip();
    }
    this.#parts = parts;
    return parts;
  }

  toString(): string {
    return `service ${this.typeName}`;
  }
}

class LeanMethod {
  readonly kind = "rpc";
  readonly parent: LeanService;
  readonly name: string;
  readonly localName: string;
  readonly methodKind: DescMethod["methodKind"];
  readonly deprecated: boolean;
  readonly idempotency: number;
  readonly #input: string;
  readonly #output: string;

  constructor(bytes: Uint8Array, parent: LeanService) {
    let [name, input, output, clientStreams, serverStreams] = ["", "", "", false, false];
    let [deprecated, idempotency] = [false, 0];
    const reader = new WireReader(bytes);
    while (reader.next()) {
      if (reader.field === 1) name = reader.text();
      else if (reader.field === 2) input = reader.text();
      else if (reader.field === 3) output = reader.text();
      else if (reader.field === 4) {
        const options = reader.bytes();
        deprecated = optionOf(options, 33) === 1;
        idempotency = optionOf(options, 34) ?? 0;
      } else if (reader.field === 5) clientStreams = reader.varint() === 1;
      else if (reader.field === 6) serverStreams = reader.varint() === 1;
      else reader.skip();
    }
    this.parent = parent;
    this.name = name;
    this.localName = safeProperty(name.slice(0, 1).toLowerCase() + name.slice(1));
    this.methodKind = methodKind(clientStreams, serverStreams);
    this.deprecated = deprecated;
    this.idempotency = idempotency;
    this.#input = input;
    this.#output = output;
  }

  get input(): LeanMessage {
    return this.parent.file.type(this.#input) as LeanMessage;
  }

  get output(): LeanMessage {
    return this.parent.file.type(this.#output) as LeanMessage;
  }

  toString(): string {
    return `rpc ${this.parent.typeName}.${this.name}`;
  }
}

function methodKind(clientStreams: boolean, serverStreams: boolean): DescMethod["methodKind"] {
  if (clientStreams) return serverStreams ? "bidi_streaming" : "client_streaming";
  return serverStreams ? "server_streaming" : "unary";
}
