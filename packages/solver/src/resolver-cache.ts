import { Semaphore } from "@kiln/base";
import type { ResolverCache, ResolverLock } from "./types.ts";

interface Entry {
  readonly turn: Semaphore;
  readonly values: unknown[];
}

/** A {@link ResolverCache} of one job. */
export class JobResolverCache implements ResolverCache {
  readonly #entries = new Map<string, Entry>();

  async lock(key: string, signal?: AbortSignal): Promise<ResolverLock> {
    let entry = this.#entries.get(key);
    if (!entry) {
      entry = { turn: new Semaphore(1), values: [] };
      this.#entries.set(key, entry);
    }
    const permit = await entry.turn.acquire(signal);
    let held = true;
    return {
      values: [...entry.values],
      release: (value) => {
        if (!held) return;
        held = false;
        if (value !== undefined) entry.values.push(value);
        permit[Symbol.dispose]();
      },
    };
  }
}

/**
 * The caches of several jobs as one: all are locked, in the order given, which must be the same
 * everywhere. A value is left in each.
 */
export function combineResolverCaches(caches: () => readonly ResolverCache[]): ResolverCache {
  return {
    async lock(key, signal) {
      const locks: ResolverLock[] = [];
      try {
        for (const cache of caches()) locks.push(await cache.lock(key, signal));
      } catch (error) {
        for (const lock of locks) lock.release();
        throw error;
      }
      return {
        values: [...new Set(locks.flatMap((lock) => lock.values))],
        release: (value) => {
          for (const lock of locks) lock.release(value);
        },
      };
    },
  };
}
