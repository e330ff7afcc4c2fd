import { createDeferred } from "@kiln/base";
import type { CommandContext } from "./command/command.ts";
import { usageError } from "./command/flags.ts";

const MAX_ANSWER_CHARS = 1024;
/** How long an answer may take that doesn't come from a person. */
const PIPED_ANSWER_MS = 2_000;

/**
 * Asks on standard output and reads one line; only `y` and `Y` mean yes, the end of the input means no. Without a
 * terminal the answer must be there already (`echo y | …`): nobody is waited for.
 *
 * @throws BuildError when there's neither a terminal nor an answer.
 */
export async function confirm(ctx: CommandContext, question: string): Promise<boolean> {
  const { stdin, stdout } = ctx.terminal;
  stdout.write(`${question} [y/N] `);
  const late = createDeferred<undefined>();
  const timer = stdin.isTTY ? undefined : setTimeout(() => late.resolve(undefined), PIPED_ANSWER_MS);
  try {
    const answer = await Promise.race([readLine(stdin), late.promise]);
    if (answer !== undefined) return /^[yY]\r?$/.test(answer);
  } finally {
    clearTimeout(timer);
  }
  stdout.write("\n");
  throw usageError(
    "standard input is no terminal and gives no answer",
    "pass --force to go on without asking",
  );
}

/** The first line of the input; what comes without a line end counts when the input ends. */
export async function readLine(stdin: AsyncIterable<string | Buffer>): Promise<string> {
  let answer = "";
  for await (const chunk of stdin) {
    answer += chunk.toString();
    if (answer.includes("\n") || answer.length > MAX_ANSWER_CHARS) break;
  }
  return answer.split("\n")[0] as string;
}
