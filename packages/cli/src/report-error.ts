/** How a command's failure is told, and which exit code it has. */
import { errorMessage, isBuildError, isCanceled } from "@kiln/base";
import type { TextSink } from "./command/command.ts";
import { ExitCode } from "./command/command.ts";

/**
 * Writes what went wrong: what a policy said, the place in the user's files, the error and what can be done about it.
 * Returns the exit code.
 */
export async function reportError(error: unknown, output: TextSink, debug: boolean): Promise<number> {
  if (error instanceof ExitCode) return error.code;
  let text = "";
  if (isBuildError(error) && error.wire.length > 0) {
    const [{ failureOf }, { sourceExcerpt, sanitizeText }] = await Promise.all([
      import("@kiln/client"),
      import("@kiln/progress"),
    ]);
    const failure = failureOf(error);
    for (const message of failure.denyMessages) text += `Policy: ${sanitizeText(message)}\n`;
    for (const { source, ranges } of failure.sources) text += sourceExcerpt(source, ranges);
    text += `ERROR: ${sanitizeText(errorMessage(error))}\n`;
  } else {
    text += `ERROR: ${withoutEscapes(errorMessage(error))}\n`;
  }
  if (isBuildError(error) && error.hint !== undefined) text += `HINT: ${error.hint}\n`;
  if (debug && error instanceof Error && error.stack) text += `${error.stack}\n`;
  output.write(text);
  return exitCodeOf(error);
}

/** 100 for a failure inside the daemon, 102 for exhausted resources, 130 for a cancellation, else 1. */
export function exitCodeOf(error: unknown): number {
  if (error instanceof ExitCode) return error.code;
  if (isCanceled(error)) return 130;
  if (isBuildError(error, "internal")) return 100;
  if (isBuildError(error, "resource_exhausted")) return 102;
  return 1;
}

function withoutEscapes(text: string): string {
  return text.replace(/[\x00-\x08\x0b-\x1f\x7f-\x9f]/g, "");
}
