/** `kiln prune`. */
import type { UsageRecord } from "@kiln/api/control";
import { BuildError } from "@kiln/base";
import { type BuildkitClient, enabledCaps, probe, timeOf } from "@kiln/client";
import { humanSize, parseRamBytes } from "@kiln/formats";
import { sanitizeText } from "@kiln/progress";
import { timeoutFlag, withTimeout } from "../builders/common-flags.ts";
import { openRegistry } from "../builders/open-registry.ts";
import type { CommandBody } from "../command/command.ts";
import type { FlagSpec, FlagValues } from "../command/flags.ts";
import { goTime } from "../go-records.ts";
import { confirm } from "../prompt.ts";
import { alignColumns, BUILDKIT_TABS } from "../tab-writer.ts";
import { lastUsed } from "./du.ts";
import { filterFlag, readFilters } from "./filters.ts";

const size = (name: string, usage: string): FlagSpec => ({
  name,
  kind: "string",
  typeName: "bytes",
  usage,
  check: (value) => parseRamBytes(value),
});

/** The command. */
export const pruneCommand: CommandBody = {
  usage: "",
  flags: [
    { name: "all", short: "a", kind: "bool", usage: "Include internal/frontend images" },
    filterFlag,
    { name: "force", short: "f", kind: "bool", usage: "Do not prompt for confirmation" },
    size("max-used-space", "Maximum amount of disk space allowed to keep for cache"),
    size("min-free-space", "Target amount of free disk space after pruning"),
    size("reserved-space", "Amount of disk space always allowed to keep for cache"),
    {
      ...size("keep-storage", "Amount of disk space to keep for cache"),
      hidden: true,
      aliasOf: "reserved-space",
      deprecated: "keep-storage flag has been changed to reserved-space",
    },
    timeoutFlag,
    { name: "verbose", kind: "bool", usage: "Provide a more verbose output" },
  ],
  minArgs: 0,
  maxArgs: 0,
  async run(ctx) {
    const { flags, terminal } = ctx;
    const registry = openRegistry(ctx);
    const { keepDurationNs, filter } = readFilters([
      ...registry.dockerConfig.pruneFilters,
      ...flags.list("filter"),
    ]);
    const what = flags.bool("all") ? "all" : "all dangling";
    const warning = `WARNING! This will remove ${what} build cache. Are you sure you want to continue?`;
    if (!flags.bool("force") && !(await confirm(ctx, warning))) return 0;
    const builder = registry.find(flags.string("builder"));
    const request = {
      filter: [...filter],
      all: flags.bool("all"),
      keepDuration: keepDurationNs,
      reservedSpace: bytesOf(flags, "reserved-space"),
      maxUsedSpace: bytesOf(flags, "max-used-space"),
      minFreeSpace: bytesOf(flags, "min-free-space"),
    };
    const signal = withTimeout(flags, ctx.signal);
    let total = 0n;
    let isFirst = true;
    const show = (record: UsageRecord): void => {
      total += record.Size;
      if (flags.bool("verbose")) terminal.stdout.write(align(verboseText(record)));
      else
        terminal.stdout.write(
          align((isFirst ? "ID\tRECLAIMABLE\tSIZE\tLAST ACCESSED\n" : "") + rowText(record)),
        );
      isFirst = false;
    };
    await Promise.all(
      builder.nodes.map(async (node) => {
        const client = await node.driver.boot({ signal });
        if (request.maxUsedSpace > 0n || request.minFreeSpace > 0n) await checkSpaceCap(client);
        for await (const record of client.prune(request, { signal: ctx.signal })) show(record);
      }),
    );
    await Promise.all(builder.nodes.map((node) => node.close()));
    terminal.stdout.write(align(`Total:\t${humanSize(total)}\n`));
    return 0;
  },
};

async function checkSpaceCap(client: BuildkitClient): Promise<void> {
  const caps = await probe(client.channel, async (gateway) => enabledCaps((await gateway.ping()).LLBCaps));
  if (caps.has("gc.freespacefilter")) return;
  throw new BuildError(
    "unimplemented",
    "buildkit v0.17.0+ is required for max-used-space and min-free-space filters",
  );
}

function bytesOf(flags: FlagValues, name: string): bigint {
  const text = flags.string(name);
  return text === "" ? 0n : BigInt(parseRamBytes(text));
}

function align(text: string): string {
  return alignColumns(text, BUILDKIT_TABS);
}

function rowText(record: UsageRecord): string {
  const id = `${record.ID}${record.Mutable ? "*" : ""}`.padEnd(40);
  const bytes = `${humanSize(record.Size)}${record.Shared ? "*" : ""}`.padEnd(10);
  return `${id}\t${String(!record.InUse).padEnd(5)}\t${bytes}\t${lastUsed(record)}\n`;
}

function verboseText(record: UsageRecord): string {
  const created = timeOf(record.CreatedAt);
  const rows: [string, string][] = [["ID", record.ID]];
  if (record.Parents.length > 0) rows.push(["Parent", record.Parents.join(",")]);
  rows.push(
    ["Created at", created === undefined ? "0001-01-01 00:00:00 +0000 UTC" : goTime(created)],
    ["Mutable", String(record.Mutable)],
    ["Reclaimable", String(!record.InUse)],
    ["Shared", String(record.Shared)],
    ["Size", humanSize(record.Size)],
  );
  if (record.Description !== "") rows.push(["Description", sanitizeText(record.Description)]);
  rows.push(["Usage count", String(record.UsageCount)]);
  if (lastUsed(record) !== "") rows.push(["Last used", lastUsed(record)]);
  if (record.RecordType !== "") rows.push(["Type", record.RecordType]);
  return `${rows.map(([key, value]) => `${key}:\t${value}\n`).join("")}\n`;
}
