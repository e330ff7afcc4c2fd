/** Resets that a peer may send at once, and per second after that. */
const BURST = 1000;
const PER_SECOND = 33;

/** Bounds how often a peer may open streams only to reset them. */
export class ResetBudget {
  #left = BURST;
  #lastMs = 0;

  /** Returns false when there were too many. */
  take(): boolean {
    if (this.#left < BURST / 2) {
      const nowMs = Date.now();
      if (this.#lastMs !== 0)
        this.#left = Math.min(BURST, this.#left + ((nowMs - this.#lastMs) / 1000) * PER_SECOND);
      this.#lastMs = nowMs;
    }
    this.#left--;
    return this.#left >= 0;
  }
}
