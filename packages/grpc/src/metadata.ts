import { BuildError } from "@kiln/base";

const reserved = new Set([
  "content-type",
  "te",
  "connection",
  "grpc-timeout",
  "grpc-encoding",
  "grpc-accept-encoding",
  "grpc-status",
  "grpc-message",
  "grpc-status-details-bin",
]);

/**
 * Ordered multimap of what travels beside the messages of a call. Keys are lower case; keys that end in
 * `-bin` hold bytes, all others printable ASCII text. Several values of one key stay several lines.
 */
export class Metadata {
  readonly #entries: [string, string | Uint8Array][] = [];

  /** From pairs, or from an object whose values may be lists. */
  static from(init: MetadataInit | undefined): Metadata {
    if (init instanceof Metadata) return init;
    const out = new Metadata();
    if (init === undefined) return out;
    if (Symbol.iterator in init) {
      for (const [key, value] of init) out.append(key, value);
      return out;
    }
    for (const [key, values] of Object.entries(init)) {
      if (values === undefined) continue;
      const list = typeof values === "string" || values instanceof Uint8Array ? [values] : values;
      for (const value of list) out.append(key, value);
    }
    return out;
  }

  /** From names and values in turn. Pseudo headers and gRPC's own are left out. */
  static fromRawHeaders(raw: readonly string[]): Metadata {
    const out = new Metadata();
    for (let i = 0; i + 1 < raw.length; i += 2) {
      const key = (raw[i] as string).toLowerCase();
      if (key.startsWith(":") || reserved.has(key)) continue;
      out.#appendWire(key, raw[i + 1] as string);
    }
    return out;
  }

  #appendWire(key: string, value: string): void {
    if (!key.endsWith("-bin")) {
      this.#entries.push([key, value]);
      return;
    }
    for (const part of value.split(","))
      this.#entries.push([key, new Uint8Array(Buffer.from(part, "base64"))]);
  }

  /**
   * Adds one line. Refuses (`invalid_argument`) keys that HTTP/2 does not allow, gRPC's own keys, and text
   * outside of printable ASCII.
   */
  append(key: string, value: string | Uint8Array): this {
    const name = key.toLowerCase();
    if (!/^[0-9a-z_.-]+$/.test(name))
      throw new BuildError("invalid_argument", `invalid metadata key ${JSON.stringify(key)}`);
    if (reserved.has(name)) throw new BuildError("invalid_argument", `metadata key ${name} is reserved`);
    if (name.endsWith("-bin")) {
      this.#entries.push([name, typeof value === "string" ? new TextEncoder().encode(value) : value]);
      return this;
    }
    if (typeof value !== "string") throw new BuildError("invalid_argument", `metadata ${name} needs text`);
    if (!/^[\x20-\x7e]*$/.test(value)) {
      throw new BuildError("invalid_argument", `metadata ${name} has characters outside of printable ASCII`);
    }
    this.#entries.push([name, value]);
    return this;
  }

  /** First text value of a key. */
  get(key: string): string | undefined {
    for (const [name, value] of this.#entries) if (name === key && typeof value === "string") return value;
    return undefined;
  }

  /** All text values of a key, in order. */
  getAll(key: string): string[] {
    const out: string[] = [];
    for (const [name, value] of this.#entries) if (name === key && typeof value === "string") out.push(value);
    return out;
  }

  /** All values of a `-bin` key, in order. */
  getBinary(key: string): Uint8Array[] {
    const out: Uint8Array[] = [];
    for (const [name, value] of this.#entries) if (name === key && typeof value !== "string") out.push(value);
    return out;
  }

  has(key: string): boolean {
    return this.#entries.some(([name]) => name === key);
  }

  /** All lines in order. */
  entries(): readonly (readonly [string, string | Uint8Array])[] {
    return this.#entries;
  }

  [Symbol.iterator](): Iterator<readonly [string, string | Uint8Array]> {
    return this.#entries[Symbol.iterator]();
  }

  /** A new list: the lines of this one, then those of `other`. */
  concat(other: MetadataInit | undefined): Metadata {
    const out = new Metadata();
    out.#entries.push(...this.#entries, ...Metadata.from(other).#entries);
    return out;
  }
}

/** What {@link Metadata.from} accepts. */
export type MetadataInit =
  | Metadata
  | Iterable<readonly [string, string | Uint8Array]>
  | { readonly [key: string]: string | Uint8Array | readonly (string | Uint8Array)[] | undefined };

/** Header lines by name; of several lines with one name the first. */
export type HeaderBag = Readonly<Record<string, string | undefined>>;

/** Looks up the single-valued headers among names and values in turn. */
export function headerBag(lines: readonly string[]): HeaderBag {
  const bag: Record<string, string> = Object.create(null);
  for (let i = 0; i + 1 < lines.length; i += 2) bag[lines[i] as string] ??= lines[i + 1] as string;
  return bag;
}

/** Names and values in turn; a list of values gives several lines. */
export function headerLines(headers: Readonly<Record<string, string | readonly string[]>>): string[] {
  const lines: string[] = [];
  for (const [name, value] of Object.entries(headers)) {
    if (typeof value === "string") lines.push(name, value);
    else for (const one of value) lines.push(name, one);
  }
  return lines;
}

/** Adds the lines to an object of headers; several values of a key become a list and so several lines. */
export function addToHeaders(headers: Record<string, string | string[]>, metadata: Metadata): void {
  for (const [key, value] of metadata.entries()) {
    const text = typeof value === "string" ? value : Buffer.from(value).toString("base64").replace(/=+$/, "");
    const before = headers[key];
    if (before === undefined) headers[key] = text;
    else if (Array.isArray(before)) before.push(text);
    else headers[key] = [before, text];
  }
}
