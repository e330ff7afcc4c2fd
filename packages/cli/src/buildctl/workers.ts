/** `buildctl debug workers` and `buildctl debug info`. */
import type { WorkerRecord } from "@kiln/api/worker";
import { workerPlatforms } from "@kiln/driver";
import { formatDuration } from "@kiln/formats";
import { formatPlatform } from "@kiln/oci";
import type { CommandBody } from "../command/command.ts";
import { runFormat, versionRecord, workerRecord } from "../go-records.ts";
import { alignColumns, BUILDKIT_TABS } from "../tab-writer.ts";
import { format } from "./cache.ts";
import { connect } from "./connect.ts";

/** `buildctl debug workers`. */
export const workersCommand: CommandBody = {
  usage: "[options]",
  flags: [
    {
      name: "filter",
      short: "f",
      kind: "list",
      typeName: "string",
      usage: "containerd-style filter string slice",
    },
    { name: "verbose", short: "v", kind: "bool", usage: "Verbose output" },
    format,
  ],
  minArgs: 0,
  maxArgs: 0,
  async run(ctx) {
    const { flags, terminal, signal } = ctx;
    await using client = await connect(ctx);
    const workers = await client.listWorkers(flags.list("filter"), { signal });
    if (flags.string("format") !== "") {
      terminal.stdout.write(`${runFormat(flags.string("format"), workers.map(workerRecord))}\n`);
    } else if (flags.bool("verbose")) {
      terminal.stdout.write(alignColumns(workers.map(verboseText).join(""), BUILDKIT_TABS));
    } else {
      const rows = workers.map((worker) => `${worker.ID}\t${platformText(worker)}\n`).join("");
      terminal.stdout.write(alignColumns(`ID\tPLATFORMS\n${rows}`, BUILDKIT_TABS));
    }
    return 0;
  },
};

/** `buildctl debug info`. */
export const infoCommand: CommandBody = {
  usage: "[options]",
  flags: [format],
  minArgs: 0,
  maxArgs: 0,
  async run(ctx) {
    await using client = await connect(ctx);
    const version = await client.info({ signal: ctx.signal });
    const out = ctx.terminal.stdout;
    const template = ctx.flags.string("format");
    if (template !== "") {
      const record = versionRecord(version);
      const info = { fields: { BuildkitVersion: record.fields }, json: { buildkitVersion: record.json } };
      out.write(`${runFormat(template, info)}\n`);
      return 0;
    }
    let text = `BuildKit:\t${version?.package} ${version?.version} ${version?.revision}\n`;
    if (version?.dockerfileVersion) text += `Dockerfile:\t${version.dockerfileVersion}\n`;
    out.write(alignColumns(text, { minWidth: 0, padding: 1 }));
    return 0;
  },
};

function platformText(worker: WorkerRecord): string {
  return workerPlatforms(worker).map(formatPlatform).join(",");
}

function verboseText(worker: WorkerRecord): string {
  const version = worker.BuildkitVersion;
  let out = `ID:\t${worker.ID}\nPlatforms:\t${platformText(worker)}\n`;
  out += `BuildKit:\t${version?.package} ${version?.version} ${version?.revision}\n`;
  if (version?.dockerfileVersion) out += `Dockerfile:\t${version.dockerfileVersion}\n`;
  out += "Labels:\n";
  for (const [key, value] of sorted(worker.Labels)) out += `\t${key}:\t${value}\n`;
  if (worker.CDIDevices.length > 0) {
    out += "Devices:\n";
    for (const device of worker.CDIDevices) {
      out += `\tName:\t${device.Name}\n`;
      out += device.OnDemand ? `\tOnDemand:\ttrue\n` : `\tAutoAllow:\t${device.AutoAllow}\n`;
      for (const [key, value] of sorted(device.Annotations)) out += `\tAnnotations:\t${key}:\t${value}\n`;
    }
    out += "\n";
  }
  for (const [i, rule] of worker.GCPolicy.entries()) {
    out += `GC Policy rule#${i}:\n\tAll:\t${rule.all}\n`;
    if (rule.filters.length > 0) out += `\tFilters:\t${rule.filters.join(" ")}\n`;
    if (rule.keepDuration > 0n) out += `\tKeep duration:\t${formatDuration(rule.keepDuration)}\n`;
    if (rule.reservedSpace > 0n) out += `\tReserved space:\t${shortBytes(rule.reservedSpace)}\n`;
    if (rule.minFreeSpace > 0n) out += `\tMinimum free space:\t${shortBytes(rule.minFreeSpace)}\n`;
    if (rule.maxUsedSpace > 0n) out += `\tMaximum used space:\t${shortBytes(rule.maxUsedSpace)}\n`;
  }
  return `${out}\n`;
}

/** Decimal size with as many digits as it has: `1.2kB`. */
function shortBytes(bytes: bigint): string {
  const units = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
  let unit = 0;
  let value = Number(bytes);
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000;
    unit++;
  }
  return `${value}${units[unit]}`;
}

function sorted(record: Readonly<Record<string, string>>): [string, string][] {
  return Object.entries(record).sort(([a], [b]) => (a < b ? -1 : 1));
}
