/** `buildctl du` and `buildctl prune`. */
import type { UsageRecord } from "@kiln/api/control";
import { timeOf } from "@kiln/client";
import { parseDuration } from "@kiln/formats";
import { formatBytes, sanitizeText } from "@kiln/progress";
import type { CommandBody } from "../command/command.ts";
import { type FlagSpec, usageError } from "../command/flags.ts";
import { goTime, runFormat, sortUsage, usageRecord } from "../go-records.ts";
import { alignColumns, BUILDKIT_TABS } from "../tab-writer.ts";
import { connect } from "./connect.ts";

const filter: FlagSpec = {
  name: "filter",
  short: "f",
  kind: "list",
  typeName: "string",
  usage: "Filter records",
};
const verbose: FlagSpec = { name: "verbose", short: "v", kind: "bool", usage: "Verbose output" };
/** `--format`, as all of buildctl's tables take it. */
export const format: FlagSpec = {
  name: "format",
  kind: "string",
  usage: "Format the output using the given Go template, e.g, '{{json .}}'",
};

const HEADER = "ID\tRECLAIMABLE\tSIZE\tLAST ACCESSED\n";

/** `buildctl du`. */
export const duCommand: CommandBody = {
  usage: "[options]",
  flags: [filter, verbose, format],
  minArgs: 0,
  maxArgs: 0,
  async run({ flags, terminal, signal, ...ctx }) {
    await using client = await connect({ flags, terminal, signal, ...ctx });
    const records = sortUsage(await client.diskUsage({ filter: [...flags.list("filter")] }, { signal }));
    const out = terminal.stdout;
    if (flags.string("format") !== "") {
      out.write(`${runFormat(flags.string("format"), records.map(usageRecord))}\n`);
      return 0;
    }
    if (flags.bool("verbose")) out.write(align(records.map(verboseText).join("")));
    else out.write(align(HEADER + records.map(rowText).join("")));
    if (flags.list("filter").length === 0) out.write(align(summary(records)));
    return 0;
  },
};

/** `buildctl prune`. */
export const pruneCommand: CommandBody = {
  usage: "[options]",
  flags: [
    {
      name: "keep-duration",
      kind: "string",
      typeName: "duration",
      usage: "Keep data newer than this limit",
      check: (value) => parseDuration(value),
    },
    size("keep-storage", "Keep data below this limit (in MB)"),
    size("keep-storage-min", "Always allow data above this limit (in MB)"),
    size("free-storage", "Keep free data below this limit (in MB)"),
    filter,
    { name: "all", kind: "bool", usage: "Include internal/frontend references" },
    verbose,
    format,
  ],
  minArgs: 0,
  maxArgs: 0,
  async run({ flags, terminal, signal, ...ctx }) {
    await using client = await connect({ flags, terminal, signal, ...ctx });
    const out = terminal.stdout;
    const request = {
      filter: [...flags.list("filter")],
      all: flags.bool("all"),
      keepDuration: flags.string("keep-duration") === "" ? 0n : parseDuration(flags.string("keep-duration")),
      reservedSpace: megabytes(flags.string("keep-storage-min")),
      maxUsedSpace: megabytes(flags.string("keep-storage")),
      minFreeSpace: megabytes(flags.string("free-storage")),
    };
    const template = flags.string("format");
    let total = 0n;
    let isFirst = true;
    for await (const record of client.prune(request, { signal })) {
      total += record.Size;
      if (template !== "") out.write(`${runFormat(template, usageRecord(record))}\n`);
      else if (flags.bool("verbose")) out.write(align(verboseText(record)));
      else {
        out.write(align((isFirst ? HEADER : "") + rowText(record)));
        isFirst = false;
      }
    }
    if (template === "") out.write(align(`Total:\t${formatBytes(total)}\n`));
    return 0;
  },
};

function size(name: string, usage: string): FlagSpec {
  return { name, kind: "string", typeName: "float", usage, check: (value) => megabytes(value) };
}

function megabytes(text: string): bigint {
  const value = text === "" ? 0 : Number(text);
  if (!Number.isFinite(value))
    throw usageError(`strconv.ParseFloat: parsing ${JSON.stringify(text)}: invalid syntax`);
  return BigInt(Math.trunc(value * 1e6));
}

function align(text: string): string {
  return alignColumns(text, BUILDKIT_TABS);
}

function rowText(record: UsageRecord): string {
  const id = `${record.ID}${record.Mutable ? "*" : ""}`.padEnd(71);
  const bytes = `${formatBytes(record.Size)}${record.Shared ? "*" : ""}`;
  return `${id}\t${String(!record.InUse).padEnd(11)}\t${bytes}\t\n`;
}

function verboseText(record: UsageRecord): string {
  const created = timeOf(record.CreatedAt);
  const used = timeOf(record.LastUsedAt);
  const rows: [string, string][] = [["ID", record.ID]];
  if (record.Parents.length > 0) rows.push(["Parents", record.Parents.join(";")]);
  rows.push(
    ["Created at", created === undefined ? "0001-01-01 00:00:00 +0000 UTC" : goTime(created)],
    ["Mutable", String(record.Mutable)],
    ["Reclaimable", String(!record.InUse)],
    ["Shared", String(record.Shared)],
    ["Size", formatBytes(record.Size)],
  );
  if (record.Description !== "") rows.push(["Description", sanitizeText(record.Description)]);
  rows.push(["Usage count", String(record.UsageCount)]);
  if (used !== undefined) rows.push(["Last used", goTime(used)]);
  if (record.RecordType !== "") rows.push(["Type", record.RecordType]);
  return `${rows.map(([key, value]) => `${key}:\t${value}\n`).join("")}\n`;
}

function summary(records: readonly UsageRecord[]): string {
  const sum = (of: readonly UsageRecord[]): bigint => of.reduce((total, { Size }) => total + Size, 0n);
  const total = sum(records);
  const shared = sum(records.filter(({ Shared }) => Shared));
  let out = "";
  if (shared > 0n) out += `Shared:\t${formatBytes(shared)}\nPrivate:\t${formatBytes(total - shared)}\n`;
  out += `Reclaimable:\t${formatBytes(sum(records.filter(({ InUse }) => !InUse)))}\n`;
  return `${out}Total:\t${formatBytes(total)}\n`;
}
