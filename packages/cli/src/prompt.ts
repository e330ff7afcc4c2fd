import type { CommandContext } from "./command/command.ts";

const MAX_ANSWER_CHARS = 1024;

/** Asks on standard output and reads one line; only `y` and `Y` mean yes. The end of the input means no. */
export async function confirm(ctx: CommandContext, question: string): Promise<boolean> {
  ctx.terminal.stdout.write(`${question} [y/N] `);
  let answer = "";
  for await (const chunk of ctx.terminal.stdin) {
    answer += chunk.toString();
    if (answer.includes("\n") || answer.length > MAX_ANSWER_CHARS) break;
  }
  return /^[yY]\r?$/.test(answer.split("\n")[0] as string);
}
