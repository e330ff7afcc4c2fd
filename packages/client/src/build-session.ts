import { withSignal } from "@kiln/base";
import { newId } from "@kiln/formats";
import type { Channel } from "@kiln/grpc/client";
import { type Attachable, openSession } from "@kiln/session/client";
import type { SolveSession } from "./solve.ts";

/** What a build offers to the daemon while it runs. */
export function createSession(
  attachables: readonly Attachable[],
  opts: { readonly id?: string; readonly sharedKey?: string; readonly onBug?: (error: unknown) => void } = {},
): SolveSession {
  const id = opts.id ?? newId();
  return {
    id,
    async run(channel: Channel, signal: AbortSignal) {
      if (signal.aborted) return;
      await using session = await openSession(channel, attachables, {
        id,
        sharedKey: opts.sharedKey ?? "",
        ...(opts.onBug === undefined ? {} : { onBug: opts.onBug }),
      });
      try {
        await withSignal(session.closed, signal);
      } catch (error) {
        if (!signal.aborted) throw error;
      }
    },
  };
}
