/** One stream of an HTTP/2 connection. */
import { FrameFlag, FrameType, H2Code, makeFrame, makeHead, makeNumberFrame } from "./frames.ts";
import { encodeHeaders, type HeaderLines } from "./hpack.ts";

/** What a stream needs of its connection. */
export interface StreamOwner {
  /** True once nothing is sent or received any more. */
  readonly destroyed: boolean;
  /** Sends frames ahead of all data. */
  sendNow(frame: Uint8Array): void;
  /** Headers as frames; HEADERS and what doesn't fit into it. */
  headerFrames(id: number, lines: readonly string[], endStream: boolean): Uint8Array[];
  /** The stream has data or an end to send. */
  wantsToSend(stream: H2Stream): void;
  /** The stream is over in both directions. */
  forget(stream: H2Stream): void;
}

/** What a user of a stream gets to know. */
export interface StreamEvents {
  /** The first header lines of the peer, on the client's side. */
  onHeaders?(lines: HeaderLines): void;
  onData?(chunk: Uint8Array): void;
  /** Header lines after the data. */
  onTrailers?(lines: HeaderLines): void;
  /** The peer has sent all. */
  onEnd?(): void;
  /** The stream is over; {@link H2Stream.rstCode} tells how. The last event. */
  onClose?(): void;
}

interface Outgoing {
  readonly data: Uint8Array;
  readonly done: (() => void) | undefined;
}

/** Most buffers that one DATA frame is put together from. */
const MAX_PARTS = 64;

/** A stream: data out with flow control, data in with {@link pause} and {@link resume}. */
export class H2Stream {
  /** Given when the stream is opened; 0 while it waits for its turn. */
  id = 0;
  events: StreamEvents = {};
  /** The code of a reset by either side, 0 without one. */
  rstCode: number = H2Code.none;
  /** Why the connection broke while the stream was open. */
  error: Error | undefined;
  readonly connection: StreamOwner;
  readonly #window: number;
  #sendWindow = 0;
  #receiveWindow: number;
  #unacknowledged = 0;
  readonly #outgoing: Outgoing[] = [];
  #sent = 0;
  #endAsked = false;
  #trailers: readonly string[] | undefined;
  #sentEnd = false;
  #heardHeaders: boolean;
  #heardEnd = false;
  #ended = false;
  readonly #incoming: (Uint8Array | HeaderLines)[] = [];
  #paused = false;
  #isDelivering = false;
  #closed = false;
  #finishedClose = false;

  constructor(connection: StreamOwner, opts: { readonly window: number; readonly isServer: boolean }) {
    this.connection = connection;
    this.#window = opts.window;
    this.#receiveWindow = opts.window;
    this.#heardHeaders = opts.isServer;
  }

  /** True when nothing more is sent or received on it. */
  get closed(): boolean {
    return this.#closed;
  }

  /** True when the peer has sent all and it has been delivered. */
  get ended(): boolean {
    return this.#ended;
  }

  /** Queues data; `done` is called when the connection has taken it, or the stream is over. */
  write(data: Uint8Array, done?: () => void): void {
    if (this.#closed || this.#endAsked) {
      if (done) queueMicrotask(done);
      return;
    }
    this.#outgoing.push({ data, done });
    this.connection.wantsToSend(this);
  }

  /** No more data after what is queued; with `trailers` those end the stream. */
  end(trailers?: readonly string[]): void {
    if (this.#closed || this.#endAsked) return;
    this.#endAsked = true;
    this.#trailers = trailers;
    this.connection.wantsToSend(this);
  }

  /** The server's header lines; with `endStream` they are all of the answer. */
  respond(lines: readonly string[], opts: { readonly endStream?: boolean } = {}): void {
    if (this.#closed || this.#endAsked) return;
    const endStream = opts.endStream === true;
    for (const frame of this.connection.headerFrames(this.id, lines, endStream))
      this.connection.sendNow(frame);
    if (!endStream) return;
    this.#endAsked = true;
    this.#markSentEnd();
  }

  /** Resets the stream. What is queued is dropped in both directions. */
  close(code: number): void {
    if (this.#closed) return;
    if (this.id !== 0 && !(this.#sentEnd && this.#heardEnd))
      this.connection.sendNow(makeNumberFrame(FrameType.reset, this.id, code));
    this.#incoming.length = 0;
    this.finish(code);
  }

  /** Keeps what comes until {@link resume}. The peer is stopped when its window is full. */
  pause(): void {
    this.#paused = true;
  }

  resume(): void {
    if (!this.#paused) return;
    this.#paused = false;
    process.nextTick(() => this.#deliver());
  }

  // What follows is the connection's side.

  /** The stream's turn has come. */
  open(id: number, sendWindow: number): void {
    this.id = id;
    this.#sendWindow = sendWindow;
  }

  /** The next DATA frame of at most `maxBytes`, or the trailers; undefined when nothing can be sent now. */
  takeFrame(maxBytes: number): { parts: Uint8Array[]; bytes: number; done: (() => void)[] } | undefined {
    if (this.#closed || this.#sentEnd || this.id === 0) return undefined;
    const parts: Uint8Array[] = [];
    const done: (() => void)[] = [];
    const limit = Math.min(maxBytes, Math.max(0, this.#sendWindow));
    let bytes = 0;
    let used = 0;
    while (used < this.#outgoing.length && parts.length < MAX_PARTS) {
      const { data, done: onTaken } = this.#outgoing[used] as Outgoing;
      const n = Math.min(data.length - this.#sent, limit - bytes);
      if (n > 0) parts.push(data.subarray(this.#sent, this.#sent + n));
      bytes += n;
      this.#sent += n;
      if (this.#sent < data.length) break;
      if (onTaken) done.push(onTaken);
      this.#sent = 0;
      used++;
    }
    this.#outgoing.splice(0, used);
    this.#sendWindow -= bytes;
    const isLast = this.#endAsked && this.#outgoing.length === 0;
    if (bytes === 0 && !isLast) return used === 0 ? undefined : { parts: [], bytes: 0, done };
    if (bytes > 0 || this.#trailers === undefined) {
      const flags = isLast && this.#trailers === undefined ? FrameFlag.endStream : 0;
      parts.unshift(makeHead({ type: FrameType.data, flags, id: this.id, length: bytes }));
    }
    if (isLast) {
      if (this.#trailers !== undefined)
        parts.push(...this.connection.headerFrames(this.id, this.#trailers, true));
      this.#markSentEnd();
    }
    return { parts, bytes, done };
  }

  /** True while there is something that only waits for its turn. */
  get canSend(): boolean {
    if (this.#closed || this.#sentEnd || this.id === 0) return false;
    const head = this.#outgoing[0];
    if (head === undefined) return this.#endAsked;
    return this.#sendWindow > 0 || head.data.length === 0;
  }

  /** The peer lets more be sent, or less. Returns false when the window overflows. */
  addSendWindow(bytes: number): boolean {
    this.#sendWindow += bytes;
    return this.#sendWindow <= 0x7fff_ffff;
  }

  /** Header lines have come. */
  onHeaders(lines: HeaderLines, endStream: boolean): void {
    if (this.#closed || this.#heardEnd) return;
    if (endStream) this.#heardEnd = true;
    this.#incoming.push(lines);
    this.#deliver();
  }

  /** Data has come. `size` counts for flow control. Returns false when the peer has sent more than it may. */
  onData(data: Uint8Array, size: number, endStream: boolean): boolean {
    if (this.#closed || this.#heardEnd) return true;
    this.#receiveWindow -= size;
    if (this.#receiveWindow < 0) return false;
    if (endStream) this.#heardEnd = true;
    this.#acknowledge(size - data.length);
    if (data.length > 0) this.#incoming.push(data);
    this.#deliver();
    return true;
  }

  /** The peer has reset the stream. What came before a complete end is still delivered. */
  onReset(code: number): void {
    if (this.#closed) return;
    if (this.#heardEnd && code === H2Code.none && this.#incoming.length > 0) {
      this.rstCode = code;
      this.#dropOutgoing();
      this.#markSentEnd();
      return;
    }
    this.finish(code);
  }

  /** Ends the stream with a code; events other than the close don't come any more. */
  finish(code: number, error?: Error): void {
    if (this.#closed) return;
    this.#closed = true;
    this.rstCode = code;
    this.error = error;
    this.#dropOutgoing();
    this.connection.forget(this);
    process.nextTick(() => {
      if (this.#finishedClose) return;
      this.#finishedClose = true;
      this.events.onClose?.();
    });
  }

  #dropOutgoing(): void {
    const dropped = this.#outgoing.splice(0);
    for (const { done } of dropped) done?.();
  }

  #markSentEnd(): void {
    this.#sentEnd = true;
    this.#endAsked = true;
    this.#closeWhenOver();
  }

  #closeWhenOver(): void {
    if (this.#sentEnd && this.#ended && !this.#closed) this.finish(this.rstCode);
  }

  #deliver(): void {
    if (this.#isDelivering) return;
    this.#isDelivering = true;
    while (!this.#paused && !this.#closed && this.#incoming.length > 0) {
      const item = this.#incoming.shift() as Uint8Array | HeaderLines;
      if (item instanceof Uint8Array) {
        this.#acknowledge(item.length);
        this.events.onData?.(item);
      } else if (this.#heardHeaders) this.events.onTrailers?.(item);
      else {
        this.#heardHeaders = true;
        this.events.onHeaders?.(item);
      }
    }
    this.#isDelivering = false;
    if (this.#closed || this.#ended || !this.#heardEnd || this.#incoming.length > 0) return;
    this.#ended = true;
    this.events.onEnd?.();
    this.#closeWhenOver();
  }

  /** Tells the peer about room, in large steps. */
  #acknowledge(bytes: number): void {
    this.#unacknowledged += bytes;
    if (this.#heardEnd || this.#unacknowledged < this.#window / 2) return;
    this.#receiveWindow += this.#unacknowledged;
    this.connection.sendNow(makeNumberFrame(FrameType.windowUpdate, this.id, this.#unacknowledged));
    this.#unacknowledged = 0;
  }
}

/** Header lines as frames of at most `maxFrame` bytes of payload. */
export function splitHeaders(
  lines: readonly string[],
  opts: {
    readonly id: number;
    readonly endStream: boolean;
    readonly maxFrame: number;
    readonly prefix?: Uint8Array;
  },
): Buffer[] {
  const encoded = encodeHeaders(lines);
  const block = opts.prefix === undefined ? encoded : Buffer.concat([opts.prefix, encoded]);
  const frames: Buffer[] = [];
  for (let at = 0; at === 0 || at < block.length; at += opts.maxFrame) {
    const part = block.subarray(at, at + opts.maxFrame);
    const isFirst = at === 0;
    const flags =
      (isFirst && opts.endStream ? FrameFlag.endStream : 0) |
      (at + opts.maxFrame >= block.length ? FrameFlag.endHeaders : 0);
    frames.push(
      makeFrame({ type: isFirst ? FrameType.headers : FrameType.continuation, flags, id: opts.id }, part),
    );
  }
  return frames;
}
