/**
 * One build, as Buildx runs it: the session, `Control.Solve` and `Control.Status` side by side and, for builds that
 * the client drives, the gateway's calls in between.
 *
 * The status stream outlives the solve, so that the last messages arrive; it's given up when nothing came for
 * {@link STATUS_INACTIVITY_MS}.
 */
import type { MessageInitShape } from "@bufbuild/protobuf";
import { Control, type SolveRequestSchema } from "@kiln/api/control";
import type { Result } from "@kiln/api/gateway";
import type { Definition } from "@kiln/api/pb";
import { BuildError, isCanceled, sleep, withSignal } from "@kiln/base";
import { goJson, newId } from "@kiln/formats";
import type { Channel } from "@kiln/grpc/client";
import type { SolveStatus } from "@kiln/progress";
import { GatewayClient } from "./gateway.ts";
import { fromRpc, prefixed, rpcStream } from "./rpc-error.ts";
import { statusFromProto } from "./status-from-proto.ts";

const STATUS_INACTIVITY_MS = 5_000;
const GATEWAY_GRACE_MS = 5_000;

/** One exporter, or one cache source or destination, as the daemon takes it. */
export interface TypedAttrs {
  readonly type: string;
  readonly attrs: Readonly<Record<string, string>>;
}

/** The back channel of a build. `run` serves it until the signal aborts. */
export interface SolveSession {
  readonly id: string;
  run(channel: Channel, signal: AbortSignal): Promise<void>;
}

/** What to build, and how. Exactly one of `definition`, `frontend` and `drive` says what. */
export interface SolveOptions {
  /** Name of the build, random by default. */
  readonly ref?: string;
  readonly definition?: Definition;
  readonly frontend?: string;
  /** Drives the build through the gateway; its result is what the build gives. */
  readonly drive?: (gateway: GatewayClient) => Promise<Result | undefined>;
  readonly frontendAttrs?: Readonly<Record<string, string>>;
  readonly frontendInputs?: Readonly<Record<string, Definition>>;
  readonly exporters?: readonly TypedAttrs[];
  readonly cacheExports?: readonly TypedAttrs[];
  readonly cacheImports?: readonly TypedAttrs[];
  readonly entitlements?: readonly string[];
  /** The build isn't recorded in the daemon's history. */
  readonly internal?: boolean;
  readonly sourcePolicy?: MessageInitShape<typeof SolveRequestSchema>["SourcePolicy"];
  readonly sourcePolicySession?: string;
  readonly proxyNetwork?: boolean;
  /** W3C's trace context of the caller, which the daemon's trace of the build joins; anything else is ignored. */
  readonly traceParent?: string | undefined;
  readonly session?: SolveSession;
  readonly onStatus?: (status: SolveStatus) => void;
  readonly signal?: AbortSignal;
}

/** What a build gave. */
export interface SolveResult {
  readonly ref: string;
  /** The exporters' answers, such as `containerimage.digest`. */
  readonly exporterResponse: ReadonlyMap<string, string>;
}

/** Runs one build. @throws the daemon's error with `failed to solve: ` before it. */
export async function solve(channel: Channel, opts: SolveOptions): Promise<SolveResult> {
  checkOptions(opts);
  opts.signal?.throwIfAborted();
  const ref = opts.ref ?? newId();
  const background = new AbortController();
  const sessionEnd = new AbortController();
  const build = new AbortController();
  const onAbort = (): void => build.abort(opts.signal?.reason);
  opts.signal?.addEventListener("abort", onAbort, { once: true });
  const session = opts.session?.run(channel, sessionEnd.signal).catch((error: unknown) => {
    build.abort(error);
  });
  const status =
    opts.onStatus && watchStatus(channel, ref, { onStatus: opts.onStatus, signal: background.signal });
  try {
    const response = await runSolve(channel, { ...opts, ref }, build);
    return { ref, exporterResponse: new Map(Object.entries(response)) };
  } finally {
    opts.signal?.removeEventListener("abort", onAbort);
    // The daemon gives up what still waits for the session; only then does the status stream end.
    sessionEnd.abort(new BuildError("canceled", "context canceled"));
    await status?.finish();
    background.abort(new BuildError("canceled", "context canceled"));
    await session;
  }
}

function isTraceParent(text: string | undefined): text is string {
  return /^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$/.test(text ?? "");
}

async function runSolve(
  channel: Channel,
  opts: SolveOptions & { readonly ref: string },
  build: AbortController,
): Promise<Record<string, string>> {
  const attrs = withCacheImports(opts);
  const solving = channel.unary(Control.method.solve, solveRequest(opts, attrs), {
    signal: build.signal,
    ...(isTraceParent(opts.traceParent) ? { metadata: { traceparent: opts.traceParent } } : {}),
  });
  const failSolve = (error: unknown): never => {
    throw prefixed(cancellation(error, opts.signal) ?? fromRpc(error), "failed to solve");
  };
  if (!opts.drive) return (await solving.catch(failSolve)).ExporterResponse;
  const solved = solving.catch((error: unknown) => {
    build.abort(error);
    return failSolve(error);
  });
  solved.catch(() => undefined);
  const driven = driveBuild(channel, { ...opts, drive: opts.drive, attrs, signal: build.signal }).then(
    () => undefined,
    async (error: unknown) => {
      await withSignal(
        solved.catch(() => undefined),
        AbortSignal.timeout(GATEWAY_GRACE_MS),
      ).catch(() => build.abort(error));
      return { error };
    },
  );
  const response = await solved;
  const failure = await driven;
  if (failure) throw failure.error;
  return response.ExporterResponse;
}

async function driveBuild(
  channel: Channel,
  build: {
    readonly ref: string;
    readonly drive: (gateway: GatewayClient) => Promise<Result | undefined>;
    readonly attrs: Readonly<Record<string, string>>;
    readonly signal: AbortSignal;
  },
): Promise<void> {
  const defaults = Object.fromEntries(
    Object.entries(build.attrs).filter(([key]) => key === "cache-imports" || key === "cache-from"),
  );
  const gateway = new GatewayClient(channel, { ref: build.ref, signal: build.signal, defaults });
  // Every call of the gateway waits until the daemon knows the build: no need to ask first.
  let result: Result | undefined;
  try {
    result = await build.drive(gateway);
  } catch (error) {
    // The daemon learns the reason, so that it stands in the build's record; its own answer is what counts.
    await gateway.returnError(error).catch(() => undefined);
    throw error;
  }
  await gateway.returnResult(result);
}

function solveRequest(
  opts: SolveOptions & { readonly ref: string },
  attrs: Readonly<Record<string, string>>,
): MessageInitShape<typeof SolveRequestSchema> {
  const exporters = (opts.exporters ?? []).map(({ type, attrs: own }) => ({ Type: type, Attrs: { ...own } }));
  const cacheOf = (entries: readonly TypedAttrs[] = []): { Type: string; Attrs: Record<string, string> }[] =>
    entries.map((entry) => ({ Type: entry.type, Attrs: { ...entry.attrs } }));
  return {
    Ref: opts.ref,
    ...(opts.definition === undefined ? {} : { Definition: opts.definition }),
    ExporterDeprecated: exporters[0]?.Type ?? "",
    ExporterAttrsDeprecated: exporters[0]?.Attrs ?? {},
    Exporters: exporters,
    Session: opts.session?.id ?? "",
    Frontend: opts.frontend ?? "",
    FrontendAttrs: { ...attrs },
    FrontendInputs: opts.drive ? {} : { ...opts.frontendInputs },
    Cache: { Exports: cacheOf(opts.cacheExports), Imports: cacheOf(opts.cacheImports) },
    Entitlements: [...(opts.entitlements ?? [])],
    Internal: opts.internal ?? false,
    ...(opts.sourcePolicy === undefined ? {} : { SourcePolicy: opts.sourcePolicy }),
    SourcePolicySession: opts.sourcePolicySession ?? "",
    ProxyNetwork: opts.proxyNetwork ?? false,
  };
}

/** Frontends get the cache sources as an option of their own. */
function withCacheImports(opts: SolveOptions): Readonly<Record<string, string>> {
  const attrs = { ...opts.frontendAttrs };
  const imports = opts.cacheImports ?? [];
  if (imports.length === 0 || !(opts.drive || opts.frontend)) return attrs;
  const entries = imports.map((entry) => ({
    Type: entry.type === "" ? undefined : entry.type,
    Attrs: new Map(Object.entries(entry.attrs)),
  }));
  return { ...attrs, "cache-imports": goJson(entries) };
}

interface StatusWatch {
  /** Waits for the end of the stream, or until it has been silent for too long. */
  finish(): Promise<void>;
}

function watchStatus(
  channel: Channel,
  ref: string,
  opts: { readonly onStatus: (status: SolveStatus) => void; readonly signal: AbortSignal },
): StatusWatch {
  let lastActivityMs = Date.now();
  const stop = new AbortController();
  const signal = AbortSignal.any([opts.signal, stop.signal]);
  const read = async (): Promise<void> => {
    const stream = channel.serverStream(Control.method.status, { Ref: ref }, { signal });
    for await (const response of rpcStream(stream)) {
      lastActivityMs = Date.now();
      opts.onStatus(statusFromProto(response));
    }
  };
  let isDone = false;
  const done = read().then(
    () => {
      isDone = true;
    },
    () => {
      // The stream only informs: what went wrong with the build is in the answer of the solve.
      isDone = true;
    },
  );
  return {
    async finish() {
      lastActivityMs = Date.now();
      while (!isDone) {
        const left = lastActivityMs + STATUS_INACTIVITY_MS - Date.now();
        if (left <= 0) {
          stop.abort(new BuildError("canceled", "context canceled"));
          break;
        }
        const waited = new AbortController();
        await Promise.race([done, sleep(left, waited.signal).catch(() => undefined)]);
        waited.abort();
      }
      await done;
    },
  };
}

function cancellation(error: unknown, signal: AbortSignal | undefined): BuildError | undefined {
  if (!signal?.aborted || !isCanceled(error)) return undefined;
  return new BuildError("canceled", "Canceled: context canceled", { cause: error });
}

function checkOptions(opts: SolveOptions): void {
  const given = [opts.definition, opts.frontend || undefined, opts.drive].filter(
    (part) => part !== undefined,
  );
  if (given.length === 0) throw new BuildError("invalid_argument", "invalid empty definition");
  if (given.length > 1)
    throw new BuildError("invalid_argument", "invalid definition: only one source can be given");
}

/** Asks a daemon's gateway what it can do, without building anything. */
export async function probe<T>(channel: Channel, ask: (gateway: GatewayClient) => Promise<T>): Promise<T> {
  let answer: { readonly value: T } | undefined;
  await solve(channel, {
    internal: true,
    drive: async (gateway) => {
      answer = { value: await ask(gateway) };
      return undefined;
    },
  });
  if (answer === undefined) throw new BuildError("internal", "the daemon ended the build before it started");
  return answer.value;
}
