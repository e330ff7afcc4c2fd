import type { BlobProgress, RefContext } from "./ref.ts";

interface Flight {
  readonly promise: Promise<unknown>;
  readonly controller: AbortController;
  readonly passengers: Set<RefContext>;
}

/**
 * Runs work once for all who ask for it at the same time. It is cancelled when the last of them has given up;
 * who asks then waits for its end before it is done anew. Progress goes to everybody. The session is that of the first one.
 */
export class Flights {
  readonly #flights = new Map<string, Flight>();

  /** Joins or starts the work named `key`. @throws what `work` throws, the reason of the caller's signal */
  async run<T>(key: string, ctx: RefContext, work: (ctx: RefContext) => Promise<T>): Promise<T> {
    ctx.signal.throwIfAborted();
    const known = this.#flights.get(key);
    const flight = known && !known.controller.signal.aborted ? known : this.#start(key, ctx, work);
    flight.passengers.add(ctx);
    const { promise: left, reject: leave } = Promise.withResolvers<never>();
    const onAbort = (): void => {
      flight.passengers.delete(ctx);
      if (flight.passengers.size === 0) flight.controller.abort(ctx.signal.reason);
      leave(ctx.signal.reason);
    };
    ctx.signal.addEventListener("abort", onAbort, { once: true });
    try {
      return (await Promise.race([flight.promise, left])) as T;
    } finally {
      ctx.signal.removeEventListener("abort", onAbort);
      flight.passengers.delete(ctx);
    }
  }

  #start<T>(key: string, ctx: RefContext, work: (ctx: RefContext) => Promise<T>): Flight {
    const controller = new AbortController();
    const passengers = new Set<RefContext>();
    const onProgress = (progress: BlobProgress): void => {
      for (const passenger of passengers) passenger.onProgress?.(progress);
    };
    // one that was cancelled may still be at it: two at a time would get into each other's way
    const earlier = this.#flights.get(key)?.promise;
    const begin = async (): Promise<T> => {
      controller.signal.throwIfAborted();
      return await work({ ...ctx, signal: controller.signal, onProgress });
    };
    const promise = earlier === undefined ? begin() : earlier.then(begin, begin);
    const flight: Flight = { promise, controller, passengers };
    this.#flights.set(key, flight);
    const land = (): void => {
      if (this.#flights.get(key) === flight) this.#flights.delete(key);
    };
    promise.then(land, land);
    return flight;
  }
}
