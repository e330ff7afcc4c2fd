import { BuildHistoryEventType } from "@kiln/api/control";
import { BuildError, errorMessage } from "@kiln/base";
import type { CommandBody, CommandContext } from "../command/command.ts";
import { usageError } from "../command/flags.ts";
import { type HistoryNodes, openNodes } from "./query.ts";

/** `kiln history rm`. */
export const historyRmCommand: CommandBody = {
  usage: "[OPTIONS] [REF...]",
  flags: [{ name: "all", kind: "bool", usage: "Remove all build records" }],
  minArgs: 0,
  maxArgs: Number.POSITIVE_INFINITY,
  async run(ctx) {
    const all = ctx.flags.bool("all");
    if (ctx.args.length === 0 && !all) throw usageError("rm requires at least one argument");
    if (ctx.args.length > 0 && all) throw usageError("rm requires either --all or at least one argument");
    await using nodes = await openNodes(ctx);
    if (all) await removeAll(nodes, ctx);
    else await removeSome(nodes, ctx);
    return 0;
  },
};

async function removeAll(nodes: HistoryNodes, ctx: CommandContext): Promise<void> {
  for (const { node, client } of nodes.clients) {
    const refs: string[] = [];
    for await (const { type, record } of client.history({ EarlyExit: true }, { signal: ctx.signal })) {
      if (type === BuildHistoryEventType.COMPLETE && record) refs.push(record.Ref);
    }
    for (const ref of refs) {
      await client.updateHistory({ Ref: ref, Delete: true }, { signal: ctx.signal });
      nodes.registry.store.localState.remove({ builder: node.builder, node: node.name, id: ref });
    }
  }
}

/** A record is gone when one node had it. */
async function removeSome(nodes: HistoryNodes, ctx: CommandContext): Promise<void> {
  const failures: string[] = [];
  for (const argument of ctx.args) {
    const ref = argument.split("/").at(-1) as string;
    const errors: string[] = [];
    for (const { node, client } of nodes.clients) {
      try {
        await client.updateHistory({ Ref: ref, Delete: true }, { signal: ctx.signal });
        nodes.registry.store.localState.remove({ builder: node.builder, node: node.name, id: ref });
      } catch (error) {
        errors.push(errorMessage(error));
      }
    }
    if (errors.length === nodes.clients.length) failures.push(...errors);
  }
  if (failures.length > 0) throw new BuildError("unknown", failures.join("\n"));
}
