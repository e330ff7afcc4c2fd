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
import { H2Connection } from "./h2/connection.ts";
import type { H2Stream } from "./h2/stream.ts";
import { type HeaderBag, headerBag } from "./metadata.ts";
import { type CallContext, type Peer, ServerCall, ServerStream } from "./server-call.ts";
import { parseTimeout } from "./timeout.ts";
import {
  closeConnection,
  connectionLimits,
  defaultMaxMessageBytes,
  keepAlive,
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
  readonly #connections = new Set<H2Connection>();
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
    const { promise: closed, resolve } = Promise.withResolvers<void>();
    const connection: H2Connection = new H2Connection(stream, {
      role: "server",
      ...connectionLimits(this.#opts),
      onStream: (opened, lines) => this.#onStream(opened, headerBag(lines), { raw: lines, peer }),
      onClose: () => {
        this.#connections.delete(connection);
        resolve();
      },
    });
    this.#connections.add(connection);
    keepAlive(connection, this.#opts);
    return {
      closed,
      close: async (opts) => {
        if (opts?.force) connection.destroy();
        else connection.close();
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
    const connections = [...this.#connections];
    const all = Promise.all(connections.map(closeConnection));
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<void>((resolve) => {
      if (opts.timeoutMs !== undefined) timer = setTimeout(resolve, opts.timeoutMs);
    });
    await Promise.race([all, late]);
    clearTimeout(timer);
    for (const connection of connections) connection.destroy();
    await all;
  }

  #onStream(stream: H2Stream, headers: HeaderBag, from: { raw: string[]; peer: Peer }): void {
    const refusal = refuse(headers);
    if (refusal) {
      stream.respond([":status", String(refusal)], { endStream: true });
      return;
    }
    const call = new ServerStream(stream, headers, {
      rawHeaders: from.raw,
      peer: from.peer,
      maxBytes: this.#opts.maxMessageBytes ?? defaultMaxMessageBytes,
    });
    const timeout = headers["grpc-timeout"];
    if (timeout !== undefined && parseTimeout(timeout) === undefined) {
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

type AnyHandler = (input: unknown, ctx: CallContext) => unknown;

/** Handlers may be a class instance: its methods are on the prototype. */
function inherited(handlers: object, name: string): AnyHandler | undefined {
  const proto: unknown = Object.getPrototypeOf(handlers);
  if (proto === null || proto === Object.prototype || typeof proto !== "object") return undefined;
  const value = (proto as Record<string, unknown>)[name];
  return typeof value === "function" ? (value as AnyHandler) : undefined;
}

/** The HTTP status for a request that is no gRPC, undefined for one that is. */
function refuse(headers: HeaderBag): number | undefined {
  if (headers[":method"] !== "POST") return 405;
  const type = headers["content-type"];
  return type !== undefined && /^application\/grpc(\+proto|;|$)/.test(type) ? undefined : 415;
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
