import { setImmediate as nextTurn } from "node:timers/promises";

/** Longest stretch of synchronous work before other events get their turn. */
const sliceMs = 8;

/** Lets long loops of synchronous file work give way to timers and sockets. */
export class Pace {
  #since = Date.now();

  /** True when it is time to {@link rest}. */
  get due(): boolean {
    return Date.now() - this.#since > sliceMs;
  }

  /** Lets the event loop turn once. */
  async rest(): Promise<void> {
    await nextTurn();
    this.#since = Date.now();
  }
}
