import type { ConnectionOptions, H2Connection } from "./h2/connection.ts";

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

/** The limits of a connection; for both roles. */
export function connectionLimits(
  opts: TransportOptions,
): Pick<
  ConnectionOptions,
  "streamWindowBytes" | "connectionWindowBytes" | "maxHeaderBytes" | "maxConcurrentStreams"
> {
  return {
    streamWindowBytes: 2 << 20,
    connectionWindowBytes: 16 << 20,
    maxHeaderBytes: opts.maxHeaderBytes ?? defaultMaxHeaderBytes,
    maxConcurrentStreams: opts.maxConcurrentStreams ?? defaultMaxConcurrentStreams,
  };
}

/** Pings a connection; one that doesn't answer in time is destroyed. Ends with the connection. */
export function keepAlive(connection: H2Connection, opts: TransportOptions): void {
  const intervalMs = opts.keepaliveMs ?? 0;
  if (intervalMs <= 0) return;
  const timeoutMs = opts.keepaliveTimeoutMs ?? 20_000;
  let late: NodeJS.Timeout | undefined;
  const timer = setInterval(() => {
    if (late !== undefined) return;
    late = setTimeout(() => connection.destroy(), timeoutMs);
    late.unref();
    connection.ping(() => {
      clearTimeout(late);
      late = undefined;
    });
  }, intervalMs);
  timer.unref();
  void connection.gone.then(() => {
    clearInterval(timer);
    clearTimeout(late);
  });
}

/** Lets running streams finish and closes; resolves when the connection is gone, also one that closes already. */
export function closeConnection(connection: H2Connection): Promise<void> {
  connection.close();
  return connection.gone;
}
