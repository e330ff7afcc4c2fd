/** `kiln inspect`. */
import { errorMessage } from "@kiln/base";
import type { BuilderNode } from "@kiln/driver";
import { bytesSize, formatDuration } from "@kiln/formats";
import type { CommandBody } from "../command/command.ts";
import { goTime } from "../go-records.ts";
import { alignColumns } from "../tab-writer.ts";
import { timeoutFlag, withTimeout } from "./common-flags.ts";
import { bootstrap } from "./create.ts";
import { openRegistry } from "./open-registry.ts";
import { platformTexts } from "./platform-text.ts";

/** The command. */
export const inspectCommand: CommandBody = {
  usage: "[NAME]",
  flags: [
    { name: "bootstrap", kind: "bool", usage: "Ensure builder has booted before inspecting" },
    timeoutFlag,
  ],
  minArgs: 0,
  maxArgs: 1,
  async run(ctx) {
    const registry = openRegistry(ctx);
    const name = ctx.args[0] ?? ctx.flags.string("builder");
    const builder = registry.find(name);
    if (ctx.flags.bool("bootstrap")) await bootstrap(ctx, registry, builder.name);
    const signal = withTimeout(ctx.flags, ctx.signal);
    await Promise.all(builder.nodes.map((node) => node.load(signal)));
    await Promise.all(builder.nodes.map((node) => node.close()));
    let text = `Name:\t${builder.name}\nDriver:\t${builder.driver}\n`;
    if (builder.lastActivity) {
      text += `Last Activity:\t${goTime(BigInt(builder.lastActivity.getTime()) * 1_000_000n)}\n`;
    }
    text += "\nNodes:\n";
    text += builder.nodes.map((node) => nodeText(node, ctx.debug)).join("\n");
    ctx.terminal.stdout.write(alignColumns(text, { minWidth: 0, padding: 1 }));
    return 0;
  },
};

function nodeText(node: BuilderNode, debug: boolean): string {
  const { stored, data } = node;
  let out = `Name:\t${node.name}\nEndpoint:\t${stored.endpoint}\n`;
  const opts = Object.entries(stored.driverOpts ?? {}).map(
    ([key, value]) => `${key}=${JSON.stringify(value)}`,
  );
  if (opts.length > 0) out += `Driver Options:\t${opts.join(" ")}\n`;
  if (node.error !== undefined) return `${out}Error:\t${errorMessage(node.error)}\n`;
  out += `Status:\t${data?.status ?? ""}\n`;
  if (stored.flags && stored.flags.length > 0) out += `BuildKit daemon flags:\t${stored.flags.join(" ")}\n`;
  if (data?.version) out += `BuildKit version:\t${data.version}\n`;
  const platforms = platformTexts(stored.platforms ?? [], node.platforms);
  if (platforms.length > 0) out += `Platforms:\t${platforms.join(", ")}\n`;
  if (debug) out += featureText(node);
  out += workerText(node);
  for (const [name, content] of Object.entries(stored.files ?? {})) {
    out += `File#${name}:\n`;
    for (const line of Buffer.from(content, "base64").toString().split("\n")) out += `\t> ${line}\n`;
  }
  return out;
}

function featureText(node: BuilderNode): string {
  return `Features:
\tAutomatically load images to the Docker Engine image store:\t${node.driver.defaultLoad}
\tCache export:\ttrue
\tDirect push:\ttrue
\tDocker exporter:\ttrue
\tMulti-platform build:\ttrue
\tOCI exporter:\ttrue
`;
}

function workerText(node: BuilderNode): string {
  const workers = node.data?.workers ?? [];
  const [first] = workers;
  if (first === undefined) return "";
  let out = "";
  const labels = Object.entries(first.Labels).sort(([a], [b]) => (a < b ? -1 : 1));
  if (labels.length > 0) out += `Labels:\n${labels.map(([key, value]) => `\t${key}:\t${value}\n`).join("")}`;
  const devices = workers.at(-1)?.CDIDevices ?? [];
  if (devices.length > 0) out += "Devices:\n";
  for (const device of devices) {
    out += `\tName:\t${device.Name}\n`;
    out += device.OnDemand ? "\tOn-Demand:\ttrue\n" : `\tAutomatically allowed:\t${device.AutoAllow}\n`;
    const annotations = Object.entries(device.Annotations);
    if (annotations.length > 0) out += "\tAnnotations:\n";
    for (const [key, value] of annotations) out += `\t\t${key}:\t${value}\n`;
  }
  for (const [i, rule] of first.GCPolicy.entries()) {
    out += `GC Policy rule#${i}:\n\tAll:\t${rule.all}\n`;
    if (rule.filters.length > 0) out += `\tFilters:\t${rule.filters.join(" ")}\n`;
    if (rule.keepDuration > 0n) out += `\tKeep Duration:\t${formatDuration(rule.keepDuration)}\n`;
    if (rule.reservedSpace > 0n) out += `\tReserved Space:\t${bytesSize(rule.reservedSpace)}\n`;
    if (rule.maxUsedSpace > 0n) out += `\tMax Used Space:\t${bytesSize(rule.maxUsedSpace)}\n`;
    if (rule.minFreeSpace > 0n) out += `\tMin Free Space:\t${bytesSize(rule.minFreeSpace)}\n`;
  }
  return out;
}
