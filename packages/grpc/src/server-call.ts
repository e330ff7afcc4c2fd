import { BuildError } from "@kiln/base";
import type { Codec } from "./codec.ts";
import { MessageReader, MessageWriter } from "./framing.ts";
import type { H2Stream } from "./h2/stream.ts";
import { addToHeaders, type HeaderBag, headerLines, Metadata, type MetadataInit } from "./metadata.ts";
import { statusFromError, trailersOfStatus } from "./status.ts";
import { maxTimerMs, parseTimeout } from "./timeout.ts";

/** How long a client that goes on sending after the end of a call is put up with. */
const RESET_DELAY_MS = 1_000;

/** Who is at the other end of a call. */
export interface Peer {
  /** `unix`, `tcp`, `tls`, or what {@link Router.accept} was told. */
  readonly transport: string;
  readonly address?: string;
  /** Common name of a client certificate that was verified. */
  readonly certificateName?: string;
}

/** What a handler gets beside the messages. */
export interface CallContext {
  /** `/package.Service/Method`. */
  readonly path: string;
  readonly metadata: Metadata;
  readonly peer: Peer;
  /** Aborts when the client gives up, the deadline passes or the connection breaks. */
  readonly signal: AbortSignal;
  /** Unix milliseconds of the client's deadline. */
  readonly deadline: number | undefined;
  /** Lines that go with the status; may be appended to until the handler is done. */
  readonly trailers: Metadata;
  /** Sends the headers now; without this they go with the first message. Only the first call counts. */
  sendHeaders(metadata?: MetadataInit): void;
}

/** The wire's side of a running call: bytes in, bytes out, one status. Handlers see it as a {@link ServerCall}. */
export class ServerStream implements CallContext {
  readonly path: string;
  readonly metadata: Metadata;
  readonly peer: Peer;
  readonly deadline: number | undefined;
  readonly trailers = new Metadata();
  readonly reader: MessageReader;
  readonly writer: MessageWriter;
  readonly #stream: H2Stream;
  readonly #abort = new AbortController();
  #timer: NodeJS.Timeout | undefined;
  #resetTimer: NodeJS.Timeout | undefined;
  #headersSent = false;
  #done = false;

  constructor(stream: H2Stream, headers: HeaderBag, opts: StreamOptions) {
    this.#stream = stream;
    this.path = String(headers[":path"] ?? "");
    this.metadata = Metadata.fromRawHeaders(opts.rawHeaders);
    this.peer = opts.peer;
    const encoding = headers["grpc-encoding"];
    this.reader = new MessageReader(stream, {
      maxBytes: opts.maxBytes,
      encoding: () => encoding,
    });
    this.writer = new MessageWriter(stream, opts.maxBytes);
    stream.events.onEnd = () => this.#onEnd();
    stream.events.onClose = () => {
      clearTimeout(this.#resetTimer);
      this.#onGone();
    };
    const timeout = headers["grpc-timeout"];
    const ms = timeout === undefined ? undefined : parseTimeout(timeout);
    this.deadline = ms === undefined ? undefined : Date.now() + ms;
    if (ms !== undefined && ms <= maxTimerMs) this.#timer = setTimeout(() => this.#onDeadline(), ms);
  }

  get signal(): AbortSignal {
    return this.#abort.signal;
  }

  sendHeaders(metadata?: MetadataInit): void {
    if (this.#headersSent || this.#stream.closed) return;
    const headers: Record<string, string | string[]> = { "content-type": "application/grpc" };
    if (metadata !== undefined) addToHeaders(headers, Metadata.from(metadata));
    this.#headersSent = true;
    this.#stream.respond(headerLines({ ":status": "200", ...headers }));
  }

  /** Sends one message, and before it the headers. */
  send(bytes: Uint8Array): Promise<void> {
    if (this.#done) return Promise.reject(new BuildError("internal", "send after the call has ended"));
    this.sendHeaders();
    return this.writer.send(bytes);
  }

  /** Ends the call with the status of `error`, OK without one. Only the first end counts. */
  finish(error?: unknown): void {
    if (this.#done) return;
    this.#done = true;
    clearTimeout(this.#timer);
    this.writer.fail(new BuildError("canceled", "the call has ended"));
    this.reader.abort(new BuildError("canceled", "the call has ended"));
    this.#abort.abort(new BuildError("canceled", "the call has ended"));
    const stream = this.#stream;
    if (stream.closed) return;
    const trailers: Record<string, string | string[]> =
      error === undefined ? { "grpc-status": "0" } : trailersOfStatus(statusFromError(error));
    addToHeaders(trailers, this.trailers);
    if (!this.#headersSent) {
      this.#headersSent = true;
      const lines = headerLines({ ":status": "200", "content-type": "application/grpc", ...trailers });
      stream.respond(lines, { endStream: true });
    } else stream.end(headerLines(trailers));
    this.#reset();
  }

  /**
   * After the status: tells a client that still sends to stop. Clients do so by themselves when they get the
   * status; a reset that comes before the trailers have left (a write to the connection may be under way)
   * takes them back, and the client would see a call without an end.
   */
  #reset(): void {
    const stream = this.#stream;
    if (stream.ended || stream.closed) return;
    this.#resetTimer = setTimeout(() => stream.close(0), RESET_DELAY_MS);
    this.#resetTimer.unref();
  }

  #onEnd(): void {
    if (this.reader.atBoundary) this.reader.finish();
    else this.reader.finish(new BuildError("internal", "unexpected EOF inside a message"));
  }

  #onDeadline(): void {
    const error = new BuildError("deadline_exceeded", "context deadline exceeded");
    this.#abort.abort(error);
    this.finish(error);
  }

  #onGone(): void {
    if (this.#done) return;
    this.#done = true;
    clearTimeout(this.#timer);
    const error = new BuildError("canceled", "context canceled");
    this.#abort.abort(error);
    this.writer.fail(error);
    this.reader.abort(error);
  }
}

/** What a {@link ServerStream} is made with. */
export interface StreamOptions {
  readonly rawHeaders: readonly string[];
  readonly peer: Peer;
  readonly maxBytes: number;
}

/** A streaming call in a handler's hands. */
export class ServerCall<In, Out> {
  readonly context: CallContext;
  readonly #stream: ServerStream;
  readonly #codec: Codec<In, Out>;

  constructor(stream: ServerStream, codec: Codec<In, Out>) {
    this.context = stream;
    this.#stream = stream;
    this.#codec = codec;
  }

  /** The same call with other messages: one path may carry two kinds (BuildKit's FileSend does). */
  as<In2, Out2>(codec: Codec<In2, Out2>): ServerCall<In2, Out2> {
    return new ServerCall(this.#stream, codec);
  }

  /** The client's next message, undefined after its last. Rejects when the call has been given up. */
  async receive(): Promise<In | undefined> {
    const bytes = await this.#stream.reader.next();
    return bytes === undefined ? undefined : this.#codec.decode(bytes);
  }

  /** Sends one message; resolves when the next may be sent. */
  send(message: Out): Promise<void> {
    return this.#stream.send(this.#codec.encode(message));
  }

  [Symbol.asyncIterator](): AsyncIterator<In> {
    return {
      next: async () => {
        const value = await this.receive();
        return value === undefined ? { done: true, value: undefined } : { done: false, value };
      },
      return: () => Promise.resolve({ done: true, value: undefined }),
    };
  }
}
