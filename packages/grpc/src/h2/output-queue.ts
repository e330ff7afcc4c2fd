/** What a connection sends: frames without flow control first, then data of its streams in turn. */
import type { Duplex } from "node:stream";
import { defaultWindow, headBytes, maxWindow } from "./frames.ts";
import type { H2Stream } from "./stream.ts";

/** Data that is handed over at a time; then the stream below is asked whether it wants more. */
const BATCH_BYTES = 256 << 10;
/** Frames up to this size in all are put together into one buffer. */
const JOIN_BYTES = 32 << 10;
/** Largest data frame that is sent, whatever the peer allows. */
const FRAME_BYTES = 16 << 10;
/** Answers that a peer may leave unread before it is given up. */
const MAX_CONTROL_BYTES = 4 << 20;

/** Collects what is sent in one turn of the event loop and writes it at once. */
export class OutputQueue {
  readonly #socket: Duplex;
  readonly #onFailure: (error: Error) => void;
  #control: Uint8Array[] = [];
  #controlBytes = 0;
  readonly #streams = new Set<H2Stream>();
  #window = defaultWindow;
  #isScheduled = false;
  #isBlocked = false;
  #stopped = false;
  #whenFlushed: (() => void) | undefined;

  constructor(socket: Duplex, onFailure: (error: Error) => void) {
    this.#socket = socket;
    this.#onFailure = onFailure;
    socket.on("drain", () => {
      this.#isBlocked = false;
      this.#schedule();
    });
  }

  /** A frame that goes ahead of all data. */
  control(frame: Uint8Array): void {
    this.#control.push(frame);
    this.#controlBytes += frame.length;
    if (this.#controlBytes > MAX_CONTROL_BYTES && this.#isBlocked) {
      this.#onFailure(new Error("the peer doesn't read"));
      return;
    }
    this.#schedule();
  }

  /** A stream has something to send. */
  add(stream: H2Stream): void {
    this.#streams.add(stream);
    this.#schedule();
  }

  remove(stream: H2Stream): void {
    this.#streams.delete(stream);
  }

  /** The peer takes more. Returns false when the window overflows. */
  addWindow(bytes: number): boolean {
    this.#window += bytes;
    this.#schedule();
    return this.#window <= maxWindow;
  }

  /** Calls `done` when all that is queued has been handed over. */
  flushThen(done: () => void): void {
    this.#whenFlushed = done;
    this.#schedule();
  }

  /** Writes now, whatever the stream below says. */
  flushNow(): void {
    this.#isBlocked = false;
    this.#flush();
  }

  /** Writes no more. */
  stop(): void {
    this.#stopped = true;
    this.#control = [];
    this.#streams.clear();
  }

  #schedule(): void {
    if (this.#isScheduled || this.#isBlocked || this.#stopped) return;
    this.#isScheduled = true;
    process.nextTick(() => {
      this.#isScheduled = false;
      this.#flush();
    });
  }

  #flush(): void {
    while (!this.#isBlocked && !this.#stopped) {
      const parts = this.#control;
      let bytes = this.#controlBytes;
      this.#control = [];
      this.#controlBytes = 0;
      const done: (() => void)[] = [];
      bytes += this.#takeData(parts, done);
      if (parts.length === 0 && done.length === 0) break;
      this.#write(parts, { bytes, done });
    }
    const whenFlushed = this.#whenFlushed;
    if (whenFlushed === undefined || this.#stopped || this.#control.length > 0) return;
    this.#whenFlushed = undefined;
    // An empty write comes after all others.
    this.#socket.write(Buffer.alloc(0), () => whenFlushed());
  }

  /** Data of all streams in turn, up to a batch. Returns how many bytes. */
  #takeData(parts: Uint8Array[], done: (() => void)[]): number {
    let bytes = 0;
    for (let tookAny = true; tookAny && bytes < BATCH_BYTES; ) {
      tookAny = false;
      for (const stream of this.#streams) {
        const frame = stream.takeFrame(Math.min(this.#window, FRAME_BYTES));
        if (frame !== undefined) {
          for (const part of frame.parts) parts.push(part);
          for (const onTaken of frame.done) done.push(onTaken);
          this.#window -= frame.bytes;
          bytes += frame.bytes + headBytes;
          tookAny = true;
        }
        // One that waits for its window is added again with it.
        if (!stream.canSend) this.#streams.delete(stream);
      }
      if (this.#window <= 0) break;
    }
    return bytes;
  }

  #write(
    parts: Uint8Array[],
    opts: { readonly bytes: number; readonly done: readonly (() => void)[] },
  ): void {
    const { bytes, done } = opts;
    const onWritten = done.length === 0 ? undefined : () => callAll(done);
    const socket = this.#socket;
    if (socket.destroyed || socket.writableEnded) {
      onWritten?.();
      return;
    }
    const joined = bytes <= JOIN_BYTES && parts.length > 1 ? [Buffer.concat(parts)] : parts;
    const last = joined.length - 1;
    if (last > 0) socket.cork();
    for (const [i, part] of joined.entries()) socket.write(part, i === last ? onWritten : undefined);
    if (last < 0) onWritten?.();
    if (last > 0) socket.uncork();
    this.#isBlocked = socket.writableNeedDrain;
  }
}

function callAll(callbacks: readonly (() => void)[]): void {
  for (const callback of callbacks) callback();
}
