import type { CacheSource, PendingCacheSource } from "./cache/cache-source.ts";
import type { Core } from "./core/core.ts";

/** Tells the core of caches that are being opened, and remembers those that have been. */
export class PendingSources<TOp, TResult> {
  readonly #core: Core<TOp, TResult>;
  readonly #pump: () => void;
  readonly #opened = new WeakMap<PendingCacheSource<TResult>, CacheSource<TResult> | undefined>();

  constructor(core: Core<TOp, TResult>, pump: () => void) {
    this.#core = core;
    this.#pump = pump;
  }

  /** What is open of `given`, and what the core is to wait for; caches that aren't there are left out. */
  sort(given: readonly (CacheSource<TResult> | PendingCacheSource<TResult>)[]): {
    readonly sources: readonly CacheSource<TResult>[];
    readonly pending: readonly PendingCacheSource<TResult>[];
  } {
    const sources: CacheSource<TResult>[] = [];
    const pending: PendingCacheSource<TResult>[] = [];
    for (const item of given) {
      if (!("opened" in item)) {
        sources.push(item);
      } else if (this.#opened.has(item)) {
        const source = this.#opened.get(item);
        if (source !== undefined) sources.push(source);
      } else {
        pending.push(item);
        this.#expect(item);
      }
    }
    return { sources, pending };
  }

  #expect(item: PendingCacheSource<TResult>): void {
    if (this.#core.expected.has(item)) return;
    this.#core.sourceExpected(item);
    void item.opened.then((source) => {
      this.#opened.set(item, source);
      this.#core.sourceOpened(item, source);
      this.#pump();
    });
  }
}
