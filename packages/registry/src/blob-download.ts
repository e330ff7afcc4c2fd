import { createHash } from "node:crypto";
import { BuildError, isCanceled, sleep } from "@kiln/base";
import { type Descriptor, digestAlgorithm } from "@kiln/oci";
import { isTransient } from "./http-error.ts";
import type { HttpResponse } from "./http-transport.ts";
import type { RegistryLimits } from "./registry.ts";

/** What a download is made of. */
export interface DownloadPlan {
  readonly desc: Descriptor;
  /** Byte range of the blob; all of it by default. */
  readonly offset: number;
  readonly length: number | undefined;
  /** Asks for the blob from a byte on; the answer has status 200 or 206. */
  readonly open: (offset: number, length: number | undefined) => Promise<HttpResponse>;
  readonly limits: RegistryLimits;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((doneBytes: number) => void) | undefined;
}

/**
 * The bytes of a blob. A connection that breaks, ends early or delivers nothing for too long is replaced by
 * one that goes on from there. A whole blob is checked: more or fewer bytes than the descriptor says, or
 * another digest, is `data_loss`, thrown before the last chunk's end is reported.
 */
export async function* downloadBlob(plan: DownloadPlan): AsyncGenerator<Uint8Array> {
  const { desc, limits } = plan;
  const end = plan.length === undefined ? desc.size : plan.offset + plan.length;
  const whole = plan.offset === 0 && end === desc.size;
  const hash = whole ? createHash(digestAlgorithm(desc.digest)) : undefined;
  let at = plan.offset;
  let failures = 0;
  while (at < end || (end === 0 && failures === 0)) {
    plan.signal?.throwIfAborted();
    const before = at;
    try {
      const response = await plan.open(at, plan.length === undefined && at === 0 ? undefined : end - at);
      for await (const chunk of bodyFrom(response, at, limits.idleTimeoutMs)) {
        const useful = at + chunk.length > end && !whole ? chunk.subarray(0, end - at) : chunk;
        at += useful.length;
        if (at > end) throw sizeError(at, end);
        hash?.update(useful);
        if (useful.length > 0) {
          yield useful;
          plan.onProgress?.(at - plan.offset);
        }
        if (at >= end && !whole) break;
      }
      if (at >= end) break;
      throw new BuildError("unavailable", `unexpected end of blob ${desc.digest} at ${at} of ${end} bytes`);
    } catch (error) {
      if (isCanceled(error) || plan.signal?.aborted || !isTransient(error)) throw error;
      failures = at > before ? 1 : failures + 1;
      if (failures >= limits.maxAttempts) throw error;
      await sleep(Math.min(limits.retryDelayMs * 2 ** (failures - 1), limits.maxRetryDelayMs), plan.signal);
    }
  }
  if (hash === undefined) return;
  const digest = `${digestAlgorithm(desc.digest)}:${hash.digest("hex")}`;
  if (digest !== desc.digest) {
    throw new BuildError(
      "data_loss",
      `unexpected commit digest ${digest}, expected ${desc.digest}: failed precondition`,
    );
  }
}

function sizeError(actual: number, expected: number): BuildError {
  return new BuildError("data_loss", `failed size validation: ${actual} != ${expected}: failed precondition`);
}

/** The body from byte `offset` of the blob on; skips what a server sends that doesn't know ranges. */
async function* bodyFrom(
  response: HttpResponse,
  offset: number,
  idleTimeoutMs: number,
): AsyncGenerator<Uint8Array> {
  const { body, headers } = response;
  let skip = 0;
  if (response.status === 206 || headers["content-range"] !== undefined) {
    const range = headers["content-range"] ?? "";
    if (offset > 0 && !range.startsWith(`bytes ${offset}-`)) {
      body.destroy();
      throw new BuildError("unknown", `unhandled content range in response: ${range}`);
    }
  } else skip = offset;
  // Runs only while we wait for the server, not while the consumer works on a chunk.
  const arm = (): NodeJS.Timeout =>
    setTimeout(
      () => body.destroy(new BuildError("unavailable", `no data received for ${idleTimeoutMs} ms`)),
      idleTimeoutMs,
    );
  let timer = arm();
  try {
    for await (const chunk of body as AsyncIterable<Buffer>) {
      clearTimeout(timer);
      const useful = skip > 0 ? chunk.subarray(skip) : chunk;
      skip -= chunk.length - useful.length;
      if (useful.length > 0) yield useful;
      timer = arm();
    }
  } catch (error) {
    throw brokenBody(error);
  } finally {
    clearTimeout(timer);
    body.destroy();
  }
}

function brokenBody(error: unknown): unknown {
  if (isCanceled(error) || (error instanceof Error && error.name === "BuildError")) return error;
  const message = error instanceof Error ? error.message : String(error);
  return new BuildError("unavailable", `failed to read body: ${message}`, { cause: error });
}
