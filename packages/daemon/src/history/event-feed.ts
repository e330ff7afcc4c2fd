import type { BuildHistoryEvent } from "@kiln/api/control";
import { BuildError } from "@kiln/base";

/** A listener that is this far behind is given up. */
const MAX_BACKLOG = 10_000;

/** One listener of a feed. */
export interface Subscription extends Disposable {
  /** Events since the subscription, until `signal` or the end of the feed. */
  events(signal: AbortSignal): AsyncGenerator<BuildHistoryEvent>;
}

/** Events to every listener, each at its own pace. */
export class EventFeed {
  readonly #listeners = new Set<(event: BuildHistoryEvent | undefined) => void>();
  #closed = false;

  send(event: BuildHistoryEvent): void {
    for (const listener of this.#listeners) listener(event);
  }

  /** Ends what listens. */
  close(): void {
    this.#closed = true;
    for (const listener of this.#listeners) listener(undefined);
  }

  subscribe(): Subscription {
    const backlog: BuildHistoryEvent[] = [];
    let wake: (() => void) | undefined;
    let ended = this.#closed;
    let overrun = false;
    const listener = (event: BuildHistoryEvent | undefined): void => {
      if (event === undefined) ended = true;
      else if (backlog.length >= MAX_BACKLOG) overrun = true;
      else backlog.push(event);
      wake?.();
    };
    this.#listeners.add(listener);
    async function* events(signal: AbortSignal): AsyncGenerator<BuildHistoryEvent> {
      const onAbort = (): void => wake?.();
      signal.addEventListener("abort", onAbort, { once: true });
      try {
        for (;;) {
          const next = backlog.shift();
          if (next !== undefined) {
            yield next;
            continue;
          }
          signal.throwIfAborted();
          if (overrun)
            throw new BuildError("resource_exhausted", "listener of the build history is too slow");
          if (ended) return;
          await new Promise<void>((resolve) => {
            wake = resolve;
          });
        }
      } finally {
        signal.removeEventListener("abort", onAbort);
      }
    }
    return { events, [Symbol.dispose]: () => this.#listeners.delete(listener) };
  }
}
