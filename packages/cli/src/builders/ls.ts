/** `kiln ls`. */
import { errorMessage } from "@kiln/base";
import type { Builder, BuilderNode } from "@kiln/driver";
import { bytesFromBase64, goJson, parseTemplate } from "@kiln/formats";
import type { CommandBody, CommandContext } from "../command/command.ts";
import { gcPolicyJson } from "../go-records.ts";
import { alignColumns, DOCKER_TABLE } from "../tab-writer.ts";
import { timeoutFlag, withTimeout } from "./common-flags.ts";
import { openRegistry } from "./open-registry.ts";
import { platformTexts, truncatedPlatforms } from "./platform-text.ts";

const TABLE = "{{.Name}}\t{{.DriverEndpoint}}\t{{.Status}}\t{{.Buildkit}}\t{{.Platforms}}";
const HEADERS = {
  Name: "NAME/NODE",
  DriverEndpoint: "DRIVER/ENDPOINT",
  LastActivity: "LAST ACTIVITY",
  Status: "STATUS",
  Buildkit: "BUILDKIT",
  Platforms: "PLATFORMS",
  Error: "ERROR",
};

/** The command. */
export const lsCommand: CommandBody = {
  usage: "",
  hidesBuilder: true,
  flags: [
    { name: "format", kind: "string", defaultValue: "table", usage: "Format the output" },
    { name: "no-trunc", kind: "bool", usage: "Don't truncate output" },
    timeoutFlag,
  ],
  minArgs: 0,
  maxArgs: 0,
  async run(ctx) {
    const registry = openRegistry(ctx);
    const current = registry.find().name;
    const builders = registry.list();
    const signal = withTimeout(ctx.flags, ctx.signal);
    await Promise.all(builders.flatMap(({ nodes }) => nodes.map((node) => node.load(signal))));
    await Promise.all(builders.flatMap(({ nodes }) => nodes.map((node) => node.close())));
    const sorted = [...builders].sort((a, b) => Number(hasFailed(a)) - Number(hasFailed(b)));
    const format = ctx.flags.string("format");
    if (format === "json") {
      for (const builder of sorted)
        ctx.terminal.stdout.write(`${builderJson(builder, builder.name === current)}\n`);
      return 0;
    }
    printRows(ctx, sorted, current);
    if (/^table\b/.test(format)) printErrors(ctx, sorted);
    return 0;
  },
};

function hasFailed(builder: Builder): boolean {
  return builder.nodes.length > 0 && builder.nodes.every((node) => node.error !== undefined);
}

function printRows(ctx: CommandContext, builders: readonly Builder[], current: string): void {
  const format = ctx.flags.string("format");
  const isTable = /^table\b/.test(format);
  const source = isTable ? format.replace(/^table\s*/, "") || TABLE : format;
  const opts = { truncates: isTable && !ctx.flags.bool("no-trunc"), isTable };
  const builderOf = new Map<unknown, Builder>();
  const rows = builders.flatMap((builder) => {
    const row = builderRow(builder, isTable && builder.name === current);
    const all = [row, ...builder.nodes.map((node) => nodeRow(builder, node, opts))];
    for (const one of all) builderOf.set(one, builder);
    return all;
  });
  // As a whole, a row is its builder.
  const json = (value: unknown): string => {
    const builder = builderOf.get(value);
    return builder ? builderJson(builder, builder.name === current) : goJson(value);
  };
  const template = parseTemplate(source.replaceAll("\\t", "\t").replaceAll("\\n", "\n"), {
    functions: { json },
  });
  const lines = (isTable ? [HEADERS, ...rows] : rows).map((row) => `${template.run(row)}\n`).join("");
  ctx.terminal.stdout.write(isTable ? alignColumns(lines, DOCKER_TABLE) : lines);
}

function builderRow(builder: Builder, isMarked: boolean): object {
  return {
    Name: `${builder.name}${isMarked ? "*" : ""}`,
    DriverEndpoint: builder.driver,
    LastActivity: builder.lastActivity ? `${builder.lastActivity.toISOString().slice(0, 19)}Z` : "",
    Status: "",
    Buildkit: "",
    Platforms: "",
    Error: "",
    Builder: { Name: builder.name, Driver: builder.driver, Dynamic: builder.group.dynamic },
  };
}

function nodeRow(
  builder: Builder,
  node: BuilderNode,
  opts: { readonly truncates: boolean; readonly isTable: boolean },
): object {
  const texts = platformTexts(node.stored.platforms ?? [], node.platforms);
  return {
    Name: `${opts.isTable ? " \\_ " : ""}${node.name}`,
    DriverEndpoint: `${opts.isTable ? " \\_ " : ""}${node.stored.endpoint}`,
    LastActivity: "",
    Status: node.error === undefined ? (node.data?.status ?? "") : "error",
    Buildkit: node.data?.version ?? "",
    Platforms: opts.truncates ? truncatedPlatforms(texts) : texts.join(", "),
    Error: node.error === undefined ? "" : errorMessage(node.error),
    Builder: { Name: builder.name, Driver: builder.driver, Dynamic: builder.group.dynamic },
  };
}

function printErrors(ctx: CommandContext, builders: readonly Builder[]): void {
  const lines = builders.flatMap((builder) =>
    builder.nodes.flatMap((node) =>
      node.error === undefined
        ? []
        : `Failed to get status for ${builder.name} (${node.name}): ${errorMessage(node.error).trim()}\n`,
    ),
  );
  if (lines.length > 0) ctx.terminal.stderr.write(`\n${lines.join("")}`);
}

function builderJson(builder: Builder, isCurrent: boolean): string {
  const activity = builder.lastActivity?.toISOString().slice(0, 19) ?? "0001-01-01T00:00:00";
  return goJson(
    new Map<string, unknown>([
      ["Current", isCurrent],
      ["Driver", builder.driver],
      ["Dynamic", builder.group.dynamic],
      ["LastActivity", `${activity}Z`],
      ["Name", builder.name],
      ["Nodes", builder.nodes.map(nodeJson)],
    ]),
  );
}

function nodeJson(node: BuilderNode): unknown {
  const { stored, data } = node;
  const workers = data?.workers ?? [];
  const [first] = workers;
  const entries: [string, unknown][] = [
    ["Name", node.name],
    ["Endpoint", stored.endpoint],
    ["Flags", emptyToUndefined(stored.flags)],
    ["DriverOpts", stored.driverOpts && new Map(Object.entries(stored.driverOpts))],
    [
      "Files",
      stored.files &&
        new Map(Object.entries(stored.files).map(([key, text]) => [key, bytesFromBase64(text)])),
    ],
    ["Status", node.error === undefined ? data?.status : "error"],
    ["Version", data?.version || undefined],
    ["Err", node.error === undefined ? undefined : errorMessage(node.error).trim()],
    ["IDs", emptyToUndefined(workers.map(({ ID }) => ID).sort())],
    ["Platforms", emptyToUndefined(platformTexts([], node.platforms))],
    [
      "GCPolicy",
      emptyToUndefined((first?.GCPolicy ?? []).map((rule) => sortedJson(gcPolicyJson(rule) as object))),
    ],
    ["Labels", first && new Map(Object.entries(first.Labels))],
  ];
  return new Map(entries.filter(([, value]) => value !== undefined && value !== null));
}

function sortedJson(value: object): Map<string, unknown> {
  return new Map(Object.entries(value));
}

function emptyToUndefined<T>(list: readonly T[] | null): readonly T[] | undefined {
  return list !== null && list.length > 0 ? list : undefined;
}
