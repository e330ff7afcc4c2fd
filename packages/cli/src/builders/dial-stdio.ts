/** `kiln dial-stdio`. */
import { asVertex, resolveNodes } from "@kiln/driver";
import { parsePlatform } from "@kiln/oci";
import { chooseProgress } from "../build/build-command.ts";
import type { CommandBody } from "../command/command.ts";
import { Printer } from "../printer.ts";
import { pipeRaw } from "../raw-pipe.ts";
import { openRegistry } from "./open-registry.ts";

/** The command. */
export const dialStdioCommand: CommandBody = {
  usage: "",
  flags: [
    { name: "platform", kind: "string", usage: "Target platform: this is used for node selection" },
    {
      name: "progress",
      kind: "string",
      defaultValue: "none",
      usage:
        'Set type of progress output ("auto", "plain", "rawjson", "tty"). Use plain to show container output',
    },
  ],
  minArgs: 0,
  maxArgs: 0,
  async run(ctx) {
    const { flags, terminal, signal } = ctx;
    const builder = openRegistry(ctx).find(flags.string("builder"));
    const printer = new Printer({
      mode: chooseProgress(flags.string("progress"), false).mode,
      output: terminal.stderr,
      env: terminal.env,
      debug: ctx.debug,
      description: `builder: ${builder.name}`,
      label: `builder:${builder.name}`,
    });
    const platform = flags.string("platform") || terminal.env.DOCKER_DEFAULT_PLATFORM;
    try {
      await asVertex("Proxying to builder", printer.update, async () => {
        const platforms = platform ? [parsePlatform(platform)] : [];
        const [resolved] = await resolveNodes(builder.nodes, platforms, { signal, onStatus: printer.update });
        if (resolved === undefined) throw new Error("no node was resolved");
        const dial = resolved.node.driver.dial();
        const stream = await dial(signal);
        await pipeRaw(stream, terminal, signal);
      });
    } finally {
      printer.end();
      await Promise.all(builder.nodes.map((node) => node.close()));
    }
    return 0;
  },
};
