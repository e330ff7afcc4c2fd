import type { PruneOptions, RefManager } from "@kiln/store";
import type { Logger } from "./log.ts";

/** Pauses of the background collection (buildkit.md §9.5). */
const FIRST_DELAY_MS = 1_000;
const MIN_INTERVAL_MS = 60_000;
/** How often the cap is looked at while builds run. */
const WATCH_INTERVAL_MS = 10_000;

/**
 * Runs garbage collection in the background: a second after the start, after builds, and every ten seconds
 * while there is something to watch, so that the cap holds during long builds too.
 */
export class Collector implements Disposable {
  readonly #refs: RefManager;
  readonly #rules: readonly PruneOptions[];
  readonly #log: Logger;
  readonly #watch: NodeJS.Timeout;
  #timer: NodeJS.Timeout | undefined;
  #last = 0;

  constructor(refs: RefManager, rules: readonly PruneOptions[], log: Logger) {
    this.#refs = refs;
    this.#rules = rules;
    this.#log = log;
    this.#watch = setInterval(() => void this.#run(), WATCH_INTERVAL_MS);
    this.#watch.unref();
    this.schedule();
  }

  /** Asks for a run soon; calls within a minute count once. */
  schedule(): void {
    if (this.#timer !== undefined || this.#rules.length === 0) return;
    const delay = Math.max(FIRST_DELAY_MS, this.#last + MIN_INTERVAL_MS - Date.now());
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      this.#last = Date.now();
      void this.#run();
    }, delay);
    this.#timer.unref();
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#timer);
    clearInterval(this.#watch);
  }

  async #run(): Promise<void> {
    if (this.#rules.length === 0) return;
    try {
      await this.#refs.enforce(this.#rules);
    } catch (error) {
      this.#log.error("garbage collection failed", error);
    }
  }
}
