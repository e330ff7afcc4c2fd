import { errorMessage } from "@kiln/base";

const LEVELS = ["panic", "fatal", "error", "warning", "info", "debug", "trace"] as const;

/** How loud a line is; logrus's names. */
export type LogLevel = (typeof LEVELS)[number];

/** Fields of a line. Never secrets: they would stay in files. */
export type LogFields = Readonly<Record<string, string | number | boolean>>;

/** Writes the daemon's log to stderr, as text (logfmt) or JSON. */
export class Logger {
  readonly #format: "text" | "json";
  readonly #level: number;
  readonly #write: (line: string) => void;

  /** @throws Error for an unknown level. */
  constructor(
    opts: { readonly format: "text" | "json"; readonly level: string },
    write: (line: string) => void = (line) => process.stderr.write(line),
  ) {
    this.#format = opts.format;
    const name = opts.level === "warn" ? "warning" : opts.level;
    this.#level = LEVELS.indexOf(name as LogLevel);
    if (this.#level < 0) throw new Error(`not a valid logrus Level: ${JSON.stringify(opts.level)}`);
    this.#write = write;
  }

  error(message: string, error?: unknown, fields: LogFields = {}): void {
    this.log("error", message, error === undefined ? fields : { ...fields, error: errorMessage(error) });
  }

  warn(message: string, error?: unknown): void {
    this.log("warning", message, error === undefined ? {} : { error: errorMessage(error) });
  }

  info(message: string, fields: LogFields = {}): void {
    this.log("info", message, fields);
  }

  debug(message: string, fields: LogFields = {}): void {
    this.log("debug", message, fields);
  }

  log(level: LogLevel, message: string, fields: LogFields): void {
    if (LEVELS.indexOf(level) > this.#level) return;
    const time = new Date().toISOString();
    if (this.#format === "json") {
      this.#write(`${JSON.stringify({ ...fields, level, msg: message, time })}\n`);
      return;
    }
    const more = Object.entries(fields).map(([key, value]) => ` ${key}=${quoted(String(value))}`);
    this.#write(`time=${quoted(time)} level=${level} msg=${quoted(message)}${more.join("")}\n`);
  }
}

function quoted(text: string): string {
  return /^[\w./:@^+-]+$/.test(text) ? text : JSON.stringify(text);
}
