/** Cells that one window may hold; bounds what a hostile size can cost. */
const MAX_COLUMNS = 1000;

/**
 * The last lines of a step's output as a terminal of `height` × `width` would show them. Text wraps at the
 * right edge and the oldest line scrolls out; a carriage return goes back to the line's start. Colours are
 * left out.
 */
export class LogWindow {
  #height: number;
  #width: number;
  #lines: string[] = [""];
  /** Characters that were ever written; an idle step gives its place to a busy one. */
  written = 0;

  constructor(height: number, width: number) {
    this.#height = Math.max(1, height);
    this.#width = Math.min(MAX_COLUMNS, Math.max(1, width));
  }

  resize(height: number, width: number): void {
    this.#height = Math.max(1, height);
    this.#width = Math.min(MAX_COLUMNS, Math.max(1, width));
    this.#lines = this.#lines.slice(-this.#height).map((line) => line.slice(0, this.#width));
  }

  /** Text that was sanitised before. */
  write(text: string): void {
    this.written += text.length;
    const plain = text.replace(/\x1b\[[0-9;:]*m/g, "").replaceAll("\t", "        ");
    const parts = plain.split("\n");
    parts.forEach((part, i) => {
      if (i > 0) this.#newLine();
      this.#append(part);
    });
  }

  #append(text: string): void {
    let rest = text;
    while (rest !== "") {
      const line = this.#lines.at(-1) as string;
      const room = this.#width - line.length;
      if (room <= 0) {
        this.#newLine();
        continue;
      }
      this.#lines[this.#lines.length - 1] = line + rest.slice(0, room);
      rest = rest.slice(room);
    }
  }

  #newLine(): void {
    this.#lines.push("");
    if (this.#lines.length > this.#height) this.#lines.shift();
  }

  /** Lines in use, the one being written included when it has text. */
  get usedHeight(): number {
    return this.#lines.length;
  }

  /** What to show: lines with text, each padded to the window's width. */
  visibleLines(): string[] {
    return this.#lines.filter((line) => line.trim() !== "").map((line) => line.padEnd(this.#width));
  }
}
