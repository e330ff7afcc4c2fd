import type { PruneOptions, RefManager } from "@kiln/store";
import type { Logger } from "./log.ts";

/** Pauses of the background collection (buildkit.md §9.5). */
const FIRST_DELAY_MS = 1_000;
const MIN_INTERVAL_MS = 60_000;
/** How often the cap is looked at while builds run. */
const WATCH_INTERVAL_MS = 3_000;

/**
 * Runs garbage collection in the background: a second after the start, after builds, and every three seconds
 * while builds run, so that the cap holds during long builds too. A daemon without builds does nothing.
 */
export class Collector implements Disposable {
  readonly #refs: Pick<RefManager, "enforce">;
  readonly #rules: readonly PruneOptions[];
  readonly #log: Logger;
  readonly #watchIntervalMs: number;
  #watch: NodeJS.Timeout | undefined;
  #builds = 0;
  #timer: NodeJS.Timeout | undefined;
  #last = 0;

  constructor(
    refs: Pick<RefManager, "enforce">,
    rules: readonly PruneOptions[],
    opts: { readonly log: Logger; readonly watchIntervalMs?: number },
  ) {
    this.#refs = refs;
    this.#rules = rules;
    this.#log = opts.log;
    this.#watchIntervalMs = opts.watchIntervalMs ?? WATCH_INTERVAL_MS;
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

  /** Holds the cap until disposed of. */
  watch(): Disposable {
    this.#builds++;
    this.#watch ??= setInterval(() => void this.#run(), this.#watchIntervalMs).unref();
    let held = true;
    return {
      [Symbol.dispose]: () => {
        if (!held) return;
        held = false;
        if (--this.#builds === 0) this.#stopWatching();
      },
    };
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#timer);
    this.#stopWatching();
  }

  #stopWatching(): void {
    clearInterval(this.#watch);
    this.#watch = undefined;
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
