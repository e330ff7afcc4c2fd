import type { Duplex } from "node:stream";
import { BuildError, isBuildError } from "@kiln/base";
import { Channel } from "@kiln/grpc/client";
import { type FrontendEnvironment, readFrontendEnvironment } from "./environment.ts";
import { FrontendClient } from "./frontend-client.ts";
import type { ReturnedResult } from "./results.ts";
import { openStdio } from "./stdio.ts";

/** Makes a result of a request; see {@link FrontendClient} for what it can use. */
export type BuildFunction = (client: FrontendClient) => Promise<ReturnedResult | undefined>;

/** Instead of this process' own standard streams and environment. */
export interface FrontendHost {
  readonly stream: Duplex;
  readonly environment: FrontendEnvironment;
}

/**
 * Runs a frontend in the container that a daemon has started for it: speaks the gateway API over standard
 * input and output, calls `build` once, and returns to the daemon what it gives or throws. Then the process
 * ends. Until then what a program prints goes to its standard error.
 *
 * With a `host` the process stays, and the promise rejects only when the daemon can't be told.
 */
export async function runFrontend(build: BuildFunction, host?: FrontendHost): Promise<void> {
  if (host !== undefined) {
    await serve(build, host);
    return;
  }
  try {
    await serve(build, { stream: openStdio(), environment: readFrontendEnvironment(process.env) });
  } catch (error) {
    console.error(isBuildError(error) ? error.message : error);
    process.exit(1);
  }
  // Timers and sockets that a program forgot must not keep the daemon waiting.
  process.exit(0);
}

async function serve(build: BuildFunction, { stream, environment }: FrontendHost): Promise<void> {
  const lost = new AbortController();
  stream.once("close", () =>
    lost.abort(new BuildError("unavailable", "the daemon has closed the connection")),
  );
  await using channel = Channel.over(stream, { userAgent: "kiln-frontend" });
  await using client = await FrontendClient.open(channel, environment, lost.signal);
  let outcome: { readonly result: ReturnedResult | undefined } | { readonly error: unknown };
  try {
    outcome = { result: await build(client) };
  } catch (error) {
    outcome = { error };
  }
  if ("result" in outcome) {
    try {
      await client.returnResult(outcome.result);
      return;
    } catch (error) {
      lost.signal.throwIfAborted();
      outcome = { error };
    }
  }
  await client.returnError(outcome.error);
}
