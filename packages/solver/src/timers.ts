/** Where time comes from. Tests pass one that they move by hand. */
export interface Timers {
  /** Milliseconds since the epoch. */
  now(): number;
  /** Runs `fn` after `ms` milliseconds, unless disposed of before. Keeps the program alive only if `ms` is 0. */
  after(ms: number, fn: () => void): Disposable;
}

/** The machine's clock. */
export const systemTimers: Timers = {
  now: () => Date.now(),
  after(ms, fn) {
    const timer: unknown = setTimeout(fn, ms);
    if (
      ms > 0 &&
      typeof timer === "object" &&
      timer !== null &&
      "unref" in timer &&
      typeof timer.unref === "function"
    ) {
      timer.unref();
    }
    return { [Symbol.dispose]: () => clearTimeout(timer as ReturnType<typeof setTimeout>) };
  },
};

/** A random name, 25 characters of base 36. */
export function randomId(): string {
  let out = "";
  for (const byte of crypto.getRandomValues(new Uint8Array(25))) out += (byte % 36).toString(36);
  return out;
}
