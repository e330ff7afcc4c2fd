import type { Duplex } from "node:stream";
import { Health } from "@kiln/api/health";
import { BuildError, errorMessage, isBuildError, isCanceled, sleep } from "@kiln/base";
import { bytesFieldCodec, type CallContext, openMessageDuplex, type ServerCall } from "@kiln/grpc";
import { Channel, type Metadata } from "@kiln/grpc/client";
import { isTrue, queryUnescape, sessionHeaders } from "../headers.ts";
import type { SessionCaller } from "./caller.ts";

/** Ids of the sessions that may answer a request, best first. Dynamic groups are generators. */
export type SessionGroup = Iterable<string>;

/** How long {@link SessionManager.any} waits for each session to appear. */
const appearTimeoutMs = 5000;

/** What happens to sessions, for logs. */
export interface SessionManagerOptions {
  readonly onHealthFailure?: (id: string, error: unknown, fatal: boolean) => void;
}

interface HealthCheck {
  readonly intervalMs: number;
  readonly timeoutMs: number;
  readonly maxFailures: number;
}

/** The sessions of a daemon. */
export class SessionManager {
  readonly #sessions = new Map<string, Session>();
  readonly #opts: SessionManagerOptions;
  #changed = new Set<() => void>();

  constructor(opts: SessionManagerOptions = {}) {
    this.#opts = opts;
  }

  /** Handler of `Control.Session`: the messages of the call are the session's bytes. Ends with the session. */
  async serve(
    call: ServerCall<{ readonly data: Uint8Array }, { data: Uint8Array }>,
    ctx: CallContext,
  ): Promise<void> {
    ctx.sendHeaders();
    const bytes = call.as(bytesFieldCodec);
    const stream = openMessageDuplex({ receive: () => bytes.receive(), send: (data) => bytes.send(data) });
    await this.handle(stream, ctx.metadata, ctx.signal);
  }

  /**
   * Registers a session whose client serves on `stream`; resolves when it is over. Throws `invalid_argument`
   * without an id in `metadata`.
   */
  async handle(stream: Duplex, metadata: Metadata, signal?: AbortSignal): Promise<void> {
    const id = metadata.get(sessionHeaders.id) ?? "";
    if (id === "") {
      stream.destroy();
      throw new BuildError("invalid_argument", "session id is missing");
    }
    const session = new Session(stream, id, metadata);
    this.#sessions.set(id, session);
    this.#wake();
    const onAbort = (): void => session.close(signal?.reason);
    signal?.addEventListener("abort", onAbort, { once: true });
    if (signal?.aborted) onAbort();
    try {
      await Promise.race([session.ended, this.#monitor(session)]);
    } finally {
      signal?.removeEventListener("abort", onAbort);
      session.close();
      if (this.#sessions.get(id) === session) this.#sessions.delete(id);
      this.#wake();
    }
  }

  /** Ids of the sessions that are open. */
  get ids(): readonly string[] {
    return [...this.#sessions.keys()];
  }

  /** True when a session of that id is open. */
  has(id: string): boolean {
    return this.#lookup(id) !== undefined;
  }

  /**
   * The session of an id (what precedes a colon is ignored). Waits until it appears or `signal` aborts; with
   * `noWait` the answer is undefined at once.
   */
  get(
    id: string,
    opts?: { readonly signal?: AbortSignal | undefined; readonly noWait?: false },
  ): Promise<SessionCaller>;
  get(
    id: string,
    opts: { readonly signal?: AbortSignal | undefined; readonly noWait: boolean },
  ): Promise<SessionCaller | undefined>;
  async get(
    id: string,
    opts: { readonly signal?: AbortSignal | undefined; readonly noWait?: boolean } = {},
  ): Promise<SessionCaller | undefined> {
    const { signal } = opts;
    for (;;) {
      if (signal?.aborted) throw noSession(stripPrefix(id), signal.reason);
      const session = this.#lookup(id);
      if (session || opts.noWait) return session;
      await new Promise<void>((resolve) => {
        const done = (): void => {
          signal?.removeEventListener("abort", done);
          this.#changed.delete(done);
          resolve();
        };
        this.#changed.add(done);
        signal?.addEventListener("abort", done, { once: true });
      });
    }
  }

  /**
   * Runs `fn` with the sessions of a group until one succeeds; each has 5 s to appear. Throws the last error,
   * or `no active sessions`.
   */
  async any<T>(
    group: SessionGroup,
    fn: (caller: SessionCaller) => Promise<T>,
    opts: { readonly signal?: AbortSignal | undefined } = {},
  ): Promise<T> {
    let last: unknown;
    for (const id of group) {
      if (id === "") break;
      opts.signal?.throwIfAborted();
      try {
        return await fn(await this.#getSoon(id, opts.signal));
      } catch (error) {
        last = error;
        if (opts.signal?.aborted) throw error;
      }
    }
    throw last ?? new BuildError("unknown", "no active sessions");
  }

  async #getSoon(id: string, signal?: AbortSignal): Promise<SessionCaller> {
    const found = this.#lookup(id);
    if (found) return found;
    const late = new AbortController();
    const timer = setTimeout(
      () => late.abort(new BuildError("deadline_exceeded", "context deadline exceeded")),
      appearTimeoutMs,
    );
    try {
      return await this.get(id, { signal: signal ? AbortSignal.any([signal, late.signal]) : late.signal });
    } finally {
      clearTimeout(timer);
    }
  }

  #lookup(id: string): Session | undefined {
    const session = this.#sessions.get(stripPrefix(id));
    return session === undefined || session.signal.aborted ? undefined : session;
  }

  /** Closes all sessions. */
  close(): void {
    for (const session of this.#sessions.values()) session.close();
  }

  #wake(): void {
    const changed = this.#changed;
    this.#changed = new Set();
    for (const resolve of changed) resolve();
  }

  /** Asks for the client's health until the session ends; two failures in a row end it. */
  async #monitor(session: Session): Promise<void> {
    const { intervalMs, timeoutMs, maxFailures } = session.health;
    let failures = 0;
    let lastMs = 0;
    while (!session.signal.aborted) {
      try {
        await sleep(intervalMs, session.signal);
      } catch {
        return;
      }
      const started = performance.now();
      try {
        await session.channel.unary(
          Health.method.check,
          {},
          {
            timeoutMs: Math.max(timeoutMs, lastMs * 1.5),
            signal: session.signal,
          },
        );
        failures = 0;
      } catch (error) {
        if (session.signal.aborted) return;
        failures++;
        this.#opts.onHealthFailure?.(session.id, error, failures >= maxFailures);
        if (failures >= maxFailures) {
          const fatal = new BuildError(
            "unavailable",
            `session healthcheck failed fatally: ${errorMessage(error)}`,
          );
          session.close(fatal);
          throw fatal;
        }
      }
      lastMs = performance.now() - started;
    }
  }
}

class Session implements SessionCaller {
  readonly id: string;
  readonly sharedKey: string;
  readonly channel: Channel;
  readonly health: HealthCheck;
  /** Resolves when the stream below has ended. */
  readonly ended: Promise<void>;
  readonly #stream: Duplex;
  readonly #methods: ReadonlySet<string>;
  readonly #gone = new AbortController();

  constructor(stream: Duplex, id: string, metadata: Metadata) {
    this.id = id;
    this.#stream = stream;
    const key = metadata.get(sessionHeaders.sharedKey) ?? "";
    this.sharedKey = isTrue(metadata.get(sessionHeaders.sharedKeyEncoded))
      ? (queryUnescape(key) ?? key)
      : key;
    this.#methods = new Set(metadata.getAll(sessionHeaders.method).map((m) => m.toLowerCase()));
    this.health = healthOf(metadata.get(sessionHeaders.healthTimeout));
    this.channel = Channel.over(stream, { authority: "localhost" });
    this.ended = new Promise((resolve) => {
      stream.once("close", () => {
        this.close();
        resolve();
      });
    });
    // Connects at once, so that a client that leaves is noticed.
    this.channel.connect().catch((error: unknown) => this.close(error));
  }

  get signal(): AbortSignal {
    return this.#gone.signal;
  }

  supports(path: string): boolean {
    return this.#methods.has(path.toLowerCase());
  }

  close(reason?: unknown): void {
    if (this.#gone.signal.aborted) return;
    const why =
      isBuildError(reason) && !isCanceled(reason)
        ? reason
        : new BuildError("unavailable", `session ${this.id} is closed`);
    this.#gone.abort(why);
    this.channel.close({ force: true }).catch(() => undefined);
    this.#stream.destroy();
  }
}

function healthOf(custom: string | undefined): HealthCheck {
  const ms = custom !== undefined && /^\d{1,9}$/.test(custom) ? Number(custom) : 0;
  if (ms <= 0) return { intervalMs: 5000, timeoutMs: 15_000, maxFailures: 2 };
  const limited = Math.max(ms, 1000);
  return { intervalMs: limited, timeoutMs: limited, maxFailures: 1 };
}

function stripPrefix(id: string): string {
  const colon = id.indexOf(":");
  return colon >= 0 && colon + 1 < id.length ? id.slice(colon + 1) : id;
}

function noSession(id: string, reason: unknown): BuildError {
  const code = isBuildError(reason) ? reason.code : "canceled";
  const why = isBuildError(reason) ? reason.message : "context canceled";
  return new BuildError(code, `no active session for ${id}: ${why}`, { cause: reason });
}
