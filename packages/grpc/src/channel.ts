import type { Duplex } from "node:stream";
import type {
  DescMessage,
  DescMethodBiDiStreaming,
  DescMethodClientStreaming,
  DescMethodServerStreaming,
  DescMethodUnary,
  MessageInitShape,
  MessageShape,
} from "@bufbuild/protobuf";
import { BuildError, codeOfNodeError, errorMessage, isBuildError, isCanceled, withSignal } from "@kiln/base";
import { type CallOptions, ClientCall } from "./client-call.ts";
import { type Codec, messageCodec, pathOf, rawCodec } from "./codec.ts";
import { H2Connection } from "./h2/connection.ts";
import { addToHeaders, headerLines, Metadata, type MetadataInit } from "./metadata.ts";
import { formatTimeout, maxTimerMs } from "./timeout.ts";
import {
  closeConnection,
  connectionLimits,
  defaultMaxMessageBytes,
  keepAlive,
  type TransportOptions,
} from "./transport.ts";

/** How a {@link Channel} behaves. */
export interface ChannelOptions extends TransportOptions {
  /** `:authority` of requests; `localhost` unless told. */
  readonly authority?: string;
  readonly userAgent?: string;
  /** Lines that every call gets, before its own; asked anew for each call. */
  readonly metadata?: () => MetadataInit | undefined;
}

/** A method that takes and gives streams or single messages; what a generated service has. */
type Unary<I extends DescMessage, O extends DescMessage> = DescMethodUnary<I, O>;

/** Opens the byte stream below a channel. `signal` aborts when the channel closes. */
export type Dial = (signal: AbortSignal) => Promise<Duplex>;

/**
 * The client's end of a connection. It dials on the first call and again when the connection was lost;
 * over a given stream it is `unavailable` from the stream's end on.
 */
export class Channel implements AsyncDisposable {
  readonly #dial: Dial;
  readonly #opts: ChannelOptions;
  readonly #closing = new AbortController();
  #session: Promise<H2Connection> | undefined;
  /** Below the newest connection. */
  #stream: Duplex | undefined;

  constructor(dial: Dial, opts: ChannelOptions = {}) {
    this.#dial = dial;
    this.#opts = opts;
  }

  /** A channel over a stream that is already open. The channel owns the stream. */
  static over(stream: Duplex, opts: ChannelOptions = {}): Channel {
    let used = false;
    const channel = new Channel(() => {
      if (used) return Promise.reject(new BuildError("unavailable", "the connection is closed"));
      used = true;
      return Promise.resolve(stream);
    }, opts);
    channel.#stream = stream;
    return channel;
  }

  /** True once {@link close} was called. */
  get closed(): boolean {
    return this.#closing.signal.aborted;
  }

  /** One message to the server, one back. */
  async unary<I extends DescMessage, O extends DescMessage>(
    method: Unary<I, O>,
    request: MessageInitShape<I>,
    opts: CallOptions = {},
  ): Promise<MessageShape<O>> {
    const call = await this.call(method, opts);
    return single(call, async () => {
      await call.send(request);
      call.closeSend();
    });
  }

  /** One message to the server, many back. The call starts with the first read. */
  async *serverStream<I extends DescMessage, O extends DescMessage>(
    method: DescMethodServerStreaming<I, O>,
    request: MessageInitShape<I>,
    opts: CallOptions = {},
  ): AsyncGenerator<MessageShape<O>, void, undefined> {
    await using call = await this.call(method, opts);
    call.send(request).catch(() => undefined);
    call.closeSend();
    yield* call;
  }

  /** Many messages to the server, one back. A failure of `requests` cancels the call. */
  async clientStream<I extends DescMessage, O extends DescMessage>(
    method: DescMethodClientStreaming<I, O>,
    requests: AsyncIterable<MessageInitShape<I>>,
    opts: CallOptions = {},
  ): Promise<MessageShape<O>> {
    const call = await this.call(method, opts);
    return single(call, () => pump(call, requests));
  }

  /** Messages both ways. A failure of `requests` cancels the call and is thrown to the reader. */
  async *bidi<I extends DescMessage, O extends DescMessage>(
    method: DescMethodBiDiStreaming<I, O>,
    requests: AsyncIterable<MessageInitShape<I>>,
    opts: CallOptions = {},
  ): AsyncGenerator<MessageShape<O>, void, undefined> {
    await using call = await this.call(method, opts);
    pump(call, requests).catch(() => undefined);
    yield* call;
  }

  /** A call of any kind to drive by hand. */
  call<I extends DescMessage, O extends DescMessage>(
    method:
      | DescMethodUnary<I, O>
      | DescMethodServerStreaming<I, O>
      | DescMethodClientStreaming<I, O>
      | DescMethodBiDiStreaming<I, O>,
    opts: CallOptions = {},
  ): Promise<ClientCall<MessageShape<O>, MessageInitShape<I>>> {
    return this.#open(pathOf(method), messageCodec(method.output, method.input), opts);
  }

  /** A call of which only the path is known; messages are bytes. */
  rawCall(path: string, opts: CallOptions = {}): Promise<ClientCall<Uint8Array, Uint8Array>> {
    return this.#open(path, rawCodec, opts);
  }

  /** A call of which only the path is known, with a codec of the caller's. */
  callWith<In, Out>(
    path: string,
    codec: Codec<In, Out>,
    opts: CallOptions = {},
  ): Promise<ClientCall<In, Out>> {
    return this.#open(path, codec, opts);
  }

  /** Connects now; resolves when the stream below is open. */
  async connect(signal?: AbortSignal): Promise<void> {
    const session = this.#connected();
    await (signal ? withSignal(session, signal) : session);
  }

  /** Finishes running calls, then closes. With `force` they fail at once. */
  async close(opts: { readonly force?: boolean } = {}): Promise<void> {
    this.#closing.abort(new BuildError("canceled", "the channel is closed"));
    const session = await this.#session?.catch(() => undefined);
    if (opts.force) session?.destroy();
    else if (session) await closeConnection(session);
    this.#stream?.destroy();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close({ force: true });
  }

  async #open<In, Out>(path: string, codec: Codec<In, Out>, opts: CallOptions): Promise<ClientCall<In, Out>> {
    opts.signal?.throwIfAborted();
    const ready = await this.#connectedWithin(opts);
    const headers = this.#headers(path, opts);
    try {
      const stream = ready.request(headerLines(headers));
      const maxBytes = this.#opts.maxMessageBytes ?? defaultMaxMessageBytes;
      return new ClientCall(stream, codec, { ...opts, maxBytes });
    } catch (error) {
      throw new BuildError("unavailable", `connection error: ${errorMessage(error)}`, { cause: error });
    }
  }

  async #connectedWithin(opts: CallOptions): Promise<H2Connection> {
    const session = this.#connected();
    if (opts.timeoutMs === undefined) return opts.signal ? withSignal(session, opts.signal) : session;
    const late = AbortSignal.timeout(Math.min(opts.timeoutMs, maxTimerMs));
    try {
      return await withSignal(session, opts.signal ? AbortSignal.any([opts.signal, late]) : late);
    } catch (error) {
      if (!late.aborted || opts.signal?.aborted) throw error;
      throw new BuildError("deadline_exceeded", "context deadline exceeded while connecting", {
        cause: error,
      });
    }
  }

  #headers(path: string, opts: CallOptions): Record<string, string | string[]> {
    const headers: Record<string, string | string[]> = {
      ":method": "POST",
      ":path": path,
      ":scheme": "http",
      ":authority": this.#opts.authority ?? "localhost",
      "content-type": "application/grpc",
      te: "trailers",
      "grpc-accept-encoding": "gzip",
      "user-agent": this.#opts.userAgent ?? "kiln-grpc",
    };
    if (opts.timeoutMs !== undefined) headers["grpc-timeout"] = formatTimeout(opts.timeoutMs);
    const common = this.#opts.metadata?.();
    if (common !== undefined) addToHeaders(headers, Metadata.from(common));
    if (opts.metadata !== undefined) addToHeaders(headers, Metadata.from(opts.metadata));
    return headers;
  }

  #connected(): Promise<H2Connection> {
    if (this.closed) return Promise.reject(new BuildError("unavailable", "the channel is closed"));
    if (this.#session) return this.#session;
    const session: Promise<H2Connection> = this.#connect(() => {
      if (this.#session === session) this.#session = undefined;
    });
    this.#session = session;
    return session;
  }

  async #connect(lost: () => void): Promise<H2Connection> {
    let stream: Duplex;
    try {
      // A dial that throws at once must not call `lost` before the caller knows this connection.
      await Promise.resolve();
      stream = await this.#dial(this.#closing.signal);
    } catch (error) {
      lost();
      if (isBuildError(error)) throw error;
      throw new BuildError("unavailable", `connection error: ${errorMessage(error)}`, { cause: error });
    }
    stream.on("error", () => undefined);
    this.#stream = stream;
    if (this.closed) {
      stream.destroy();
      throw new BuildError("unavailable", "the channel is closed");
    }
    const session = new H2Connection(stream, {
      role: "client",
      ...connectionLimits(this.#opts),
      onGoaway: lost,
      onClose: lost,
    });
    keepAlive(session, this.#opts);
    return session;
  }
}

/** Feeds a call from an iterable and closes its sending side. */
async function pump<In, Out>(call: ClientCall<In, Out>, requests: AsyncIterable<Out>): Promise<void> {
  try {
    for await (const request of requests) await call.send(request);
    call.closeSend();
  } catch (error) {
    call.cancel(asBuildError(error));
    throw error;
  }
}

function asBuildError(error: unknown): unknown {
  if (isBuildError(error) || isCanceled(error)) return error;
  return new BuildError(codeOfNodeError(error), errorMessage(error), { cause: error });
}

async function single<In, Out>(call: ClientCall<In, Out>, feed: () => Promise<void>): Promise<In> {
  feed().catch(() => undefined);
  const response = await call.receive();
  if (response === undefined) throw new BuildError("internal", "the server sent no message");
  const more = await call.receive();
  if (more !== undefined) {
    call.cancel();
    throw new BuildError("internal", "the server sent more than one message");
  }
  return response;
}
