import { Semaphore } from "@kiln/base";

/** Mutual exclusion by name. */
export class KeyedLock {
  readonly #turns = new Map<string, { readonly turn: Semaphore; users: number }>();

  /** Waits for the other holders of `key`; dispose of the answer to let the next one in. */
  async lock(key: string, signal?: AbortSignal): Promise<Disposable> {
    let entry = this.#turns.get(key);
    if (!entry) {
      entry = { turn: new Semaphore(1), users: 0 };
      this.#turns.set(key, entry);
    }
    const held = entry;
    held.users++;
    const leave = (): void => {
      if (--held.users === 0) this.#turns.delete(key);
    };
    try {
      const permit = await held.turn.acquire(signal);
      let locked = true;
      return {
        [Symbol.dispose]() {
          if (!locked) return;
          locked = false;
          permit[Symbol.dispose]();
          leave();
        },
      };
    } catch (error) {
      leave();
      throw error;
    }
  }
}
