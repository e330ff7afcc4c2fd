/** One HTTP/2 connection (RFC 9113) over a byte stream that is already open, in either role. */
import type { Duplex } from "node:stream";
import {
  ConnectionError,
  clientPreface,
  defaultMaxFrame,
  defaultWindow,
  type Frame,
  FrameFlag,
  FrameParser,
  FrameType,
  H2Code,
  makeFrame,
  makeGoaway,
  makeNumberFrame,
  makeSettings,
  maxWindow,
  Setting,
  withoutPadding,
} from "./frames.ts";
import { type HeaderLines, HeadersTooLarge, HpackDecoder } from "./hpack.ts";
import { OutputQueue } from "./output-queue.ts";
import { ResetBudget } from "./reset-budget.ts";
import { H2Stream, type StreamOwner, splitHeaders } from "./stream.ts";

/** Limits and events of a connection. */
export interface ConnectionOptions {
  readonly role: "client" | "server";
  /** What one stream may have under way to us. */
  readonly streamWindowBytes: number;
  /** What all streams together may have under way to us. */
  readonly connectionWindowBytes: number;
  /** Largest list of header lines. */
  readonly maxHeaderBytes: number;
  /** Streams that the peer may have open at a time. */
  readonly maxConcurrentStreams: number;
  /** A stream that the peer has opened; its events must be set at once. */
  readonly onStream?: (stream: H2Stream, lines: HeaderLines) => void;
  /** No more streams can be opened; those that are open go on. */
  readonly onGoaway?: () => void;
  /** The connection is gone. Called once. */
  readonly onClose?: (error: Error | undefined) => void;
}

/** Streams that are opened before the peer has told its limit. */
const STREAMS_BEFORE_SETTINGS = 100;

/** A connection. It owns the stream below and destroys it with itself. */
export class H2Connection implements StreamOwner {
  /** Resolves when the connection is gone. */
  readonly gone: Promise<void>;
  readonly #markGone: () => void;
  readonly #socket: Duplex;
  readonly #opts: ConnectionOptions;
  readonly #isServer: boolean;
  readonly #output: OutputQueue;
  readonly #parser = new FrameParser();
  readonly #decoder: HpackDecoder;
  readonly #resets = new ResetBudget();
  readonly #streams = new Map<number, H2Stream>();
  /** Streams that wait until others have ended. */
  readonly #waiting: { stream: H2Stream; lines: readonly string[] }[] = [];
  readonly #pings: ((error: Error | null) => void)[] = [];
  #prefaceLeft: Buffer | undefined;
  #nextId = 1;
  #lastPeerId = 0;
  #peerWindow = defaultWindow;
  #peerMaxFrame = defaultMaxFrame;
  #peerMaxStreams = STREAMS_BEFORE_SETTINGS;
  /** The peer wants to hear that we have no table of headers. */
  #mustClearTable = false;
  #settingsAcknowledged = false;
  #heardSettings = false;
  #receiveWindow: number;
  #unacknowledged = 0;
  #block: { id: number; endStream: boolean; parts: Buffer[]; bytes: number } | undefined;
  #goaway = false;
  #closing = false;
  #destroyed = false;

  constructor(socket: Duplex, opts: ConnectionOptions) {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.gone = promise;
    this.#markGone = resolve;
    this.#socket = socket;
    this.#opts = opts;
    this.#isServer = opts.role === "server";
    this.#decoder = new HpackDecoder(opts.maxHeaderBytes);
    this.#receiveWindow = Math.max(defaultWindow, opts.connectionWindowBytes);
    this.#output = new OutputQueue(socket, (error) => this.destroy(error));
    this.#prefaceLeft = this.#isServer ? clientPreface : undefined;
    socket.on("data", (chunk: Buffer) => this.#onData(chunk));
    socket.on("end", () => this.destroy());
    socket.on("error", (error) => this.destroy(error));
    socket.on("close", () => this.destroy());
    this.#sendPreface();
  }

  /** True once the connection is gone. */
  get destroyed(): boolean {
    return this.#destroyed;
  }

  /** True when no new stream can be opened. */
  get closed(): boolean {
    return this.#destroyed || this.#closing || this.#goaway;
  }

  /** Opens a stream with these header lines. It waits for its turn when the peer takes no more. */
  request(lines: readonly string[]): H2Stream {
    if (this.closed) throw new Error("the connection is closing");
    const stream = new H2Stream(this, { window: this.#opts.streamWindowBytes, isServer: false });
    if (this.#streams.size < this.#peerMaxStreams) this.#open(stream, lines);
    else this.#waiting.push({ stream, lines });
    return stream;
  }

  /** Asks the peer for a sign of life. */
  ping(callback: (error: Error | null) => void): void {
    if (this.#destroyed) {
      callback(new Error("the connection is closed"));
      return;
    }
    this.#pings.push(callback);
    this.sendNow(makeFrame({ type: FrameType.ping }, new Uint8Array(8)));
  }

  /** Takes no new streams; the connection ends when those that are open are over. */
  close(): void {
    if (this.#closing || this.#destroyed) return;
    this.#closing = true;
    this.sendNow(makeGoaway(this.#lastPeerId, H2Code.none, ""));
    this.#endWhenIdle();
  }

  /** Ends the connection at once; open streams fail. */
  destroy(error?: Error): void {
    if (this.#destroyed) return;
    this.#destroyed = true;
    const streams = [...this.#streams.values(), ...this.#waiting.map(({ stream }) => stream)];
    this.#waiting.length = 0;
    for (const stream of streams) stream.finish(H2Code.cancel, error ?? new Error("EOF"));
    this.#streams.clear();
    for (const callback of this.#pings.splice(0)) callback(error ?? new Error("the connection is closed"));
    this.#output.stop();
    this.#socket.destroy();
    this.#markGone();
    this.#opts.onClose?.(error);
  }

  sendNow(frame: Uint8Array): void {
    if (!this.#destroyed) this.#output.control(frame);
  }

  headerFrames(id: number, lines: readonly string[], endStream: boolean): Uint8Array[] {
    const prefix = this.#mustClearTable ? { prefix: Uint8Array.of(0x20) } : {};
    this.#mustClearTable = false;
    return splitHeaders(lines, { id, endStream, maxFrame: this.#peerMaxFrame, ...prefix });
  }

  wantsToSend(stream: H2Stream): void {
    if (!this.#destroyed && stream.id !== 0) this.#output.add(stream);
  }

  forget(stream: H2Stream): void {
    this.#output.remove(stream);
    if (stream.id === 0) {
      const index = this.#waiting.findIndex((entry) => entry.stream === stream);
      if (index >= 0) this.#waiting.splice(index, 1);
      return;
    }
    this.#streams.delete(stream.id);
    if (this.#destroyed) return;
    this.#openWaiting();
    this.#endWhenIdle();
  }

  #sendPreface(): void {
    const { streamWindowBytes, maxConcurrentStreams, maxHeaderBytes, connectionWindowBytes } = this.#opts;
    if (!this.#isServer) this.sendNow(clientPreface);
    this.sendNow(
      makeSettings([
        ...(this.#isServer ? [] : [[Setting.enablePush, 0] as const]),
        [Setting.maxConcurrentStreams, maxConcurrentStreams],
        [Setting.initialWindowSize, streamWindowBytes],
        [Setting.maxHeaderListSize, maxHeaderBytes],
      ]),
    );
    const more = connectionWindowBytes - defaultWindow;
    if (more > 0) this.sendNow(makeNumberFrame(FrameType.windowUpdate, 0, more));
  }

  #open(stream: H2Stream, lines: readonly string[]): void {
    stream.open(this.#nextId, this.#peerWindow);
    this.#nextId += 2;
    this.#streams.set(stream.id, stream);
    for (const frame of this.headerFrames(stream.id, lines, false)) this.sendNow(frame);
    this.#output.add(stream);
  }

  #openWaiting(): void {
    while (this.#waiting.length > 0 && this.#streams.size < this.#peerMaxStreams && !this.#goaway) {
      const { stream, lines } = this.#waiting.shift() as { stream: H2Stream; lines: readonly string[] };
      this.#open(stream, lines);
    }
  }

  #endWhenIdle(): void {
    if (this.#streams.size > 0 || this.#waiting.length > 0 || !(this.#closing || this.#goaway)) return;
    this.#output.flushThen(() => this.destroy());
  }

  #onData(chunk: Buffer): void {
    if (this.#destroyed) return;
    try {
      const rest = this.#prefaceLeft === undefined ? chunk : this.#takePreface(chunk, this.#prefaceLeft);
      if (rest.length > 0) this.#parser.push(rest, this.#onFrame);
    } catch (error) {
      this.#fail(error);
    }
  }

  #takePreface(chunk: Buffer, wanted: Buffer): Buffer {
    const n = Math.min(chunk.length, wanted.length);
    if (!chunk.subarray(0, n).equals(wanted.subarray(0, n)))
      throw new ConnectionError(H2Code.protocol, "no HTTP/2");
    this.#prefaceLeft = n === wanted.length ? undefined : wanted.subarray(n);
    return chunk.subarray(n);
  }

  /** The peer broke the rules: it is told, then the connection ends. */
  #fail(error: unknown): void {
    const code = error instanceof ConnectionError ? error.code : H2Code.compression;
    this.sendNow(makeGoaway(this.#lastPeerId, code, ""));
    this.#output.flushNow();
    this.destroy(error instanceof Error ? error : new Error(String(error)));
  }

  readonly #onFrame = (frame: Frame): void => {
    if (this.#destroyed) return;
    if (this.#block !== undefined && frame.type !== FrameType.continuation)
      throw new ConnectionError(H2Code.protocol, "a frame between parts of a header block");
    switch (frame.type) {
      case FrameType.data:
        this.#onDataFrame(frame);
        break;
      case FrameType.headers:
        this.#onHeadersFrame(frame);
        break;
      case FrameType.continuation:
        this.#onContinuation(frame);
        break;
      case FrameType.reset:
        this.#onReset(frame);
        break;
      case FrameType.settings:
        this.#onSettings(frame);
        break;
      case FrameType.ping:
        this.#onPing(frame);
        break;
      case FrameType.goaway:
        this.#onGoawayFrame(frame);
        break;
      case FrameType.windowUpdate:
        this.#onWindowUpdate(frame);
        break;
      case FrameType.pushPromise:
        throw new ConnectionError(H2Code.protocol, "an unwanted push");
    }
  };

  #onDataFrame(frame: Frame): void {
    const size = frame.payload.length;
    const stream = this.#peerStream(frame.id);
    this.#receiveWindow -= size;
    if (this.#receiveWindow < 0) throw new ConnectionError(H2Code.flowControl, "more data than allowed");
    this.#unacknowledged += size;
    // Streams that nobody reads are held back by their own windows.
    if (this.#unacknowledged >= this.#opts.connectionWindowBytes / 2) {
      this.sendNow(makeNumberFrame(FrameType.windowUpdate, 0, this.#unacknowledged));
      this.#receiveWindow += this.#unacknowledged;
      this.#unacknowledged = 0;
    }
    const data = withoutPadding(frame);
    const endStream = (frame.flags & FrameFlag.endStream) !== 0;
    if (stream?.onData(data, size, endStream) === false) stream.close(H2Code.flowControl);
  }

  /** The stream of a frame, undefined for one that is over. @throws ConnectionError for one that never was. */
  #peerStream(id: number): H2Stream | undefined {
    const stream = this.#streams.get(id);
    if (stream !== undefined) return stream;
    const isOurs = (id & 1) === (this.#isServer ? 0 : 1);
    const wasOpened = isOurs ? id < this.#nextId && !this.#isServer : id <= this.#lastPeerId;
    if (id === 0 || !wasOpened)
      throw new ConnectionError(H2Code.protocol, "a frame for a stream that never was");
    return undefined;
  }

  #onHeadersFrame(frame: Frame): void {
    let block = withoutPadding(frame);
    if ((frame.flags & FrameFlag.priority) !== 0) {
      if (block.length < 5) throw new ConnectionError(H2Code.frameSize, "headers without their priority");
      block = block.subarray(5);
    }
    if (frame.id === 0) throw new ConnectionError(H2Code.protocol, "headers without a stream");
    const endStream = (frame.flags & FrameFlag.endStream) !== 0;
    this.#block = { id: frame.id, endStream, parts: [block], bytes: block.length };
    this.#endBlock(frame);
  }

  #onContinuation(frame: Frame): void {
    const block = this.#block;
    if (block === undefined || block.id !== frame.id)
      throw new ConnectionError(H2Code.protocol, "an unexpected continuation");
    block.parts.push(frame.payload);
    // An empty part counts, too: there may not be any number of them.
    block.bytes += Math.max(frame.payload.length, 32);
    this.#endBlock(frame);
  }

  #endBlock(frame: Frame): void {
    const block = this.#block;
    if (block === undefined) return;
    if (block.bytes > this.#opts.maxHeaderBytes)
      throw new ConnectionError(H2Code.calm, "headers over the limit");
    if ((frame.flags & FrameFlag.endHeaders) === 0) return;
    this.#block = undefined;
    const bytes = block.parts.length === 1 ? (block.parts[0] as Buffer) : Buffer.concat(block.parts);
    let lines: HeaderLines;
    try {
      lines = this.#decoder.decode(bytes);
    } catch (error) {
      if (!(error instanceof HeadersTooLarge)) throw error;
      this.#refuse(block.id, H2Code.calm);
      return;
    }
    const known = this.#streams.get(block.id);
    if (known !== undefined) {
      if (!isInformational(lines)) known.onHeaders(lines, block.endStream);
    } else if (this.#isServer && block.id > this.#lastPeerId) this.#acceptStream(block, lines);
    else this.#peerStream(block.id);
  }

  #refuse(id: number, code: number): void {
    if (this.#isServer && id > this.#lastPeerId && (id & 1) === 1) this.#lastPeerId = id;
    const stream = this.#streams.get(id);
    if (stream !== undefined) stream.close(code);
    else this.sendNow(makeNumberFrame(FrameType.reset, id, code));
  }

  #acceptStream(block: { id: number; endStream: boolean }, lines: HeaderLines): void {
    if ((block.id & 1) === 0) throw new ConnectionError(H2Code.protocol, "a stream with an even number");
    this.#lastPeerId = block.id;
    // A client may not know the limit yet.
    const limit = this.#settingsAcknowledged
      ? this.#opts.maxConcurrentStreams
      : Math.max(this.#opts.maxConcurrentStreams, STREAMS_BEFORE_SETTINGS);
    if (this.#closing || this.#streams.size >= limit) {
      this.#refuse(block.id, H2Code.refused);
      return;
    }
    const stream = new H2Stream(this, { window: this.#opts.streamWindowBytes, isServer: true });
    stream.open(block.id, this.#peerWindow);
    this.#streams.set(stream.id, stream);
    this.#opts.onStream?.(stream, lines);
    if (block.endStream) stream.onData(Buffer.alloc(0), 0, true);
  }

  #onReset(frame: Frame): void {
    if (frame.payload.length !== 4) throw new ConnectionError(H2Code.frameSize, "a reset of a wrong size");
    if (this.#isServer && !this.#resets.take()) throw new ConnectionError(H2Code.calm, "too many resets");
    this.#peerStream(frame.id)?.onReset(frame.payload.readUInt32BE(0));
  }

  #onSettings(frame: Frame): void {
    if (frame.id !== 0) throw new ConnectionError(H2Code.protocol, "settings of a stream");
    if ((frame.flags & FrameFlag.ack) !== 0) {
      this.#settingsAcknowledged = true;
      return;
    }
    const { payload } = frame;
    if (payload.length % 6 !== 0) throw new ConnectionError(H2Code.frameSize, "settings of a wrong size");
    if (!this.#heardSettings) this.#peerMaxStreams = Number.POSITIVE_INFINITY;
    this.#heardSettings = true;
    for (let at = 0; at < payload.length; at += 6)
      this.#applySetting(payload.readUInt16BE(at), payload.readUInt32BE(at + 2));
    this.sendNow(makeFrame({ type: FrameType.settings, flags: FrameFlag.ack }, new Uint8Array(0)));
    this.#openWaiting();
  }

  #applySetting(id: number, value: number): void {
    if (id === Setting.headerTableSize) this.#mustClearTable = true;
    else if (id === Setting.maxConcurrentStreams) this.#peerMaxStreams = value;
    else if (id === Setting.maxFrameSize) {
      if (value < defaultMaxFrame || value > 0xff_ffff)
        throw new ConnectionError(H2Code.protocol, "bad frame size");
      this.#peerMaxFrame = value;
    } else if (id === Setting.initialWindowSize) {
      if (value > maxWindow) throw new ConnectionError(H2Code.flowControl, "a window that is too large");
      const more = value - this.#peerWindow;
      this.#peerWindow = value;
      for (const stream of this.#streams.values()) {
        if (!stream.addSendWindow(more))
          throw new ConnectionError(H2Code.flowControl, "a window that is too large");
        if (more > 0) this.#output.add(stream);
      }
    }
  }

  #onPing(frame: Frame): void {
    if (frame.id !== 0) throw new ConnectionError(H2Code.protocol, "a ping of a stream");
    if (frame.payload.length !== 8) throw new ConnectionError(H2Code.frameSize, "a ping of a wrong size");
    if ((frame.flags & FrameFlag.ack) !== 0) this.#pings.shift()?.(null);
    else this.sendNow(makeFrame({ type: FrameType.ping, flags: FrameFlag.ack }, frame.payload));
  }

  #onGoawayFrame(frame: Frame): void {
    if (frame.payload.length < 8) throw new ConnectionError(H2Code.frameSize, "a goaway of a wrong size");
    const lastId = frame.payload.readUInt32BE(0) & maxWindow;
    const code = frame.payload.readUInt32BE(4);
    const isNew = !this.#goaway;
    this.#goaway = true;
    const lost = this.#isServer ? [] : [...this.#streams.values()].filter((stream) => stream.id > lastId);
    for (const { stream } of this.#waiting.splice(0)) lost.push(stream);
    for (const stream of lost) stream.finish(code === H2Code.none ? H2Code.refused : code);
    if (isNew) this.#opts.onGoaway?.();
    this.#endWhenIdle();
  }

  #onWindowUpdate(frame: Frame): void {
    if (frame.payload.length !== 4) throw new ConnectionError(H2Code.frameSize, "a window of a wrong size");
    const more = frame.payload.readUInt32BE(0) & maxWindow;
    if (frame.id === 0) {
      if (more === 0 || !this.#output.addWindow(more))
        throw new ConnectionError(H2Code.flowControl, "a wrong window update");
      return;
    }
    const stream = this.#peerStream(frame.id);
    if (stream === undefined) return;
    if (more === 0 || !stream.addSendWindow(more)) stream.close(H2Code.flowControl);
    else this.#output.add(stream);
  }
}

function isInformational(lines: HeaderLines): boolean {
  const at = lines.indexOf(":status");
  return at >= 0 && at % 2 === 0 && (lines[at + 1] as string).startsWith("1");
}
