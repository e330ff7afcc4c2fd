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
  else if (format !== "pretty") ctx.terminal.stdout.write(`${runTemplate(format, description)}\n`);
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

/** Runs a template. What a record doesn't have is empty there, as in Go; in JSON it's left out. */
function runTemplate(format: string, description: RecordDescription): string {
  const texts = ["Name", "Context", "Dockerfile", "VCSRepository", "VCSRevision", "Target"] as const;
  const lists = ["Platform", "NamedContexts", "BuildArgs", "Labels", "Materials", "Attachments"] as const;
  const fields: Record<string, unknown> = { ...description };
  for (const name of texts) fields[name] ??= "";
  for (const name of lists) fields[name] ??= [];
  fields.KeepGitDir ??= false;
  fields.Duration ??= 0n;
  fields.Error ??= null;
  fields.CompletedAt ??= null;
  const json = (value: unknown): string => goJson(value === fields ? description : value);
  return parseTemplate(format, { name: "inspect", functions: { json } }).run(fields);
}
