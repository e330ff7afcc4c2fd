/** Stops a daemon that nobody has used for a while. */
export class IdleTimer implements Disposable {
  readonly #timeoutMs: number;
  readonly #onIdle: () => void;
  #users = 0;
  #timer: NodeJS.Timeout | undefined;

  /** `timeoutMs` ≤ 0 never stops. */
  constructor(timeoutMs: number, onIdle: () => void) {
    this.#timeoutMs = timeoutMs;
    this.#onIdle = onIdle;
    this.#arm();
  }

  /** Keeps the daemon going until disposed of. */
  hold(): Disposable {
    this.#users++;
    clearTimeout(this.#timer);
    let held = true;
    return {
      [Symbol.dispose]: () => {
        if (!held) return;
        held = false;
        if (--this.#users === 0) this.#arm();
      },
    };
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#timer);
  }

  #arm(): void {
    if (this.#timeoutMs <= 0) return;
    this.#timer = setTimeout(this.#onIdle, this.#timeoutMs);
  }
}
