import { gunzipSync } from "node:zlib";
import { BuildError } from "@kiln/base";
import type { H2Stream } from "./h2/stream.ts";

/** Bytes that may wait in a stream's send queue before {@link MessageWriter.send} makes the caller wait. */
const sendWindowBytes = 1 << 20;
/** Bytes of parsed messages that wait for a reader before the stream is paused. */
const receiveQueueBytes = 512 << 10;
/** What a queued message costs beside its bytes. */
const messageOverheadBytes = 128;
/** Messages below this size are copied behind their prefix and written at once. */
const copyBelowBytes = 16 << 10;

/** Writes length-prefixed messages to a stream, with back-pressure. */
export class MessageWriter {
  readonly #stream: H2Stream;
  readonly #maxBytes: number;
  #inFlight = 0;
  #waiting: (() => void)[] = [];
  #failure: unknown;
  #failed = false;

  constructor(stream: H2Stream, maxBytes: number) {
    this.#stream = stream;
    this.#maxBytes = maxBytes;
  }

  /** Queues one message; resolves when the next one may be queued. Rejects after {@link fail}. */
  send(message: Uint8Array): Promise<void> {
    if (this.#failed) return Promise.reject(this.#failure);
    if (message.length > this.#maxBytes) {
      return Promise.reject(
        new BuildError(
          "resource_exhausted",
          `trying to send message larger than max (${message.length} vs. ${this.#maxBytes})`,
        ),
      );
    }
    const total = message.length + messageOverheadBytes;
    this.#inFlight += total;
    const done = (): void => {
      this.#inFlight -= total;
      if (this.#inFlight < sendWindowBytes) this.#wake();
    };
    this.#write(message, done);
    if (this.#inFlight < sendWindowBytes) return Promise.resolve();
    return this.#wait();
  }

  #write(message: Uint8Array, done: () => void): void {
    const stream = this.#stream;
    if (message.length < copyBelowBytes) {
      const frame = Buffer.allocUnsafe(5 + message.length);
      frame[0] = 0;
      frame.writeUInt32BE(message.length, 1);
      frame.set(message, 5);
      stream.write(frame, done);
      return;
    }
    const prefix = Buffer.alloc(5);
    prefix.writeUInt32BE(message.length, 1);
    stream.write(prefix);
    stream.write(message, done);
  }

  async #wait(): Promise<void> {
    while (this.#inFlight >= sendWindowBytes && !this.#failed) {
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    }
    if (this.#failed) throw this.#failure;
  }

  #wake(): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const resolve of waiting) resolve();
  }

  /** No more sends: those that wait and those to come reject with `error`. */
  fail(error: unknown): void {
    if (this.#failed) return;
    this.#failed = true;
    this.#failure = error;
    this.#wake();
  }
}

/** Where a {@link MessageReader} gets to know how its stream ended. */
export interface ReaderOptions {
  /** Largest message, also after decompression. */
  readonly maxBytes: number;
  /** The peer's `grpc-encoding`, asked for when the first compressed message comes. */
  readonly encoding: () => string | undefined;
}

/** Takes a stream apart into messages, pausing it while nobody reads. */
export class MessageReader {
  readonly #stream: H2Stream;
  readonly #opts: ReaderOptions;
  #chunks: Uint8Array[] = [];
  #have = 0;
  #need = -1;
  #compressed = false;
  readonly #queue: Uint8Array[] = [];
  #queuedBytes = 0;
  #paused = false;
  #end: { readonly error: unknown } | undefined;
  #waiting: { resolve(message: Uint8Array | undefined): void; reject(error: unknown): void } | undefined;

  constructor(stream: H2Stream, opts: ReaderOptions) {
    this.#stream = stream;
    this.#opts = opts;
    stream.events.onData = (chunk) => this.#onData(chunk);
  }

  /** True between messages: nothing of a next one has come. */
  get atBoundary(): boolean {
    return this.#have === 0 && this.#need < 0;
  }

  /** The next message, undefined at the end. One call at a time. */
  next(): Promise<Uint8Array | undefined> {
    const message = this.#queue.shift();
    if (message !== undefined) {
      this.#queuedBytes -= message.length + messageOverheadBytes;
      if (this.#paused && this.#queuedBytes < receiveQueueBytes / 2) {
        this.#paused = false;
        this.#stream.resume();
      }
      return Promise.resolve(message);
    }
    if (this.#end) {
      return this.#end.error === undefined ? Promise.resolve(undefined) : Promise.reject(this.#end.error);
    }
    if (this.#waiting) return Promise.reject(new Error("two reads of one stream at the same time"));
    return new Promise((resolve, reject) => {
      this.#waiting = { resolve, reject };
    });
  }

  /** No more messages after those that have come; `error` undefined is a clean end. */
  finish(error?: unknown): void {
    if (this.#end) return;
    this.#end = { error };
    this.#chunks = [];
    const waiting = this.#waiting;
    this.#waiting = undefined;
    if (error === undefined) waiting?.resolve(undefined);
    else waiting?.reject(error);
  }

  /** Ends at once; messages that wait are dropped. */
  abort(error: unknown): void {
    this.#queue.length = 0;
    this.#queuedBytes = 0;
    this.finish(error);
    this.discard();
  }

  /** Lets the rest of the stream flow away unread. */
  discard(): void {
    this.#paused = false;
    this.#stream.resume();
  }

  #onData(chunk: Uint8Array): void {
    if (this.#end) return;
    this.#chunks.push(chunk);
    this.#have += chunk.length;
    try {
      this.#parse();
    } catch (error) {
      this.finish(error);
      return;
    }
    if (this.#queuedBytes > receiveQueueBytes && !this.#paused) {
      this.#paused = true;
      this.#stream.pause();
    }
  }

  #parse(): void {
    for (;;) {
      if (this.#need < 0) {
        if (this.#have < 5) return;
        const prefix = this.#take(5);
        const flag = prefix[0] as number;
        if (flag > 1) throw new BuildError("internal", `invalid message flag ${flag}`);
        this.#compressed = flag === 1;
        this.#need = new DataView(prefix.buffer, prefix.byteOffset, 5).getUint32(1);
        if (this.#need > this.#opts.maxBytes) throw tooLarge(this.#need, this.#opts.maxBytes);
      }
      if (this.#have < this.#need) return;
      const message = this.#take(this.#need);
      this.#need = -1;
      this.#deliver(this.#compressed ? this.#inflate(message) : message);
    }
  }

  #take(bytes: number): Uint8Array {
    if (bytes === 0) return new Uint8Array(0);
    this.#have -= bytes;
    const head = this.#chunks[0] as Uint8Array;
    if (head.length > bytes) {
      this.#chunks[0] = head.subarray(bytes);
      return head.subarray(0, bytes);
    }
    if (head.length === bytes) {
      this.#chunks.shift();
      return head;
    }
    const out = Buffer.allocUnsafe(bytes);
    let at = 0;
    let used = 0;
    while (at < bytes) {
      const chunk = this.#chunks[used] as Uint8Array;
      const n = Math.min(chunk.length, bytes - at);
      out.set(n === chunk.length ? chunk : chunk.subarray(0, n), at);
      at += n;
      if (n === chunk.length) used++;
      else this.#chunks[used] = chunk.subarray(n);
    }
    this.#chunks.splice(0, used);
    return out;
  }

  #inflate(message: Uint8Array): Uint8Array {
    const encoding = this.#opts.encoding();
    if (encoding === undefined || encoding === "identity") {
      throw new BuildError("internal", "compressed message without grpc-encoding");
    }
    if (encoding !== "gzip") {
      throw new BuildError(
        "unimplemented",
        `grpc: Decompressor is not installed for grpc-encoding "${encoding}"`,
      );
    }
    try {
      return gunzipSync(message, { maxOutputLength: this.#opts.maxBytes });
    } catch (error) {
      const code = error instanceof Error && "code" in error ? error.code : undefined;
      if (code === "ERR_BUFFER_TOO_LARGE") throw tooLarge(this.#opts.maxBytes + 1, this.#opts.maxBytes);
      throw new BuildError("internal", "grpc: failed to decompress the received message", { cause: error });
    }
  }

  #deliver(message: Uint8Array): void {
    const waiting = this.#waiting;
    if (waiting) {
      this.#waiting = undefined;
      waiting.resolve(message);
      return;
    }
    this.#queue.push(message);
    this.#queuedBytes += message.length + messageOverheadBytes;
  }
}

function tooLarge(size: number, max: number): BuildError {
  return new BuildError("resource_exhausted", `grpc: received message larger than max (${size} vs. ${max})`);
}
