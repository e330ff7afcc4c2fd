import { open, rm } from "node:fs/promises";
import { BuildError, codeOfNodeError, nodeReason, wrapError } from "@kiln/base";
import { formatPlatformAll } from "@kiln/oci";
import type { CommandBody, CommandContext } from "../command/command.ts";
import { usageError } from "../command/flags.ts";
import { type BundledRecord, writeBundle } from "./bundle.ts";
import { type FoundRecord, type HistoryNodes, openNodes, queryRecords } from "./query.ts";

/** `kiln history export`. */
export const historyExportCommand: CommandBody = {
  usage: "[OPTIONS] [REF...]",
  flags: [
    { name: "all", kind: "bool", usage: "Export all build records for the builder" },
    { name: "finalize", kind: "bool", usage: "Ensure build records are finalized before exporting" },
    { name: "output", short: "o", kind: "string", usage: "Output file path" },
  ],
  minArgs: 0,
  maxArgs: Number.POSITIVE_INFINITY,
  async run(ctx) {
    const output = ctx.flags.string("output");
    if (ctx.flags.bool("all") && ctx.args.length > 0)
      throw usageError("cannot specify refs when using --all");
    await using nodes = await openNodes(ctx);
    const found = await chosenRecords(nodes, ctx);
    const records = await Promise.all(found.map((item) => bundled(nodes, item, ctx.signal)));
    if (output === "") {
      const { stdout } = ctx.terminal;
      if (stdout.isTTY === true)
        throw usageError("refusing to write to console, use --output to specify a file");
      await writeBundle((chunk) => written(stdout, chunk), records, ctx.signal);
      return 0;
    }
    const file = await open(output, "w").catch((error: unknown) => {
      const reason = `failed to create output file ${JSON.stringify(output)}: open ${output}: ${nodeReason(error)}`;
      throw new BuildError(codeOfNodeError(error), reason, { cause: error });
    });
    try {
      await writeBundle(async (chunk) => void (await file.write(chunk)), records, ctx.signal);
    } catch (error) {
      await rm(output, { force: true });
      throw wrapError(error, "failed to create dockerbuild archive");
    } finally {
      await file.close();
    }
    return 0;
  },
};

function written(out: NodeJS.WritableStream, chunk: Uint8Array): Promise<void> {
  return new Promise((resolve, reject) => {
    out.write(chunk, (error) => (error ? reject(error) : resolve()));
  });
}

/** Every record that was asked for, of every node that has it; without a reference the newest. */
async function chosenRecords(nodes: HistoryNodes, ctx: CommandContext): Promise<FoundRecord[]> {
  const all = ctx.flags.bool("all");
  const out: FoundRecord[] = [];
  for (const reference of ctx.args.length > 0 ? ctx.args : [""]) {
    const query = (ref: string): Promise<FoundRecord[]> =>
      queryRecords(nodes, ref, { completedOnly: true, signal: ctx.signal });
    let found = await query(reference);
    if (found.length === 0) {
      throw new BuildError(
        "not_found",
        reference === "" ? "no records found" : `no record found for ref ${JSON.stringify(reference)}`,
      );
    }
    if (!all && reference === "") found = sameBuild(found);
    const open = ctx.flags.bool("finalize") ? found.filter(({ record }) => record.trace === undefined) : [];
    for (const { client, record } of open)
      await client.updateHistory({ Ref: record.Ref, Finalize: true }, { signal: ctx.signal });
    if (open.length > 0) found = await query(all ? "" : (found[0] as FoundRecord).record.Ref);
    out.push(...found);
  }
  return out;
}

/** The first, and what other nodes have of the same build. */
function sameBuild(found: readonly FoundRecord[]): FoundRecord[] {
  const end = found.findIndex(({ record }) => record.Ref !== found[0]?.record.Ref);
  return found.slice(0, end < 0 ? found.length : end);
}

async function bundled(
  nodes: HistoryNodes,
  { client, node, record }: FoundRecord,
  signal: AbortSignal,
): Promise<BundledRecord> {
  await node.load(signal);
  const [first] = node.platforms;
  const { localState } = nodes.registry.store;
  const place = localState.read({ builder: node.builder, node: node.name, id: record.Ref });
  return {
    record,
    client,
    defaultPlatform: first === undefined ? "" : formatPlatformAll(first),
    place,
    group: place?.groupRef ? localState.readGroup(place.groupRef) : undefined,
  };
}
