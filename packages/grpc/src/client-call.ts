import { BuildError, createDeferred, errorMessage, isBuildError } from "@kiln/base";
import type { Codec } from "./codec.ts";
import { MessageReader, MessageWriter } from "./framing.ts";
import type { H2Stream } from "./h2/stream.ts";
import { type HeaderBag, headerBag, Metadata, type MetadataInit } from "./metadata.ts";
import { codeOfHttpStatus, codeOfReset, errorFromStatus, goCodeName, statusOfTrailers } from "./status.ts";
import { maxTimerMs } from "./timeout.ts";

/** What a caller may say about one call. */
export interface CallOptions {
  readonly metadata?: MetadataInit | undefined;
  /** Aborting resets the stream; the call then fails with the reason (a BuildError) or `canceled`. */
  readonly signal?: AbortSignal | undefined;
  /** Deadline from now; the server gets to know it. */
  readonly timeoutMs?: number | undefined;
  /** Called with the headers that come before the first message. */
  readonly onHeaders?: ((metadata: Metadata) => void) | undefined;
  /** Called with the metadata that comes with the status. */
  readonly onTrailers?: ((metadata: Metadata) => void) | undefined;
}

/**
 * One running call: messages go in with {@link send}, come out by iterating. Leaving the iteration early
 * cancels the call. After the last message the iteration ends (status OK) or throws the status.
 */
export class ClientCall<In, Out> implements AsyncDisposable {
  readonly #stream: H2Stream;
  readonly #codec: Codec<In, Out>;
  readonly #reader: MessageReader;
  readonly #writer: MessageWriter;
  readonly #opts: CallOptions;
  readonly #headers = createDeferred<Metadata>();
  #encoding: string | undefined;
  #httpStatus = 0;
  #status: { readonly error: BuildError | undefined } | undefined;
  #ended = false;
  #done = false;
  #sendClosed = false;
  #timer: NodeJS.Timeout | undefined;

  constructor(stream: H2Stream, codec: Codec<In, Out>, opts: CallOptions & { readonly maxBytes: number }) {
    this.#stream = stream;
    this.#codec = codec;
    this.#opts = opts;
    this.#reader = new MessageReader(stream, { maxBytes: opts.maxBytes, encoding: () => this.#encoding });
    this.#writer = new MessageWriter(stream, opts.maxBytes);
    const { events } = stream;
    events.onHeaders = (lines) => this.#onHeaders(headerBag(lines), lines);
    events.onTrailers = (lines) => this.#onTrailers(headerBag(lines), lines);
    events.onEnd = () => {
      this.#ended = true;
      this.#settle();
    };
    events.onClose = () => this.#onClose();
    opts.signal?.addEventListener("abort", this.#onAbort, { once: true });
    if (opts.timeoutMs !== undefined && opts.timeoutMs <= maxTimerMs) {
      this.#timer = setTimeout(
        () => this.#cancel(new BuildError("deadline_exceeded", "context deadline exceeded")),
        opts.timeoutMs,
      );
    }
    if (opts.signal?.aborted) this.#onAbort();
  }

  /** Headers of the answer; rejects when the call fails without any. */
  get headers(): Promise<Metadata> {
    return this.#headers.promise;
  }

  /** Sends one message; resolves when the next may be sent, rejects when the call is over. */
  send(message: Out): Promise<void> {
    if (this.#sendClosed) return Promise.reject(new BuildError("internal", "send on a closed stream"));
    return this.#writer.send(this.#codec.encode(message));
  }

  /** No more messages from this side. */
  closeSend(): void {
    if (this.#sendClosed) return;
    this.#sendClosed = true;
    this.#stream.end();
  }

  /** Gives up: the server sees a reset. Does nothing when the call is over. */
  cancel(reason?: unknown): void {
    this.#cancel(asCancel(reason));
  }

  /** The next message, undefined after the last one when the status is OK; else throws the status. */
  async receive(): Promise<In | undefined> {
    const bytes = await this.#reader.next();
    if (bytes === undefined) return undefined;
    try {
      return this.#codec.decode(bytes);
    } catch (error) {
      this.#cancel(error as BuildError);
      throw error;
    }
  }

  [Symbol.asyncIterator](): AsyncIterator<In> {
    return {
      next: async () => {
        const value = await this.receive();
        return value === undefined ? { done: true, value: undefined } : { done: false, value };
      },
      return: async () => {
        this.cancel();
        return { done: true, value: undefined };
      },
    };
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.cancel();
    return Promise.resolve();
  }

  readonly #onAbort = (): void => this.#cancel(asCancel(this.#opts.signal?.reason));

  #onHeaders(headers: HeaderBag, raw: string[]): void {
    this.#httpStatus = Number(headers[":status"] ?? 0);
    this.#encoding = headers["grpc-encoding"];
    if (headers["grpc-status"] !== undefined) {
      this.#onTrailers(headers, raw);
      return;
    }
    const type = String(headers["content-type"] ?? "");
    if (this.#httpStatus !== 200 || !type.startsWith("application/grpc")) {
      this.#cancel(notGrpc(this.#httpStatus, type));
      return;
    }
    const metadata = Metadata.fromRawHeaders(raw);
    this.#headers.resolve(metadata);
    this.#opts.onHeaders?.(metadata);
  }

  #onTrailers(headers: HeaderBag, raw: string[]): void {
    const status = statusOfTrailers(headers);
    if (status === undefined || this.#status) return;
    this.#status = { error: status.code === 0 ? undefined : errorFromStatus(status) };
    this.#opts.onTrailers?.(Metadata.fromRawHeaders(raw));
    this.#settle();
  }

  /** Ends the call once the status and the last byte are there. */
  #settle(): void {
    if (!this.#status || !this.#ended) return;
    const atBoundary = this.#reader.atBoundary;
    const error =
      this.#status.error ??
      (atBoundary ? undefined : new BuildError("internal", "unexpected EOF inside a message"));
    this.#finish(error);
    if (!this.#stream.closed && !this.#sendClosed) this.#stream.close(0);
  }

  #onClose(): void {
    if (this.#done) return;
    if (this.#status) {
      this.#ended = true;
      this.#settle();
      return;
    }
    const { error } = this.#stream;
    if (error !== undefined) {
      this.#finish(new BuildError("unavailable", `error reading from server: ${errorMessage(error)}`));
      return;
    }
    this.#finish(closedError(this.#stream.rstCode));
  }

  #cancel(error: BuildError): void {
    if (this.#done) return;
    this.#reader.abort(error);
    this.#finish(error);
    this.#stream.close(8);
  }

  #finish(error: BuildError | undefined): void {
    if (this.#done) return;
    this.#done = true;
    clearTimeout(this.#timer);
    this.#opts.signal?.removeEventListener("abort", this.#onAbort);
    this.#reader.finish(error);
    this.#writer.fail(error ?? new BuildError("unavailable", "the call is over"));
    if (error) this.#headers.reject(error);
    else this.#headers.resolve(new Metadata());
  }
}

function asCancel(reason: unknown): BuildError {
  if (isBuildError(reason)) return reason;
  return new BuildError("canceled", "context canceled", reason === undefined ? {} : { cause: reason });
}

function notGrpc(httpStatus: number, type: string): BuildError {
  return new BuildError(
    codeOfHttpStatus(httpStatus),
    `unexpected HTTP status code received from server: ${httpStatus}; content-type ${JSON.stringify(type)}`,
  );
}

function closedError(rstCode: number): BuildError {
  if (rstCode === 0) return new BuildError("unavailable", "connection closed before the call was finished");
  const code = codeOfReset(rstCode);
  if (code === "canceled") return new BuildError("canceled", "context canceled");
  return new BuildError(
    code,
    `stream terminated by RST_STREAM with error code ${rstCode} (${goCodeName(code)})`,
  );
}
