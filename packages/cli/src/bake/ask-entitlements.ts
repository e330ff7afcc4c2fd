import type { EntitlementPrompt } from "@kiln/bake";
import { BuildError, withSignal } from "@kiln/base";
import type { CommandContext } from "../command/command.ts";
import { readLine } from "../prompt.ts";

/**
 * Tells which permissions a definition wants, and asks for them on a terminal. @throws BuildError when they aren't
 * given; without a terminal that's always so.
 */
export async function askForEntitlements(ctx: CommandContext, prompt: EntitlementPrompt): Promise<void> {
  const { terminal, flags } = ctx;
  const required = [...prompt.required.always, ...(prompt.fsEnabled ? prompt.required.fs : [])];
  if (flags.string("progress") === "rawjson") {
    if (required.length === 0) return;
    throw new BuildError(
      "permission_denied",
      `additional privileges requested: pass ${JSON.stringify(required.join(" "))} to grant requested privileges`,
    );
  }
  const isTerminal = terminal.stdin.isTTY === true;
  const allFlags = JSON.stringify(prompt.flags.join(" "));
  let text = `Your build is requesting privileges for following possibly insecure capabilities:\n\n${prompt.lines.join("\n")}\n`;
  text += isTerminal
    ? `\nIn order to not see this message in the future pass ${allFlags} to grant requested privileges.\n`
    : `\nPass ${allFlags} to grant requested privileges.\n`;
  text += `\nYour full command with requested privileges:\n\n${fullCommand(ctx, prompt.flags)}\n\n`;
  if (prompt.fsEnabled && !prompt.fsDecided && prompt.required.fs.length > 0) {
    text += "To disable filesystem entitlements checks, you can set BUILDX_BAKE_ENTITLEMENTS_FS=0 .\n\n";
  }
  terminal.stderr.write(text);
  if (required.length === 0) return;
  if (!isTerminal) throw new BuildError("permission_denied", "additional privileges requested");
  terminal.stderr.write("Do you want to grant requested privileges and continue? [y/N] ");
  if (!(await isGranted(ctx))) throw new BuildError("permission_denied", "additional privileges requested");
}

/** Reads the answer; Ctrl-C is a no. */
async function isGranted({ terminal, signal }: CommandContext): Promise<boolean> {
  try {
    return /^[yY]\s*$/.test(await withSignal(readLine(terminal.stdin), signal));
  } catch (error) {
    if (signal.aborted) return false;
    throw error;
  }
}

function fullCommand(ctx: CommandContext, flags: readonly string[]): string {
  const argv = process.argv.slice(2);
  const at = argv.indexOf("bake") + 1;
  return [ctx.program, ...argv.slice(0, at), ...flags, ...argv.slice(at)].join(" ");
}
