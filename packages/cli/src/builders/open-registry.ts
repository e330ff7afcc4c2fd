import { BuilderRegistry } from "@kiln/driver";
import type { CommandContext } from "../command/command.ts";
import { kilndCommand } from "../kilnd-command.ts";

/** The builders of this user. */
export function openRegistry(ctx: CommandContext): BuilderRegistry {
  return new BuilderRegistry(ctx.terminal.env, kilndCommand(ctx.terminal.env));
}
