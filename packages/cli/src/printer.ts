/** Connects a build's status messages with a display and the clock. */
import { systemClock } from "@kiln/base";
import {
  createDisplay,
  type Display,
  dedupeWarnings,
  REFRESH_INTERVAL_MS,
  type SolveStatus,
  type VertexWarning,
  warningSummary,
} from "@kiln/progress";
import type { TextSink } from "./command/command.ts";
import { warn } from "./log.ts";

/** What a printer shows and where. */
export interface PrinterOptions {
  readonly mode: string;
  readonly output: TextSink;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly debug: boolean;
  readonly description?: string;
  readonly label?: string;
  /** No summary of warnings at the end. */
  readonly hidesWarnings?: boolean;
}

/**
 * Shows one or more builds. {@link end} must be called, also after a failure; until then the display is refreshed
 * while no message comes.
 */
export class Printer {
  readonly mode: string;
  readonly #options: PrinterOptions;
  readonly #display: Display;
  readonly #intervalMs: number;
  readonly #warnings: VertexWarning[] = [];
  readonly #messages: string[] = [];
  #timer: NodeJS.Timeout | undefined;
  #isEnded = false;

  /** @throws BuildError for an unknown mode, and for `tty` without a terminal. */
  constructor(options: PrinterOptions) {
    const { output, env } = options;
    const fromEnv = options.mode === "auto" ? env.BUILDKIT_PROGRESS : undefined;
    this.mode = fromEnv || options.mode;
    this.#options = options;
    const rate = Number(env.TTY_DISPLAY_RATE);
    const hasRate = Number.isInteger(rate) && rate > 0;
    this.#intervalMs = hasRate ? rate : REFRESH_INTERVAL_MS;
    this.#display = createDisplay(
      this.mode,
      {
        write: (text) => void output.write(text),
        size: () => (output.isTTY ? { columns: output.columns ?? 80, rows: output.rows ?? 24 } : undefined),
      },
      {
        clock: systemClock,
        env: (name) => env[name],
        ...(hasRate ? { limitMs: rate } : {}),
        ...(options.description === undefined ? {} : { description: options.description }),
        ...(options.label === undefined ? {} : { label: options.label }),
      },
    );
    this.#schedule();
  }

  readonly update = (status: SolveStatus): void => {
    if (this.#isEnded) return;
    this.#warnings.push(...status.warnings);
    this.#display.update(status);
    this.#schedule();
  };

  /** A warning of the client itself; it's printed once the display is through. */
  readonly warn = (message: string): void => {
    if (this.#isEnded) warn(this.#options.output, message);
    else this.#messages.push(message);
  };

  #schedule(): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.#display.refresh();
      this.#schedule();
    }, this.#intervalMs);
  }

  /** The warnings so far, each once. */
  get warnings(): VertexWarning[] {
    return dedupeWarnings(this.#warnings);
  }

  /** Prints what is left, then the summary of warnings. */
  end(): void {
    if (this.#isEnded) return;
    this.#isEnded = true;
    clearTimeout(this.#timer);
    this.#display.done();
    for (const message of this.#messages) warn(this.#options.output, message);
    if (
      this.#options.hidesWarnings ||
      this.mode === "quiet" ||
      this.mode === "none" ||
      this.mode === "rawjson"
    )
      return;
    const summary = warningSummary(this.warnings, this.#options.debug);
    if (summary !== "") this.#options.output.write(summary);
  }
}
