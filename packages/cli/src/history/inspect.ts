/** `kiln history inspect`. */
import { relative } from "node:path";
import { goJson, parseTemplate } from "@kiln/formats";
import type { CommandBody, CommandContext } from "../command/command.ts";
import { describeRecord, type RecordDescription } from "./describe.ts";
import { prettyRecord } from "./pretty.ts";
import { findRecord, openNodes } from "./query.ts";

/** The command. */
export const historyInspectCommand: CommandBody = {
  usage: "[OPTIONS] [REF]",
  flags: [{ name: "format", kind: "string", defaultValue: "pretty", usage: "Format the output" }],
  minArgs: 0,
  maxArgs: 1,
  async run(ctx) {
    await using nodes = await openNodes(ctx);
    const found = await findRecord(nodes, ctx.args[0] ?? "", ctx.signal);
    const place = nodes.registry.store.localState.read({
      builder: found.node.builder,
      node: found.node.name,
      id: found.record.Ref,
    });
    const description = await describeRecord(found, place, (path) => shorten(path, ctx.terminal.cwd()));
    print(ctx, description, `${found.node.builder}/${found.node.name}/${found.record.Ref}`);
    return 0;
  },
};

function print(ctx: CommandContext, description: RecordDescription, fullRef: string): void {
  const format = ctx.flags.string("format");
  if (format === "json") ctx.terminal.stdout.write(`${goJson(description, { indent: "  " })}\n`);
  else if (format !== "pretty") ctx.terminal.stdout.write(`${parseTemplate(format).run(description)}\n`);
  else {
    const opts = { showsRef: ctx.args[0] === undefined, fullRef, debug: ctx.debug, program: ctx.program };
    ctx.terminal.stdout.write(prettyRecord(description, opts));
  }
}

/** A path as seen from a directory, if it lies below or is near. */
function shorten(path: string, from: string): string {
  const short = relative(from, path);
  return short.startsWith("../") ? path : short === "" ? "." : short;
}
