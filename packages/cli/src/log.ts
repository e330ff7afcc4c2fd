import type { TextSink } from "./command/command.ts";

/** Writes `WARNING: text`. */
export function warn(output: TextSink, text: string): void {
  output.write(`WARNING: ${text}\n`);
}
