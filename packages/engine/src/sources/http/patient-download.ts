import { createHash, type Hash } from "node:crypto";
import { BuildError, errorMessage, isBuildError, isCanceled, sleep } from "@kiln/base";
import { type HttpResponse, isTransient, isTransientStatus, retryAfterMs } from "@kiln/registry";

/** Bounds on waiting and trying again. */
export interface PatienceLimits {
  /** A server that delivers nothing for this long is asked again. */
  readonly idleTimeoutMs: number;
  /** Tries of one request, or of a download without progress. */
  readonly maxAttempts: number;
  readonly retryDelayMs: number;
  /** Longest pause that a server's Retry-After can cause. */
  readonly maxRetryDelayMs: number;
}

export const DEFAULT_PATIENCE: PatienceLimits = {
  idleTimeoutMs: 60_000,
  maxAttempts: 5,
  retryDelayMs: 500,
  maxRetryDelayMs: 60_000,
};

/** Repeats a request after 408, 429, 5xx and broken connections; the last answer counts, whatever it is. */
export async function sendPatiently(
  send: () => Promise<HttpResponse>,
  limits: PatienceLimits,
  signal: AbortSignal,
): Promise<HttpResponse> {
  for (let attempt = 1; ; attempt++) {
    const isLast = attempt >= limits.maxAttempts;
    let waitMs = limits.retryDelayMs * 2 ** (attempt - 1);
    try {
      const response = await send();
      if (isLast || !isTransientStatus(response.status)) return response;
      waitMs = retryAfterMs(response) ?? waitMs;
      response.body.destroy();
    } catch (error) {
      if (isLast || isCanceled(error) || signal.aborted || !isTransient(error)) throw error;
    }
    await sleep(Math.min(waitMs, limits.maxRetryDelayMs), signal);
  }
}

/** A download under way. */
export interface BodyPlan {
  readonly first: HttpResponse;
  /** Asks again, with these headers. */
  readonly again: (headers: Readonly<Record<string, string>>) => Promise<HttpResponse>;
  readonly limits: PatienceLimits;
  readonly signal: AbortSignal;
}

/**
 * The bytes of a body as they are on the wire. A connection that breaks, ends early or delivers nothing for too long
 * is replaced by one that goes on from there: with a range where the server has named the content by a strong ETag,
 * else from the beginning, where what was delivered already has to come again exactly.
 */
export async function* patientBody(plan: BodyPlan): AsyncGenerator<Uint8Array> {
  const { first, limits, signal } = plan;
  const etag = first.headers.etag ?? "";
  const canResume = /^"[^"]*"$/.test(etag);
  const delivered = createHash("sha256");
  let at = 0;
  let failures = 0;
  for (let response = first; ; ) {
    const before = at;
    try {
      for await (const chunk of restOf(response, { at, delivered }, limits.idleTimeoutMs)) {
        delivered.update(chunk);
        at += chunk.length;
        yield chunk;
      }
      checkLength(first, at);
      return;
    } catch (error) {
      failures = at > before ? 1 : failures + 1;
      if (isCanceled(error) || signal.aborted || !isTransient(error) || failures >= limits.maxAttempts)
        throw error;
    }
    await sleep(Math.min(limits.retryDelayMs * 2 ** (failures - 1), limits.maxRetryDelayMs), signal);
    const headers = canResume && at > 0 ? { range: `bytes=${at}-`, "if-range": etag } : {};
    response = await sendPatiently(() => plan.again(headers), limits, signal);
    if (response.status !== 200 && response.status !== 206) {
      response.body.destroy();
      throw new BuildError("failed_precondition", `invalid response status ${response.status}`);
    }
  }
}

function checkLength(first: HttpResponse, at: number): void {
  const text = first.headers["content-length"];
  if (text !== undefined && /^\d{1,15}$/.test(text) && at < Number(text)) {
    throw new BuildError("unavailable", `unexpected end of the download at ${at} of ${text} bytes`);
  }
}

/** What an answer has beyond the bytes that were delivered. */
async function* restOf(
  response: HttpResponse,
  have: { readonly at: number; readonly delivered: Hash },
  idleTimeoutMs: number,
): AsyncGenerator<Uint8Array> {
  const { at } = have;
  const range = response.headers["content-range"] ?? "";
  let skip = at;
  if (response.status === 206) {
    if (!range.startsWith(`bytes ${at}-`)) {
      response.body.destroy();
      throw new BuildError("failed_precondition", `unhandled content range in response: ${range}`);
    }
    skip = 0;
  }
  const again = skip > 0 ? createHash("sha256") : undefined;
  const expected = again && have.delivered.copy().digest("hex");
  for await (const chunk of arriving(response, idleTimeoutMs)) {
    const known = chunk.subarray(0, skip);
    skip -= known.length;
    if (known.length > 0) {
      again?.update(known);
      if (skip === 0 && again?.digest("hex") !== expected) {
        throw new BuildError("failed_precondition", "the file has changed on the server during its download");
      }
    }
    if (chunk.length > known.length) yield chunk.subarray(known.length);
  }
  if (skip > 0) throw new BuildError("unavailable", `the download ended ${skip} bytes too early`);
}

async function* arriving(response: HttpResponse, idleTimeoutMs: number): AsyncGenerator<Uint8Array> {
  const { body } = response;
  const arm = (): NodeJS.Timeout =>
    setTimeout(
      () => body.destroy(new BuildError("unavailable", `no data received for ${idleTimeoutMs} ms`)),
      idleTimeoutMs,
    );
  // Runs only while we wait for the server.
  let timer = arm();
  try {
    for await (const chunk of body as AsyncIterable<Buffer>) {
      clearTimeout(timer);
      yield chunk;
      timer = arm();
    }
  } catch (error) {
    if (isCanceled(error) || isBuildError(error)) throw error;
    throw new BuildError("unavailable", `failed to read response: ${errorMessage(error)}`, { cause: error });
  } finally {
    clearTimeout(timer);
    body.destroy();
  }
}
