import { BuildError } from "@kiln/base";

const INITIAL_SIZE = 1024;
const utf8 = new TextEncoder();

/**
 * Writes protobuf's wire format in the order of the calls. Callers go through the fields by number and leave
 * out zero values, which gives the bytes of Go's deterministic marshalling.
 */
export class WireWriter {
  #bytes = new Uint8Array(INITIAL_SIZE);
  #length = 0;

  /** Empties the writer and keeps its memory. */
  reset(): void {
    this.#length = 0;
  }

  /** A copy of what was written. */
  finish(): Uint8Array {
    return this.#bytes.slice(0, this.#length);
  }

  /** Integer field (int32, int64, uint32, enum); negative numbers take ten bytes. Zero is left out. */
  int(field: number, value: number | bigint | undefined): void {
    if (value === undefined || value === 0 || value === 0n) return;
    this.tag(field, 0);
    this.varint(value);
  }

  /** Boolean field; false is left out. */
  bool(field: number, value: boolean | undefined): void {
    if (value !== true) return;
    this.tag(field, 0);
    this.#byte(1);
  }

  /** String field; the empty string is left out. Throws for lone surrogates, as they have no UTF-8 form. */
  string(field: number, value: string | undefined): void {
    if (value === undefined || value === "") return;
    this.element(field, value);
  }

  /** Bytes field; empty bytes are left out. */
  bytes(field: number, value: Uint8Array | undefined): void {
    if (value === undefined || value.length === 0) return;
    this.tag(field, 2);
    this.varint(value.length);
    this.raw(value);
  }

  /** Repeated string field, with empty elements. */
  strings(field: number, values: readonly string[] | undefined): void {
    if (values === undefined) return;
    for (const value of values) this.element(field, value);
  }

  /** Packed repeated integers. */
  packed(field: number, values: readonly number[] | undefined): void {
    if (values === undefined || values.length === 0) return;
    this.message(field, () => {
      for (const value of values) this.varint(value);
    });
  }

  /** A message field; always written, also when `write` adds nothing. */
  message(field: number, write: () => void): void {
    this.tag(field, 2);
    const start = this.#length;
    this.#byte(0);
    write();
    const size = this.#length - start - 1;
    const extra = varintSize(size) - 1;
    if (extra > 0) {
      this.#reserve(extra);
      this.#bytes.copyWithin(start + 1 + extra, start + 1, this.#length);
    }
    const end = this.#length + extra;
    this.#length = start;
    this.varint(size);
    this.#length = end;
  }

  /** A `map<string, string>` in the order of its keys' UTF-8 bytes. */
  stringMap(field: number, map: ReadonlyMap<string, string> | undefined): void {
    if (map === undefined) return;
    for (const key of sortedKeys(map)) {
      this.message(field, () => {
        this.element(1, key);
        this.element(2, map.get(key)!);
      });
    }
  }

  /** One string, also an empty one. */
  element(field: number, value: string): void {
    this.tag(field, 2);
    const size = value.length;
    this.#reserve(size + 5);
    const start = this.#length;
    const at = start + varintSize(size);
    const bytes = this.#bytes;
    for (let i = 0; i < size; i++) {
      const code = value.charCodeAt(i);
      if (code > 127) {
        this.#wide(value);
        return;
      }
      bytes[at + i] = code;
    }
    this.varint(size);
    this.#length = at + size;
  }

  tag(field: number, type: number): void {
    this.varint(field * 8 + type);
  }

  varint(value: number | bigint): void {
    if (typeof value === "number" && value >= 0) {
      this.#unsigned(value);
      return;
    }
    this.#reserve(10);
    let rest = BigInt.asUintN(64, BigInt(value));
    while (rest > 127n) {
      this.#bytes[this.#length++] = Number(rest & 127n) | 128;
      rest >>= 7n;
    }
    this.#bytes[this.#length++] = Number(rest);
  }

  raw(value: Uint8Array): void {
    this.#reserve(value.length);
    this.#bytes.set(value, this.#length);
    this.#length += value.length;
  }

  #unsigned(value: number): void {
    this.#reserve(10);
    let rest = value;
    while (rest > 127) {
      this.#bytes[this.#length++] = (rest % 128) | 128;
      rest = Math.floor(rest / 128);
    }
    this.#bytes[this.#length++] = rest;
  }

  #wide(value: string): void {
    if (!value.isWellFormed()) {
      throw new BuildError("invalid_argument", "string field contains invalid UTF-8");
    }
    const encoded = utf8.encode(value);
    this.varint(encoded.length);
    this.raw(encoded);
  }

  #byte(value: number): void {
    this.#reserve(1);
    this.#bytes[this.#length++] = value;
  }

  #reserve(size: number): void {
    const needed = this.#length + size;
    if (needed <= this.#bytes.length) return;
    const grown = new Uint8Array(Math.max(needed, this.#bytes.length * 2));
    grown.set(this.#bytes.subarray(0, this.#length));
    this.#bytes = grown;
  }
}

function varintSize(value: number): number {
  let size = 1;
  for (let rest = value; rest > 127; rest = Math.floor(rest / 128)) size++;
  return size;
}

/** Keys in the order of their UTF-8 bytes, which is that of their code points. */
export function sortedKeys(map: ReadonlyMap<string, unknown>): string[] {
  return [...map.keys()].sort(compareUtf8);
}

/** Compares as Go compares strings. */
export function compareUtf8(a: string, b: string): number {
  const length = Math.min(a.length, b.length);
  for (let i = 0; i < length; i++) {
    const x = a.charCodeAt(i);
    const y = b.charCodeAt(i);
    if (x === y) continue;
    // Surrogates stand for code points above all others.
    const xs = x >= 0xd800 && x <= 0xdfff;
    const ys = y >= 0xd800 && y <= 0xdfff;
    if (xs !== ys) return xs ? 1 : -1;
    return x - y;
  }
  return a.length - b.length;
}
