import { Writable } from "node:stream";
import { formatG } from "@kiln/formats";
import type { ProgressWriter } from "@kiln/solver";

/** How much a step may write to its log; -1 is no limit. */
export interface LogLimits {
  readonly maxSizeBytes: number;
  readonly maxBytesPerSecond: number;
}

const DEFAULT_SIZE_BYTES = 2 * 1024 * 1024;
const DEFAULT_BYTES_PER_SECOND = 200 * 1024;
/** What is kept of the end of clipped output, to be shown if the step fails. */
const TAIL_BYTES = 256 * 1024;

/** The limits that the environment sets (`BUILDKIT_STEP_LOG_MAX_SIZE`, `BUILDKIT_STEP_LOG_MAX_SPEED`). */
export function logLimitsFromEnv(env: Readonly<Record<string, string | undefined>>): LogLimits {
  const read = (name: string, fallback: number): number => {
    const text = env[name] ?? "";
    return /^[+-]?[0-9]{1,10}$/.test(text) ? Number(text) : fallback;
  };
  return {
    maxSizeBytes: read("BUILDKIT_STEP_LOG_MAX_SIZE", DEFAULT_SIZE_BYTES),
    maxBytesPerSecond: read("BUILDKIT_STEP_LOG_MAX_SPEED", DEFAULT_BYTES_PER_SECOND),
  };
}

/** One output stream of a step: what is written goes to the log, up to the limits. */
export class StepLog {
  readonly stream: Writable;
  readonly #progress: ProgressWriter;
  readonly #number: 1 | 2;
  readonly #limits: LogLimits;
  readonly #createdMs: number;
  readonly #now: () => number;
  #size = 0;
  #clipping = false;
  #clippedFor: "speed" | "size" = "size";
  #tail: Buffer[] | undefined;
  #tailSize = 0;

  constructor(progress: ProgressWriter, number: 1 | 2, limits: LogLimits, now: () => number = Date.now) {
    this.#progress = progress;
    this.#number = number;
    this.#limits = limits;
    this.#now = now;
    this.#createdMs = now();
    this.stream = new Writable({
      write: (chunk: Buffer, _encoding, done) => {
        this.#write(chunk);
        done();
      },
    });
  }

  #write(chunk: Buffer): void {
    const allowed = this.#allow(chunk.length);
    if (allowed < chunk.length) this.#tail ??= [];
    if (this.#tail) this.#keep(chunk);
    if (allowed === chunk.length) {
      this.#clipping = false;
      this.#progress.log(this.#number, chunk);
      return;
    }
    let shown = chunk.subarray(0, allowed);
    if (!this.#clipping) {
      this.#clipping = true;
      const notice = `\n[output clipped, log limit ${this.#limitText()} reached]\n`;
      shown = Buffer.concat([shown, Buffer.from(notice)]);
    }
    if (shown.length > 0) this.#progress.log(this.#number, shown);
  }

  /** How many of `size` further bytes may be shown. */
  #allow(size: number): number {
    const before = this.#size;
    this.#size += size;
    const { maxSizeBytes, maxBytesPerSecond } = this.#limits;
    let max = -1;
    if (maxBytesPerSecond !== -1) {
      max = Math.ceil((this.#now() - this.#createdMs) / 1000) * maxBytesPerSecond;
      this.#clippedFor = "speed";
    }
    // As upstream: without a limit of size there is none of speed either.
    if (max === -1 || max > maxSizeBytes) {
      max = maxSizeBytes;
      this.#clippedFor = "size";
    }
    if (max === -1 || this.#size <= max) return size;
    return Math.max(0, max - before);
  }

  #limitText(): string {
    if (this.#clippedFor === "speed") return `${binarySize(this.#limits.maxBytesPerSecond)}/s`;
    return binarySize(this.#limits.maxSizeBytes);
  }

  #keep(chunk: Buffer): void {
    this.#tail?.push(chunk);
    this.#tailSize += chunk.length;
    while (this.#tail && this.#tailSize - (this.#tail[0]?.length ?? 0) >= TAIL_BYTES) {
      this.#tailSize -= this.#tail.shift()?.length ?? 0;
    }
  }

  /** Shows the end of clipped output after all, because the step has failed. */
  flushTail(): void {
    if (!this.#tail) return;
    const tail = Buffer.concat(this.#tail);
    this.#tail = undefined;
    this.#tailSize = 0;
    this.#progress.log(this.#number, tail.subarray(Math.max(0, tail.length - TAIL_BYTES)));
  }
}

const BINARY_UNITS = ["B", "KiB", "MiB", "GiB"];

/** `2MiB`: a size with its largest fitting binary unit, as Go's `%#g` of tonistiigi/units. */
function binarySize(bytes: number): string {
  let unit = 0;
  let value = bytes;
  while (Math.abs(value) >= 1024 && unit < BINARY_UNITS.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${formatG(value)}${BINARY_UNITS[unit]}`;
}
