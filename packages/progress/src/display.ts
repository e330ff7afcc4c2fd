import type { Clock } from "@kiln/base";
import type { SolveStatus } from "./status.ts";

/** Where a display writes. Text only; the writer encodes it as UTF-8. */
export interface ProgressOutput {
  write(text: string): void;
}

/** Size of a terminal in cells. */
export interface TerminalSize {
  readonly columns: number;
  readonly rows: number;
}

/**
 * Shows the progress of one build.
 *
 * Life cycle: any number of {@link update}; {@link refresh} from a timer while nothing comes (every 150 ms);
 * {@link done} once at the end, after which nothing is written any more.
 */
export interface Display {
  update(status: SolveStatus): void;
  refresh(): void;
  done(): void;
}

/** How displays differ from build to build. */
export interface DisplayOptions {
  readonly clock: Clock;
  /** `building with "x" instance using y driver`: the plain display's first line. */
  readonly description?: string;
  /** `driver:builder` at the right edge of the tty display. */
  readonly label?: string;
  /** First word of the tty display, `Building` by default. */
  readonly phase?: string;
  /** Environment variables that displays heed: colours, number of log lines, truncation. */
  readonly env?: (name: string) => string | undefined;
  /** Shortest time between two refreshes that updates cause, 100 ms by default. */
  readonly limitMs?: number;
}

/** Default of {@link DisplayOptions.limitMs}. */
export const DISPLAY_LIMIT_MS = 100;

/** How often a host calls {@link Display.refresh} while no update comes. */
export const REFRESH_INTERVAL_MS = 150;

/** Lets one refresh through in every `limitMs`. */
export class RefreshLimiter {
  readonly #clock: Clock;
  readonly #limitMs: number;
  #lastMs = Number.NEGATIVE_INFINITY;

  constructor(clock: Clock, limitMs: number) {
    this.#clock = clock;
    this.#limitMs = limitMs;
  }

  allow(): boolean {
    const now = this.#clock.now();
    if (now - this.#lastMs < this.#limitMs) return false;
    this.#lastMs = now;
    return true;
  }
}

/** Shows nothing. */
export function createQuietDisplay(): Display {
  return { update: () => undefined, refresh: () => undefined, done: () => undefined };
}
