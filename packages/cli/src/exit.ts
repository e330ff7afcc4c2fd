import { openedOutputs } from "./standard-terminal.ts";

/** Ends the program when all that was written has gone out; what is still open doesn't hold it up. */
export async function exitWith(code: number): Promise<never> {
  for (const stream of openedOutputs()) {
    await new Promise<void>((resolve) => {
      if (stream.destroyed || stream.writableEnded) resolve();
      else stream.write("", () => resolve());
    });
  }
  process.exit(code);
}
