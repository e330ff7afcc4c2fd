import { performServerHandshake, type ServerHttp2Session, type ServerHttp2Stream } from "node:http2";
import type { Duplex } from "node:stream";
import type {
  DescMessage,
  DescMethod,
  DescMethodBiDiStreaming,
  DescMethodClientStreaming,
  DescMethodServerStreaming,
  DescMethodUnary,
  DescService,
  MessageInitShape,
  MessageShape,
} from "@bufbuild/protobuf";
import { BuildError, isBuildError } from "@kiln/base";
import { type Codec, messageCodec, pathOf, rawCodec } from "./codec.ts";
import { type CallContext, type Peer, ServerCall, ServerStream } from "./server-call.ts";
import { parseTimeout } from "./timeout.ts";
import {
  closeSession,
  connectionWindowBytes,
  defaultMaxMessageBytes,
  destroySession,
  keepAlive,
  sessionOptions,
  type TransportOptions,
} from "./transport.ts";

/** Handler of one method, by its kind. */
export type MethodHandler<M extends DescMethod> =
  M extends DescMethodUnary<infer I, infer O>
    ? (request: MessageShape<I>, ctx: CallContext) => Promise<MessageInitShape<O>> | MessageInitShape<O>
    : M extends DescMethodServerStreaming<infer I, infer O>
      ? (request: MessageShape<I>, ctx: CallContext) => AsyncIterable<MessageInitShape<O>>
      : M extends DescMethodClientStreaming<infer I, infer O>
        ? (
            requests: ServerCall<MessageShape<I>, MessageInitShape<O>>,
            ctx: CallContext,
          ) => Promise<MessageInitShape<O>>
        : M extends DescMethodBiDiStreaming<infer I, infer O>
          ? (
              call: ServerCall<MessageShape<I>, MessageInitShape<O>>,
              ctx: CallContext,
            ) => Promise<void> | AsyncIterable<MessageInitShape<O>>
          : never;

/**
 * Handlers of a service; a missing one answers `unimplemented`. Streams to the server come as a
 * {@link ServerCall} that can be iterated; a bidi handler either answers through `call.send` and resolves
 * at the end, or is an async generator.
 */
export type ServiceHandlers<S extends DescService> = {
  [K in keyof S["method"]]?: MethodHandler<S["method"][K]>;
};

/** Handles a call of any kind as bytes; resolving ends it with OK. */
export type RawHandler = (call: ServerCall<Uint8Array, Uint8Array>, ctx: CallContext) => Promise<void>;

/** Runs around every call; `next` runs the handler. Throw to answer with an error. */
export type Interceptor = (ctx: CallContext, next: () => Promise<void>) => Promise<void>;

/** How a {@link Router} behaves. */
export interface RouterOptions extends TransportOptions {
  readonly interceptors?: readonly Interceptor[];
  /** Gets what handlers throw that is no BuildError: a bug that should be logged. */
  readonly onBug?: (error: unknown, path: string) => void;
}

/** The server's end: services, and the connections that use them. */
export class Router {
  readonly #handlers = new Map<string, RawHandler>();
  readonly #services = new Map<string, DescService>();
  readonly #sessions = new Map<ServerHttp2Session, Duplex>();
  readonly #opts: RouterOptions;
  #fallback: RawHandler | undefined;
  #closing = false;

  constructor(opts: RouterOptions = {}) {
    this.#opts = opts;
  }

  /** Adds a service; its methods replace those of the same path. */
  add<S extends DescService>(service: S, handlers: ServiceHandlers<S>): this {
    this.#services.set(service.typeName, service);
    const table = handlers as Record<string, AnyHandler | undefined>;
    for (const method of service.methods) {
      const handler = Object.hasOwn(table, method.localName) ? table[method.localName] : undefined;
      const bound = handler ?? inherited(handlers, method.localName);
      if (bound) this.#handlers.set(pathOf(method), adapt(method, bound.bind(handlers) as AnyHandler));
      else this.#handlers.set(pathOf(method), () => Promise.reject(unimplemented(pathOf(method))));
    }
    return this;
  }

  /** Adds one path whose messages the handler decodes by itself. */
  addRaw(path: string, handler: RawHandler): this {
    this.#handlers.set(path, handler);
    return this;
  }

  /** Handles paths that nobody else does, for example by passing them on. */
  setFallback(handler: RawHandler): this {
    this.#fallback = handler;
    return this;
  }

  /** The services that were added, for reflection. */
  get services(): readonly DescService[] {
    return [...this.#services.values()];
  }

  /** Paths of all methods, in the order in which they were added. */
  get paths(): readonly string[] {
    return [...this.#handlers.keys()];
  }

  /** Serves a stream that is already open, and owns it. */
  accept(stream: Duplex, peer: Peer = { transport: "stream" }): Connection {
    stream.on("error", () => undefined);
    if (this.#closing) {
      stream.destroy();
      return { closed: Promise.resolve(), close: () => Promise.resolve() };
    }
    const session = performServerHandshake(stream, sessionOptions(this.#opts));
    this.#sessions.set(session, stream);
    session.setLocalWindowSize(connectionWindowBytes);
    session.on("error", () => session.destroy());
    session.on("stream", (s, headers, _flags, raw: unknown) =>
      this.#onStream(s, headers, { raw: raw as string[], peer }),
    );
    const closed = new Promise<void>((resolve) => {
      session.once("close", () => {
        this.#sessions.delete(session);
        stream.destroy();
        resolve();
      });
    });
    keepAlive(session, this.#opts);
    return {
      closed,
      close: async (opts) => {
        if (!session.destroyed) {
          if (opts?.force) destroySession(session, stream);
          else session.close();
        }
        await closed;
      },
    };
  }

  /**
   * Takes no new connections and calls, waits for those that run (at most `timeoutMs`), then closes. Calls
   * that still run are then canceled.
   */
  async close(opts: { readonly timeoutMs?: number } = {}): Promise<void> {
    this.#closing = true;
    const sessions = [...this.#sessions];
    const all = Promise.all(sessions.map(([session]) => closeSession(session)));
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<void>((resolve) => {
      if (opts.timeoutMs !== undefined) timer = setTimeout(resolve, opts.timeoutMs);
    });
    await Promise.race([all, late]);
    clearTimeout(timer);
    for (const [session, stream] of sessions) destroySession(session, stream);
    await all;
  }

  #onStream(stream: ServerHttp2Stream, headers: Headers, from: { raw: string[]; peer: Peer }): void {
    stream.on("error", () => undefined);
    const refusal = refuse(headers);
    if (refusal) {
      stream.respond({ ":status": refusal }, { endStream: true });
      return;
    }
    const call = new ServerStream(stream, headers, {
      rawHeaders: from.raw,
      peer: from.peer,
      maxBytes: this.#opts.maxMessageBytes ?? defaultMaxMessageBytes,
    });
    const timeout = headers["grpc-timeout"];
    if (timeout !== undefined && (typeof timeout !== "string" || parseTimeout(timeout) === undefined)) {
      call.finish(new BuildError("internal", "malformed grpc-timeout"));
      return;
    }
    this.#run(call).then(
      () => call.finish(),
      (error: unknown) => {
        if (!isBuildError(error) && !call.signal.aborted) this.#opts.onBug?.(error, call.path);
        call.finish(error);
      },
    );
  }

  async #run(stream: ServerStream): Promise<void> {
    const handler = this.#handlers.get(stream.path) ?? this.#fallback;
    if (!handler) throw unimplemented(stream.path, this.#services);
    const call = new ServerCall(stream, rawCodec);
    let run = (): Promise<void> => handler(call, stream);
    for (const interceptor of [...(this.#opts.interceptors ?? [])].reverse()) {
      const next = run;
      run = () => interceptor(stream, next);
    }
    await run();
  }
}

/** A stream that a {@link Router} serves. */
export interface Connection {
  /** Resolves when the connection is gone; never rejects. */
  readonly closed: Promise<void>;
  /** Finishes running calls and closes; with `force` at once. */
  close(opts?: { readonly force?: boolean }): Promise<void>;
}

type Headers = Record<string, string | string[] | number | undefined>;
type AnyHandler = (input: unknown, ctx: CallContext) => unknown;

/** Handlers may be a class instance: its methods are on the prototype. */
function inherited(handlers: object, name: string): AnyHandler | undefined {
  const proto: unknown = Object.getPrototypeOf(handlers);
  if (proto === null || proto === Object.prototype || typeof proto !== "object") return undefined;
  const value = (proto as Record<string, unknown>)[name];
  return typeof value === "function" ? (value as AnyHandler) : undefined;
}

/** The HTTP status for a request that is no gRPC, undefined for one that is. */
function refuse(headers: Headers): number | undefined {
  if (headers[":method"] !== "POST") return 405;
  const type = headers["content-type"];
  return typeof type === "string" && /^application\/grpc(\+proto|;|$)/.test(type) ? undefined : 415;
}

function unimplemented(path: string, services?: ReadonlyMap<string, DescService>): BuildError {
  const [, service = "", method = ""] = path.split("/");
  if (services && !services.has(service))
    return new BuildError("unimplemented", `unknown service ${service}`);
  return new BuildError("unimplemented", `unknown method ${method} for service ${service}`);
}

function adapt(method: DescMethod, handler: AnyHandler): RawHandler {
  const codec: Codec<unknown, unknown> = messageCodec<DescMessage, DescMessage>(
    method.input,
    method.output,
  ) as Codec<unknown, unknown>;
  return async (raw, ctx) => {
    const call = raw.as(codec);
    const streams = method.methodKind === "client_streaming" || method.methodKind === "bidi_streaming";
    const input = streams ? call : await only(call);
    const result = handler(input, ctx);
    if (method.methodKind === "unary" || method.methodKind === "client_streaming") {
      await call.send(await result);
      return;
    }
    if (isAsyncIterable(result)) for await (const message of result) await call.send(message);
    else await result;
  };
}

function isAsyncIterable(value: unknown): value is AsyncIterable<unknown> {
  return typeof value === "object" && value !== null && Symbol.asyncIterator in value;
}

/** The single request of a call. */
async function only(call: ServerCall<unknown, unknown>): Promise<unknown> {
  const request = await call.receive();
  if (request === undefined) throw new BuildError("internal", "the client sent no request");
  return request;
}
