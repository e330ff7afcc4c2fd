import type { CommandBody } from "../command/command.ts";
import { openRegistry } from "./open-registry.ts";

/** `kiln stop`. */
export const stopCommand: CommandBody = {
  usage: "[NAME]",
  flags: [],
  minArgs: 0,
  maxArgs: 1,
  async run(ctx) {
    const builder = openRegistry(ctx).find(ctx.args[0] ?? ctx.flags.string("builder"));
    await Promise.all(builder.nodes.map((node) => node.driver.stop(ctx.signal)));
    return 0;
  },
};
