import { Writable } from "node:stream";
import { LLBBridge } from "@kiln/api/gateway";
import { BuildError, errorMessage, isCanceled } from "@kiln/base";
import type { Executor, ExitStatus, RunOptions } from "@kiln/executor";
import { type Connection, duplexPair, HealthStatus, Router } from "@kiln/grpc";
import { exitDetail, exitFailure } from "../ops/exec/exec-op.ts";
import { eachRef } from "../solve/build-results.ts";
import type { FrontendResult } from "./frontend.ts";
import type { GatewayBridge } from "./gateway-bridge.ts";
import { gatewayHandlers } from "./gateway-service.ts";

/** What a frontend writes to its standard error is kept up to so many bytes, for its failure. */
const TAIL_BYTES = 4096;
/** How long a frontend may take to exit once it has hung up. */
const EXIT_GRACE_MS = 10_000;
/** How long a frontend may take to its first word. BuildKit waits for 10 s; machines that emulate are slow. */
const FIRST_WORD_MS = 30_000;

/** What the container of a frontend is run with; streams and signal are added. */
export type FrontendContainer = Omit<RunOptions, "io" | "signal">;

/**
 * Runs a frontend that speaks the gateway API over its standard streams: HTTP/2 in which this side is the
 * server.
 *
 * @param onStderr gets what it writes to its standard error.
 * @returns what it has returned, which is the caller's.
 * @throws BuildError that the frontend has returned; else about its end.
 */
export async function runFrontend(
  gateway: GatewayBridge,
  how: {
    readonly executor: Executor;
    readonly container: FrontendContainer;
    readonly onStderr: (chunk: Uint8Array) => void;
    /** How long it may take to its first word; {@link FIRST_WORD_MS} by default. */
    readonly firstWordMs?: number;
  },
  signal: AbortSignal,
): Promise<FrontendResult> {
  const [ours, theirs] = duplexPair();
  theirs.on("error", () => undefined);
  const router = new Router().add(
    LLBBridge,
    gatewayHandlers(() => Promise.resolve(gateway)),
  );
  new HealthStatus().addTo(router);
  const connection = router.accept(ours, { transport: "frontend" });
  const hungUp = new AbortController();
  const stderr = new Tail(how.onStderr);
  let failure: unknown;
  let isRunning = true;
  const grace = watchConnection(connection, () => isRunning, gateway, hungUp);
  const stdout = withFirstWord(theirs, how.firstWordMs ?? FIRST_WORD_MS, () => {
    hungUp.abort(new BuildError("canceled", "frontend says nothing"));
  });
  try {
    const status = await how.executor.run({
      ...how.container,
      io: { stdin: theirs, stdout: stdout.stream, stderr: stderr.stream },
      signal: AbortSignal.any([signal, hungUp.signal]),
    });
    failure = endFailure(status, stderr.text());
  } catch (error) {
    if (signal.aborted) failure = signal.reason;
    else failure = hungUp.signal.aborted ? closedFailure(stderr.text()) : asBuildError(error);
  } finally {
    isRunning = false;
    clearTimeout(grace.timer);
    stdout.stop();
    theirs.destroy();
    await connection.close({ force: true });
  }
  return await resultOf(gateway, failure);
}

/** Passes bytes on to `sink`; calls `onSilence` when none have come for so long. */
function withFirstWord(
  sink: Writable,
  timeoutMs: number,
  onSilence: () => void,
): { readonly stream: Writable; stop(): void } {
  const timer = setTimeout(onSilence, timeoutMs);
  const stream = new Writable({
    write: (chunk, _encoding, done) => {
      clearTimeout(timer);
      sink.write(chunk, done);
    },
  });
  // A connection that was closed takes nothing any more; what follows doesn't matter.
  stream.on("error", () => undefined);
  return { stream, stop: () => clearTimeout(timer) };
}

/** Ends a process that has closed its connection; one that has returned its result before may exit by itself. */
function watchConnection(
  connection: Connection,
  isRunning: () => boolean,
  gateway: GatewayBridge,
  hungUp: AbortController,
): { timer: NodeJS.Timeout | undefined } {
  const grace: { timer: NodeJS.Timeout | undefined } = { timer: undefined };
  void connection.closed.then(() => {
    if (!isRunning()) return;
    const end = (): void => hungUp.abort(new BuildError("canceled", "frontend grpc server closed"));
    if (gateway.hasReturned) grace.timer = setTimeout(end, EXIT_GRACE_MS);
    else end();
  });
  return grace;
}

/** An error that was returned comes before one of the process, and that before a result. */
async function resultOf(gateway: GatewayBridge, failure: unknown): Promise<FrontendResult> {
  if (!gateway.hasReturned) {
    throw failure ?? new BuildError("unknown", "no result for incomplete build");
  }
  const result = await gateway.result();
  if (failure === undefined) return result;
  for (const ref of eachRef(result)) await ref.release();
  throw failure;
}

function endFailure(status: ExitStatus, stderr: string): BuildError | undefined {
  const reason = exitFailure(status, []);
  if (reason === undefined) return undefined;
  // most runtimes say there too why nothing could be started
  const said = stderr.includes(status.runtimeError) ? stderr : `${status.runtimeError}\n${stderr}`.trim();
  const details = [reason, said].filter((text) => text !== "");
  return new BuildError("unknown", details.join(": "), { wire: [exitDetail(status.code)] });
}

function closedFailure(stderr: string): BuildError {
  const text = "frontend grpc server closed unexpectedly";
  return new BuildError("unknown", stderr === "" ? text : `${text}: ${stderr}`);
}

function asBuildError(error: unknown): BuildError {
  if (error instanceof BuildError && !isCanceled(error)) return error;
  return new BuildError("unknown", errorMessage(error), { cause: error });
}

/** Passes bytes on and keeps the last of them. */
class Tail {
  readonly stream: Writable;
  #kept: Buffer = Buffer.alloc(0);

  constructor(onChunk: (chunk: Uint8Array) => void) {
    this.stream = new Writable({
      write: (chunk: Buffer, _encoding, done) => {
        this.#kept = Buffer.concat([this.#kept, chunk]).subarray(-TAIL_BYTES);
        onChunk(chunk);
        done();
      },
    });
  }

  /** The last lines, without control characters. */
  text(): string {
    const text = this.#kept.toString("utf8");
    return text.replace(/[\u0000-\u0009\u000b-\u001f\u007f-\u009f]/g, "").trim();
  }
}
