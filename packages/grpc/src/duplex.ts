import { Duplex } from "node:stream";

/** What a byte stream needs of a call whose messages are chunks of bytes. */
export interface MessageDuplex {
  /** The next chunk, undefined at the end. */
  receive(): Promise<Uint8Array | undefined>;
  /** Sends a chunk; resolves when the next may be sent. */
  send(chunk: Uint8Array): Promise<void>;
  /** This side has no more. */
  closeSend?(): void;
  /** The stream was destroyed. */
  cancel?(error: unknown): void;
}

/** Largest chunk in one message; what BuildKit's own tunnel reads at a time is 32 KiB, larger is allowed. */
const maxChunkBytes = 256 << 10;

/** A byte stream over a call, with back-pressure both ways. The stream ends when the call does. */
export function openMessageDuplex(call: MessageDuplex): Duplex {
  let reading = false;
  const pull = async (stream: Duplex): Promise<void> => {
    if (reading) return;
    reading = true;
    try {
      for (;;) {
        const chunk = await call.receive();
        if (chunk === undefined) {
          stream.push(null);
          return;
        }
        if (chunk.length === 0) continue;
        if (!stream.push(Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength))) break;
      }
    } catch (error) {
      stream.destroy(error as Error);
      return;
    }
    reading = false;
  };
  const sendAll = async (bytes: Uint8Array): Promise<void> => {
    for (let at = 0; at < bytes.length; at += maxChunkBytes)
      await call.send(bytes.subarray(at, at + maxChunkBytes));
  };
  return new Duplex({
    readableHighWaterMark: 1 << 20,
    writableHighWaterMark: 1 << 20,
    read() {
      pull(this).catch(() => undefined);
    },
    write(chunk: Uint8Array, _encoding, done) {
      sendAll(chunk).then(() => done(), done);
    },
    writev(chunks, done) {
      sendAll(Buffer.concat(chunks.map((c) => c.chunk as Uint8Array))).then(() => done(), done);
    },
    final(done) {
      call.closeSend?.();
      done();
    },
    destroy(error, done) {
      call.cancel?.(error);
      done(error);
    },
  });
}

/** More than the windows of an HTTP/2 connection before Node 26.9, which would stall otherwise. */
const pairBufferBytes = 1 << 20;

/** Two streams: what is written to one is read from the other. For tests and for peers in one process. */
export function duplexPair(): [Duplex, Duplex] {
  const ends: Duplex[] = [];
  const waiting: (((error?: Error | null) => void) | undefined)[] = [undefined, undefined];
  const make = (self: 0 | 1): Duplex => {
    const other = self === 0 ? 1 : 0;
    return new Duplex({
      readableHighWaterMark: pairBufferBytes,
      writableHighWaterMark: pairBufferBytes,
      read() {
        const done = waiting[other];
        waiting[other] = undefined;
        done?.();
      },
      write(chunk, _encoding, done) {
        const peer = ends[other] as Duplex;
        if (peer.destroyed) return done(new Error("the other end is closed"));
        waiting[self] = done;
        if (peer.push(chunk)) {
          waiting[self] = undefined;
          done();
        }
      },
      final(done) {
        (ends[other] as Duplex).push(null);
        done();
      },
      destroy(error, done) {
        const peer = ends[other];
        if (peer && !peer.destroyed) setImmediate(() => peer.destroy());
        done(error);
      },
    });
  };
  ends.push(make(0), make(1));
  return [ends[0] as Duplex, ends[1] as Duplex];
}
