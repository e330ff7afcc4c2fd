import type { TextSink } from "./command/command.ts";

/** Writes `WARNING: text`, yellow on a terminal. */
export function warn(output: TextSink, text: string): void {
  output.write(output.isTTY ? `\x1b[33mWARNING: ${text}\x1b[0m\n` : `WARNING: ${text}\n`);
}
