import type { Http2Session, SessionOptions } from "node:http2";
import type { Duplex } from "node:stream";

/** Limits of one HTTP/2 connection; the same for both roles. */
export interface TransportOptions {
  /** Largest message in either direction; 16 MiB unless told. */
  readonly maxMessageBytes?: number;
  /** Largest list of headers that a peer may send; 1 MiB unless told. */
  readonly maxHeaderBytes?: number;
  /** Streams that a peer may have open at a time; 4096 unless told. */
  readonly maxConcurrentStreams?: number;
  /** Interval of keepalive pings; none unless told (servers of grpc-go drop clients that ping too often). */
  readonly keepaliveMs?: number;
  /** How long a ping may stay unanswered; 20 s unless told. */
  readonly keepaliveTimeoutMs?: number;
}

/** Largest message unless told otherwise; BuildKit's limit. */
export const defaultMaxMessageBytes = 16 << 20;
const defaultMaxHeaderBytes = 1 << 20;
const defaultMaxConcurrentStreams = 4096;

/**
 * Two Node peers older than 26.9 deadlock when their connection windows exceed the socket buffers: a session
 * stops reading while its own write is pending.
 */
const hasWriteDeadlock = isOlderThan(26, 9);

/** Window of one stream. */
const streamWindowBytes = hasWriteDeadlock ? 128 << 10 : 2 << 20;
/** Window of a whole connection. */
export const connectionWindowBytes = hasWriteDeadlock ? 128 << 10 : 16 << 20;

/** node:http2's options for our limits. */
export function sessionOptions(opts: TransportOptions): SessionOptions {
  const maxHeaderBytes = opts.maxHeaderBytes ?? defaultMaxHeaderBytes;
  return {
    settings: {
      initialWindowSize: streamWindowBytes,
      maxConcurrentStreams: opts.maxConcurrentStreams ?? defaultMaxConcurrentStreams,
      maxHeaderListSize: maxHeaderBytes,
      enablePush: false,
    },
    maxHeaderListPairs: 65_536,
    maxSendHeaderBlockLength: 16 << 20,
    // What waits to be sent counts too; beyond this Node refuses new streams.
    maxSessionMemory: 512,
  };
}

function isOlderThan(major: number, minor: number): boolean {
  const [a = 0, b = 0] = process.versions.node.split(".").map(Number);
  return a < major || (a === major && b < minor);
}

interface Pingable {
  ping(callback: (error: Error | null) => void): boolean;
  destroy(error?: Error): void;
  readonly destroyed: boolean;
  once(event: "close", listener: () => void): unknown;
}

/** Pings a connection; one that doesn't answer in time is destroyed. Ends with the connection. */
export function keepAlive(session: Pingable, opts: TransportOptions): void {
  const intervalMs = opts.keepaliveMs ?? 0;
  if (intervalMs <= 0) return;
  const timeoutMs = opts.keepaliveTimeoutMs ?? 20_000;
  let late: NodeJS.Timeout | undefined;
  const timer = setInterval(() => {
    if (session.destroyed || late !== undefined) return;
    late = setTimeout(() => session.destroy(), timeoutMs);
    late.unref();
    session.ping(() => {
      clearTimeout(late);
      late = undefined;
    });
  }, intervalMs);
  timer.unref();
  session.once("close", () => {
    clearInterval(timer);
    clearTimeout(late);
  });
}

/** Lets running streams finish and closes; resolves when the connection is gone, also one that closes already. */
export function closeSession(session: Http2Session): Promise<void> {
  if (session.destroyed) return Promise.resolve();
  return new Promise((resolve) => {
    session.once("close", () => resolve());
    session.close();
  });
}

/** Ends a connection at once. A session that was closing would wait for the peer, so the stream goes too. */
export function destroySession(session: Http2Session, stream: Duplex): void {
  if (!session.destroyed) session.destroy();
  stream.destroy();
}
