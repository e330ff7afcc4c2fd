import { existsSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { isErrno } from "@kiln/sys";

/** Enough for the database to note a few dozen removals. */
const RESERVE_BYTES = 2 << 20;
/** With less than this free the reserve is given up. */
const LOW_BYTES = 4 << 20;
/** With more than this free it is made again. */
const ENOUGH_BYTES = 16 << 20;

/**
 * Some room on the disk that is given up when it is full: removing something has to be noted first, and a note
 * needs room, too.
 */
export class SpaceReserve {
  readonly #file: string;
  readonly #freeBytes: () => number;

  constructor(file: string, freeBytes: () => number) {
    this.#file = file;
    this.#freeBytes = freeBytes;
  }

  /** Gives the room up when the disk is about full. */
  release(): void {
    if (existsSync(this.#file) && this.#freeBytes() < LOW_BYTES) rmSync(this.#file, { force: true });
  }

  /** Takes the room again once there is enough. */
  restore(): void {
    if (existsSync(this.#file) || this.#freeBytes() < ENOUGH_BYTES) return;
    const fresh = `${this.#file}.new`;
    try {
      writeFileSync(fresh, new Uint8Array(RESERVE_BYTES), { mode: 0o600 });
      renameSync(fresh, this.#file);
    } catch (error) {
      rmSync(fresh, { force: true });
      if (!isErrno(error, "ENOSPC", "EDQUOT")) throw error;
    }
  }
}
