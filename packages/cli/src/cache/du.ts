/** `kiln du`. */
import type { UsageRecord } from "@kiln/api/control";
import { timeOf } from "@kiln/client";
import { goJson, humanDuration, humanSize, parseTemplate } from "@kiln/formats";
import { sanitizeText } from "@kiln/progress";
import { timeoutFlag, withTimeout } from "../builders/common-flags.ts";
import { openRegistry } from "../builders/open-registry.ts";
import type { CommandBody } from "../command/command.ts";
import { usageError } from "../command/flags.ts";
import { goTime, sortUsage } from "../go-records.ts";
import { alignColumns, BUILDKIT_TABS, DOCKER_TABLE } from "../tab-writer.ts";
import { filterFlag, readFilters } from "./filters.ts";

const TABLE = "{{.ID}}\t{{.Reclaimable}}\t{{.Size}}\t{{.LastUsedAt}}";
const HEADERS = {
  ID: "ID",
  Parents: "PARENTS",
  CreatedAt: "CREATED AT",
  Mutable: "MUTABLE",
  Reclaimable: "RECLAIMABLE",
  Shared: "SHARED",
  Size: "SIZE",
  Description: "DESCRIPTION",
  UsageCount: "USAGE COUNT",
  LastUsedAt: "LAST ACCESSED",
  Type: "TYPE",
};

/** The command. */
export const duCommand: CommandBody = {
  usage: "",
  flags: [
    filterFlag,
    { name: "format", kind: "string", usage: "Format the output" },
    timeoutFlag,
    { name: "verbose", kind: "bool", usage: 'Shorthand for "--format=pretty"' },
  ],
  minArgs: 0,
  maxArgs: 0,
  async run(ctx) {
    const { flags, terminal } = ctx;
    let format = flags.string("format");
    if (format !== "" && flags.bool("verbose"))
      throw usageError("--format and --verbose cannot be used together");
    if (format === "") format = flags.bool("verbose") ? "pretty" : "table";
    const { filter } = readFilters(flags.list("filter"));
    const builder = openRegistry(ctx).find(flags.string("builder"));
    const signal = withTimeout(flags, ctx.signal);
    const perNode = await Promise.all(
      builder.nodes.map(async (node) => {
        const client = await node.driver.boot({ signal });
        return sortUsage(await client.diskUsage({ filter: [...filter] }, { signal: ctx.signal }));
      }),
    );
    await Promise.all(builder.nodes.map((node) => node.close()));
    const records = perNode.flat();
    terminal.stdout.write(render(format, records));
    const isDefault = format === "table" || format === "pretty";
    if (isDefault && flags.list("filter").length === 0) terminal.stdout.write(summary(records));
    return 0;
  },
};

function render(format: string, records: readonly UsageRecord[]): string {
  if (format === "pretty")
    return records
      .map((record) => `${prettyText(record)}\n`)
      .join("\n")
      .concat(records.length > 0 ? "\n" : "");
  if (format === "json")
    return records.map((record) => `${goJson(new Map(Object.entries(fieldsOf(record, false))))}\n`).join("");
  const isTable = /^table\b/.test(format);
  const source = isTable ? format.replace(/^table\s*/, "") || TABLE : format;
  const template = parseTemplate(source.replaceAll("\\t", "\t").replaceAll("\\n", "\n"));
  const rows = records.map((record) => fieldsOf(record, isTable));
  const text = (isTable ? [HEADERS, ...rows] : rows).map((row) => `${template.run(row)}\n`).join("");
  return isTable ? alignColumns(text, DOCKER_TABLE) : text;
}

function fieldsOf(record: UsageRecord, isTable: boolean): Record<keyof typeof HEADERS, unknown> {
  const created = timeOf(record.CreatedAt);
  return {
    ID: `${record.ID}${isTable && record.Mutable ? "*" : ""}`,
    Parents: record.Parents.length > 0 ? record.Parents : null,
    CreatedAt: created === undefined ? "0001-01-01 00:00:00 +0000 UTC" : goTime(created),
    Mutable: record.Mutable,
    Reclaimable: !record.InUse,
    Shared: record.Shared,
    Size: `${humanSize(record.Size)}${isTable && record.Shared ? "*" : ""}`,
    Description: record.Description,
    UsageCount: record.UsageCount,
    LastUsedAt: lastUsed(record),
    Type: record.RecordType,
  };
}

/** `3 minutes ago`, empty for a record that was never used. */
export function lastUsed(record: UsageRecord): string {
  const used = timeOf(record.LastUsedAt);
  return used === undefined ? "" : `${humanDuration(Date.now() - Number(used / 1_000_000n))} ago`;
}

function prettyText(record: UsageRecord): string {
  const fields = fieldsOf(record, false);
  const lines = [`ID:           ${fields.ID}`];
  if (record.Parents.length > 0) lines.push("Parents:", ...record.Parents.map((parent) => ` - ${parent}`));
  lines.push(
    `Created at:   ${fields.CreatedAt}`,
    `Mutable:      ${fields.Mutable}`,
    `Reclaimable:  ${fields.Reclaimable}`,
    `Shared:       ${fields.Shared}`,
    `Size:         ${fields.Size}`,
  );
  if (record.Description !== "") lines.push(`Description:  ${sanitizeText(record.Description)}`);
  lines.push(`Usage count:  ${fields.UsageCount}`);
  if (fields.LastUsedAt !== "") lines.push(`Last used:    ${fields.LastUsedAt}`);
  if (record.RecordType !== "") lines.push(`Type:         ${record.RecordType}`);
  return lines.join("\n");
}

function summary(records: readonly UsageRecord[]): string {
  const sum = (of: readonly UsageRecord[]): bigint => of.reduce((total, { Size }) => total + Size, 0n);
  const total = sum(records);
  const shared = sum(records.filter(({ Shared }) => Shared));
  let text = "";
  if (shared > 0n) text += `Shared:\t${humanSize(shared)}\nPrivate:\t${humanSize(total - shared)}\n`;
  text += `Reclaimable:\t${humanSize(sum(records.filter(({ InUse }) => !InUse)))}\n`;
  return alignColumns(`${text}Total:\t${humanSize(total)}\n`, BUILDKIT_TABS);
}
