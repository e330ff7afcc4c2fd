import type { CommandBody } from "../command/command.ts";
import { openUrl } from "./open-url.ts";
import { findRecord, openNodes } from "./query.ts";

/** `kiln history open`: in Docker Desktop, like Buildx. */
export const historyOpenCommand: CommandBody = {
  usage: "[OPTIONS] [REF]",
  flags: [],
  minArgs: 0,
  maxArgs: 1,
  async run(ctx) {
    await using nodes = await openNodes(ctx);
    const { node, record } = await findRecord(nodes, ctx.args[0] ?? "", ctx.signal);
    await openUrl(`docker-desktop://dashboard/build/${node.builder}/${node.name}/${record.Ref}`);
    return 0;
  },
};
