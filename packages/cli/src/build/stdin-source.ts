import { Readable } from "node:stream";
import { BuildError } from "@kiln/base";

/** Bytes that are looked at to tell an archive from a Dockerfile: two tar headers. */
const PEEK_BYTES = 1024;

/** Standard input, of which the beginning can be looked at before it's used once. */
export class StdinSource {
  readonly #input: AsyncIterator<Uint8Array>;
  #head: Uint8Array[] = [];
  #headSize = 0;
  #ended = false;

  constructor(input: AsyncIterable<Uint8Array | string>) {
    this.#input = toBytes(input);
  }

  /** The first KiB, less when there is less. */
  async peek(): Promise<Uint8Array> {
    while (!this.#ended && this.#headSize < PEEK_BYTES) await this.#more();
    return Buffer.concat(this.#head).subarray(0, PEEK_BYTES);
  }

  async #more(): Promise<void> {
    const next = await this.#input.next();
    if (next.done) {
      this.#ended = true;
      return;
    }
    this.#head.push(next.value);
    this.#headSize += next.value.length;
  }

  /** Everything. @throws BuildError when it's larger than `maxBytes`. */
  async readAll(maxBytes: number): Promise<Uint8Array> {
    while (!this.#ended) {
      if (this.#headSize > maxBytes) {
        throw new BuildError("resource_exhausted", `standard input is larger than ${maxBytes} bytes`);
      }
      await this.#more();
    }
    return Buffer.concat(this.#head);
  }

  /** Everything, as a stream. */
  stream(): Readable {
    const head = this.#head;
    const input = this.#input;
    async function* read(): AsyncGenerator<Uint8Array> {
      yield* head;
      for (let next = await input.next(); !next.done; next = await input.next()) yield next.value;
    }
    return Readable.from(read(), { objectMode: false });
  }
}

async function* toBytes(input: AsyncIterable<Uint8Array | string>): AsyncGenerator<Uint8Array> {
  for await (const chunk of input) yield typeof chunk === "string" ? Buffer.from(chunk) : chunk;
}

const MAGICS: readonly (readonly number[])[] = [
  [0x42, 0x5a, 0x68],
  [0x1f, 0x8b, 0x08],
  [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00],
];

/** True for the beginning of a tar archive, plain or compressed by gzip, bzip2 or xz. */
export function isArchive(head: Uint8Array): boolean {
  return MAGICS.some((magic) => magic.every((byte, i) => head[i] === byte)) || isTarHeader(head);
}

function isTarHeader(head: Uint8Array): boolean {
  if (head.length < 512) return false;
  const text = Buffer.from(head.subarray(148, 156)).toString("latin1");
  const stored = Number.parseInt(text.replace(/[\0 ].*$/, "").trim() || text.trim(), 8);
  let sum = 0;
  for (let i = 0; i < 512; i++) sum += i >= 148 && i < 156 ? 0x20 : (head[i] as number);
  return Number.isInteger(stored) && stored === sum;
}
