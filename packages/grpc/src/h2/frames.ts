/** Frames of HTTP/2 (RFC 9113): their layout, and taking a byte stream apart into them. */

/** Types of frames. */
export const FrameType = {
  data: 0,
  headers: 1,
  priority: 2,
  reset: 3,
  settings: 4,
  pushPromise: 5,
  ping: 6,
  goaway: 7,
  windowUpdate: 8,
  continuation: 9,
} as const;

/** Flags of frames; the same bit means different things in different types. */
export const FrameFlag = { ack: 1, endStream: 1, endHeaders: 4, padded: 8, priority: 0x20 } as const;

/** Error codes of resets and of GOAWAY. */
export const H2Code = {
  none: 0,
  protocol: 1,
  internal: 2,
  flowControl: 3,
  frameSize: 6,
  refused: 7,
  cancel: 8,
  compression: 9,
  calm: 11,
} as const;

/** Identifiers of settings. */
export const Setting = {
  headerTableSize: 1,
  enablePush: 2,
  maxConcurrentStreams: 3,
  initialWindowSize: 4,
  maxFrameSize: 5,
  maxHeaderListSize: 6,
} as const;

/** What a client sends before its first frame. */
export const clientPreface: Buffer = Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "latin1");

/** Bytes of a frame's head. */
export const headBytes = 9;
/** Largest payload that we take, and send unless the peer allows more. */
export const defaultMaxFrame = 16_384;
/** Flow-control window unless settings say otherwise. */
export const defaultWindow = 65_535;
/** Largest flow-control window. */
export const maxWindow = 0x7fff_ffff;

/** The peer broke the rules: the whole connection ends with this code. */
export class ConnectionError extends Error {
  readonly code: number;

  constructor(code: number, message: string) {
    super(message);
    this.code = code;
  }
}

/** One frame as it came. */
export interface Frame {
  readonly type: number;
  readonly flags: number;
  readonly id: number;
  readonly payload: Buffer;
}

/** A frame with its payload. */
export function makeFrame(head: { type: number; flags?: number; id?: number }, payload: Uint8Array): Buffer {
  const out = Buffer.allocUnsafe(headBytes + payload.length);
  writeHead(out, { type: head.type, flags: head.flags ?? 0, id: head.id ?? 0, length: payload.length });
  out.set(payload, headBytes);
  return out;
}

/** The head alone, of a payload that follows. */
export function makeHead(head: { type: number; flags: number; id: number; length: number }): Buffer {
  const out = Buffer.allocUnsafe(headBytes);
  writeHead(out, head);
  return out;
}

function writeHead(out: Buffer, head: { type: number; flags: number; id: number; length: number }): void {
  out[0] = head.length >>> 16;
  out[1] = head.length >>> 8;
  out[2] = head.length;
  out[3] = head.type;
  out[4] = head.flags;
  out.writeUInt32BE(head.id, 5);
}

/** A frame whose payload is one 32-bit number: a reset or a window update. */
export function makeNumberFrame(type: number, id: number, value: number): Buffer {
  const payload = Buffer.allocUnsafe(4);
  payload.writeUInt32BE(value);
  return makeFrame({ type, id }, payload);
}

/** The settings of this side. */
export function makeSettings(settings: readonly (readonly [id: number, value: number])[]): Buffer {
  const payload = Buffer.allocUnsafe(settings.length * 6);
  for (const [i, [id, value]] of settings.entries()) {
    payload.writeUInt16BE(id, i * 6);
    payload.writeUInt32BE(value, i * 6 + 2);
  }
  return makeFrame({ type: FrameType.settings }, payload);
}

/** The last frame of a connection. */
export function makeGoaway(lastId: number, code: number, text: string): Buffer {
  const reason = Buffer.from(text, "latin1");
  const payload = Buffer.allocUnsafe(8 + reason.length);
  payload.writeUInt32BE(lastId, 0);
  payload.writeUInt32BE(code, 4);
  payload.set(reason, 8);
  return makeFrame({ type: FrameType.goaway }, payload);
}

/** The payload without padding. @throws ConnectionError for padding that is longer than the payload. */
export function withoutPadding(frame: Frame): Buffer {
  if ((frame.flags & FrameFlag.padded) === 0) return frame.payload;
  const padding = frame.payload[0];
  if (padding === undefined || padding >= frame.payload.length)
    throw new ConnectionError(H2Code.protocol, "padding longer than its frame");
  return frame.payload.subarray(1, frame.payload.length - padding);
}

/** Takes chunks of a byte stream apart; payloads that came whole aren't copied. */
export class FrameParser {
  readonly #head = Buffer.allocUnsafe(headBytes);
  #headFill = 0;
  #payload: Buffer | undefined;
  #payloadFill = 0;
  #length = 0;

  /** Calls `onFrame` for each frame that is complete. @throws ConnectionError for one that is too large. */
  push(chunk: Buffer, onFrame: (frame: Frame) => void): void {
    let at = 0;
    while (at < chunk.length || (this.#headFill === headBytes && this.#length === 0)) {
      if (this.#headFill < headBytes) {
        const n = Math.min(headBytes - this.#headFill, chunk.length - at);
        chunk.copy(this.#head, this.#headFill, at, at + n);
        this.#headFill += n;
        at += n;
        if (this.#headFill < headBytes) return;
        this.#length = this.#head.readUIntBE(0, 3);
        if (this.#length > defaultMaxFrame)
          throw new ConnectionError(H2Code.frameSize, "a frame larger than allowed");
        if (this.#length > chunk.length - at) this.#payload = Buffer.allocUnsafe(this.#length);
        continue;
      }
      if (this.#payload === undefined) {
        const payload = chunk.subarray(at, at + this.#length);
        at += this.#length;
        this.#emit(payload, onFrame);
        continue;
      }
      const n = Math.min(this.#length - this.#payloadFill, chunk.length - at);
      chunk.copy(this.#payload, this.#payloadFill, at, at + n);
      this.#payloadFill += n;
      at += n;
      if (this.#payloadFill === this.#length) this.#emit(this.#payload, onFrame);
    }
  }

  #emit(payload: Buffer, onFrame: (frame: Frame) => void): void {
    const head = this.#head;
    const frame = {
      type: head[3] as number,
      flags: head[4] as number,
      id: head.readUInt32BE(5) & 0x7fff_ffff,
      payload,
    };
    this.#headFill = 0;
    this.#payload = undefined;
    this.#payloadFill = 0;
    onFrame(frame);
  }
}
