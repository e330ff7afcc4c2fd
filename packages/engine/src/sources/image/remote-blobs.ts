import { BuildError, isCanceled } from "@kiln/base";
import { type Descriptor, parseReference } from "@kiln/oci";
import type { Registries } from "@kiln/registry";
import type { RefContext } from "@kiln/store";
import type { SessionAuthenticators } from "../source-sessions.ts";
import { sessionIdsOf } from "./image-source.ts";

/**
 * Streams a blob from one of the repositories (`domain/path`) that a record names, in order; the store's
 * `fetchBlob`. The next one is asked when one can't give the first byte.
 */
export function remoteBlobFetcher(services: {
  readonly registries: Registries;
  readonly authenticators: SessionAuthenticators;
}): (desc: Descriptor, remotes: readonly string[], ctx: RefContext) => Promise<AsyncIterable<Uint8Array>> {
  return async (desc, remotes, ctx) => {
    const client = services.registries.client(services.authenticators.of(sessionIdsOf(ctx) ?? []));
    let failure: unknown = new BuildError("not_found", `missing remote provider for blob ${desc.digest}`);
    for (const remote of remotes) {
      const chunks = client.fetchBlob(parseReference(remote), desc, { signal: ctx.signal });
      try {
        const first = await chunks.next();
        return continued(first, chunks);
      } catch (error) {
        if (isCanceled(error) || ctx.signal.aborted) throw error;
        failure = error;
      }
    }
    throw failure;
  };
}

async function* continued(
  first: IteratorResult<Uint8Array>,
  rest: AsyncGenerator<Uint8Array>,
): AsyncGenerator<Uint8Array> {
  try {
    if (first.done) return;
    yield first.value;
    yield* rest;
  } finally {
    // Ends the download when the reader stops early.
    await rest.return(undefined);
  }
}
