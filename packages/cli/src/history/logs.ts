import type { CommandBody } from "../command/command.ts";
import { Printer } from "../printer.ts";
import { findRecord, openNodes } from "./query.ts";

/** `kiln history logs`. */
export const historyLogsCommand: CommandBody = {
  usage: "[OPTIONS] [REF]",
  flags: [
    {
      name: "progress",
      kind: "string",
      defaultValue: "plain",
      usage: "Set type of progress output (plain, rawjson, tty)",
    },
  ],
  minArgs: 0,
  maxArgs: 1,
  async run(ctx) {
    await using nodes = await openNodes(ctx);
    const { record, client } = await findRecord(nodes, ctx.args[0] ?? "", ctx.signal);
    const mode = ctx.flags.string("progress");
    const printer = new Printer({
      mode: mode === "auto" ? "plain" : mode,
      output: ctx.terminal.stderr,
      env: ctx.terminal.env,
      debug: ctx.debug,
      hidesWarnings: true,
    });
    try {
      for await (const status of client.status(record.Ref, { signal: ctx.signal })) printer.update(status);
    } finally {
      printer.end();
    }
    return 0;
  },
};
