/** Header compression of HTTP/2 (RFC 7541). */
import { huffmanLengths, staticTable } from "./hpack-tables.ts";

/** Names and values in turn; names are lower case. */
export type HeaderLines = string[];

/** Bytes that an entry of the dynamic table costs besides its text. */
const ENTRY_OVERHEAD = 32;
/** Size of the dynamic table unless settings change it; we never change ours. */
const TABLE_BYTES = 4096;
/** An integer that needs more bytes than this is nobody's. */
const MAX_INT_SHIFT = 28;

/** A header block that breaks the rules of HPACK: the connection can't go on. */
export class HpackError extends Error {}

/** A header block that is well formed and larger than allowed. */
export class HeadersTooLarge extends Error {}

/** Reads header blocks of one connection, in order. */
export class HpackDecoder {
  readonly #maxBytes: number;
  readonly #table: [string, string][] = [];
  #tableBytes = 0;
  #limit = TABLE_BYTES;

  /** `maxBytes` bounds the text of one block, with the usual cost of each line. */
  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  /** @throws HpackError for a broken block, HeadersTooLarge for one over the limit (the table is kept right). */
  decode(block: Uint8Array): HeaderLines {
    const input = new BlockReader(block);
    const lines: HeaderLines = [];
    let size = 0;
    let mayResize = true;
    while (!input.done) {
      const first = input.peek();
      if ((first & 0xe0) === 0x20) {
        if (!mayResize) throw new HpackError("a size update within a block");
        this.#resize(input.int(5));
        continue;
      }
      mayResize = false;
      const [name, value] = this.#line(input, first);
      size += name.length + value.length + ENTRY_OVERHEAD;
      if (size <= this.#maxBytes) lines.push(name, value);
    }
    if (size > this.#maxBytes) throw new HeadersTooLarge(`a list of headers of ${size} bytes`);
    return lines;
  }

  #line(input: BlockReader, first: number): readonly [string, string] {
    if (first & 0x80) return this.#at(input.int(7));
    const keeps = (first & 0x40) !== 0;
    const index = input.int(keeps ? 6 : 4);
    const name = index === 0 ? input.text() : this.#at(index)[0];
    const entry: [string, string] = [name, input.text()];
    if (keeps) this.#add(entry);
    return entry;
  }

  #at(index: number): readonly [string, string] {
    const entry =
      index <= staticTable.length ? staticTable[index - 1] : this.#table[index - staticTable.length - 1];
    if (entry === undefined) throw new HpackError(`no header at index ${index}`);
    return entry;
  }

  #add(entry: [string, string]): void {
    this.#table.unshift(entry);
    this.#tableBytes += entrySize(entry);
    this.#evict();
  }

  #resize(bytes: number): void {
    if (bytes > TABLE_BYTES) throw new HpackError("a table larger than allowed");
    this.#limit = bytes;
    this.#evict();
  }

  #evict(): void {
    while (this.#tableBytes > this.#limit)
      this.#tableBytes -= entrySize(this.#table.pop() as [string, string]);
  }
}

function entrySize([name, value]: readonly [string, string]): number {
  return name.length + value.length + ENTRY_OVERHEAD;
}

class BlockReader {
  readonly #bytes: Uint8Array;
  #at = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  get done(): boolean {
    return this.#at >= this.#bytes.length;
  }

  peek(): number {
    const byte = this.#bytes[this.#at];
    if (byte === undefined) throw new HpackError("a block that ends too early");
    return byte;
  }

  int(prefixBits: number): number {
    const mask = (1 << prefixBits) - 1;
    let value = this.peek() & mask;
    this.#at++;
    if (value < mask) return value;
    for (let shift = 0; ; shift += 7) {
      if (shift >= MAX_INT_SHIFT) throw new HpackError("an integer that is too large");
      const byte = this.peek();
      this.#at++;
      value += (byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
  }

  text(): string {
    const isHuffman = (this.peek() & 0x80) !== 0;
    const length = this.int(7);
    const from = this.#at;
    this.#at += length;
    if (this.#at > this.#bytes.length) throw new HpackError("a text that ends too early");
    if (isHuffman) return decodeHuffman(this.#bytes.subarray(from, this.#at));
    return latin1(this.#bytes, from, this.#at);
  }
}

function latin1(bytes: Uint8Array, from: number, to: number): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset + from, to - from).toString("latin1");
}

interface Huffman {
  /** Bytes by code. */
  readonly symbols: Uint8Array;
  /** Per length: the first code, and where its symbols start. */
  readonly first: Int32Array;
  readonly start: Int32Array;
  readonly count: Int32Array;
}

const MAX_CODE_BITS = 30;
let huffman: Huffman | undefined;

function makeHuffman(): Huffman {
  const lengths = Array.from(huffmanLengths, (letter) => letter.charCodeAt(0) - 65);
  const symbols = Uint8Array.from(lengths.keys()).sort(
    (a, b) => (lengths[a] as number) - (lengths[b] as number) || a - b,
  );
  const table = {
    symbols,
    first: new Int32Array(MAX_CODE_BITS + 1),
    start: new Int32Array(MAX_CODE_BITS + 1),
    count: new Int32Array(MAX_CODE_BITS + 1),
  };
  for (const length of lengths) (table.count[length] as number)++;
  let code = 0;
  let start = 0;
  for (let bits = 1; bits <= MAX_CODE_BITS; bits++) {
    code <<= 1;
    table.first[bits] = code;
    table.start[bits] = start;
    code += table.count[bits] as number;
    start += table.count[bits] as number;
  }
  return table;
}

/** @throws HpackError for bytes that are no Huffman code, or that end in more than padding. */
export function decodeHuffman(bytes: Uint8Array): string {
  huffman ??= makeHuffman();
  const { symbols, first, start, count } = huffman;
  const out = Buffer.allocUnsafe(((bytes.length * 8) / 5) | 0);
  let at = 0;
  let code = 0;
  let bits = 0;
  for (const byte of bytes) {
    for (let mask = 0x80; mask !== 0; mask >>= 1) {
      code = (code << 1) | (byte & mask ? 1 : 0);
      bits++;
      const index = code - (first[bits] as number);
      if (index < (count[bits] as number)) {
        out[at++] = symbols[(start[bits] as number) + index] as number;
        code = 0;
        bits = 0;
      } else if (bits === MAX_CODE_BITS) throw new HpackError("an invalid Huffman code");
    }
  }
  if (bits > 7 || code !== (1 << bits) - 1) throw new HpackError("invalid padding of a Huffman code");
  return out.toString("latin1", 0, at);
}

let staticNames: Map<string, number> | undefined;

/** Lines that have an index of their own. */
const WHOLE_LINES: Readonly<Record<string, number>> = {
  ":method POST": 3,
  ":scheme http": 6,
  ":scheme https": 7,
  ":status 200": 8,
};

/**
 * A header block without state: indexed where the static table has a line or a name, literal otherwise. Any peer
 * reads it, whatever its table's size.
 */
export function encodeHeaders(lines: readonly string[]): Buffer {
  if (staticNames === undefined) {
    staticNames = new Map();
    for (const [i, [name]] of staticTable.entries()) if (!staticNames.has(name)) staticNames.set(name, i + 1);
  }
  let size = 0;
  for (const text of lines) size += text.length + 6;
  const out = Buffer.allocUnsafe(size);
  let at = 0;
  for (let i = 0; i + 1 < lines.length; i += 2) {
    const name = lines[i] as string;
    const value = lines[i + 1] as string;
    const whole = name.charCodeAt(0) === 0x3a ? WHOLE_LINES[`${name} ${value}`] : undefined;
    if (whole !== undefined) {
      out[at++] = 0x80 | whole;
      continue;
    }
    const index = staticNames.get(name) ?? 0;
    at = writeInt(out, at, { value: index, bits: 4 });
    if (index === 0) at = writeText(out, at, name);
    at = writeText(out, at, value);
  }
  return out.subarray(0, at);
}

function writeText(out: Buffer, at: number, text: string): number {
  const from = writeInt(out, at, { value: text.length, bits: 7 });
  return from + out.write(text, from, "latin1");
}

function writeInt(out: Buffer, at: number, int: { readonly value: number; readonly bits: number }): number {
  const mask = (1 << int.bits) - 1;
  let to = at;
  if (int.value < mask) {
    out[to++] = int.value;
    return to;
  }
  out[to++] = mask;
  let rest = int.value - mask;
  for (; rest > 0x7f; rest >>>= 7) out[to++] = (rest & 0x7f) | 0x80;
  out[to++] = rest;
  return to;
}
