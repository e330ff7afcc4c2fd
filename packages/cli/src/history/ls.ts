/** `kiln history ls`. */
import { BuildError } from "@kiln/base";
import { timeOf } from "@kiln/client";
import { goJson, humanDuration, parseTemplate } from "@kiln/formats";
import { readGitInfo } from "../build/git-info.ts";
import type { CommandBody, CommandContext } from "../command/command.ts";
import { rfc3339 } from "../go-records.ts";
import { alignColumns, DOCKER_TABLE } from "../tab-writer.ts";
import { createdAt, durationNs, durationText, type FoundRecord, openNodes, queryRecords } from "./query.ts";

const TABLE = "{{.Ref}}\t{{.Name}}\t{{.Status}}\t{{.CreatedAt}}\t{{.Duration}}\t{{.Link}}";
const HEADERS = {
  Ref: "BUILD ID",
  Name: "NAME",
  Status: "STATUS",
  CreatedAt: "CREATED AT",
  Duration: "DURATION",
  Link: "",
};
const MAX_NAME_LENGTH = 36;

/** The command. */
export const historyLsCommand: CommandBody = {
  usage: "[OPTIONS]",
  flags: [
    { name: "filter", kind: "list", usage: 'Provide filter values (e.g., "status=error")' },
    { name: "format", kind: "string", defaultValue: "table", usage: "Format the output" },
    { name: "local", kind: "bool", usage: "List records for current repository only" },
    { name: "no-trunc", kind: "bool", usage: "Don't truncate output" },
  ],
  minArgs: 0,
  maxArgs: 0,
  async run(ctx) {
    const filters = [...ctx.flags.list("filter")];
    if (ctx.flags.bool("local")) filters.unshift(`repository=${localRepository(ctx)}`);
    await using nodes = await openNodes(ctx);
    const found = await queryRecords(nodes, "", { filters, signal: ctx.signal });
    const isRunning = ({ record }: FoundRecord): number => (record.CompletedAt === undefined ? 0 : 1);
    ctx.terminal.stdout.write(
      render(
        ctx,
        found.sort((a, b) => isRunning(a) - isRunning(b)),
      ),
    );
    return 0;
  },
};

function localRepository(ctx: CommandContext): string {
  const info = readGitInfo(ctx.terminal.cwd());
  if (!info) throw new BuildError("not_found", "could not find git repository for local filter");
  if (info.remote !== "") return info.remote;
  throw new BuildError(
    "not_found",
    "could not get remote URL for local filter: no remote URL found for either origin or upstream",
  );
}

function render(ctx: CommandContext, found: readonly FoundRecord[]): string {
  const format = ctx.flags.string("format");
  if (format === "json") return found.map((item) => `${recordJson(item)}\n`).join("");
  const isTable = /^table\b/.test(format);
  const source = isTable ? format.replace(/^table\s*/, "") || TABLE : format;
  const truncates = isTable && !ctx.flags.bool("no-trunc");
  const records = new Map<unknown, FoundRecord>(
    found.map((item) => [fieldsOf(item, { isTable, truncates }), item]),
  );
  // As a whole, a row is its record.
  const json = (value: unknown): string => {
    const record = records.get(value);
    return record ? recordJson(record) : goJson(value);
  };
  const template = parseTemplate(source.replaceAll("\\t", "\t").replaceAll("\\n", "\n"), {
    functions: { json },
  });
  const rows = [...records.keys()];
  const text = (isTable ? [HEADERS, ...rows] : rows).map((row) => `${template.run(row)}\n`).join("");
  return isTable ? alignColumns(text, DOCKER_TABLE) : text;
}

function fieldsOf(
  found: FoundRecord,
  opts: { readonly isTable: boolean; readonly truncates: boolean },
): object {
  const { record, node, name } = found;
  const isLong = opts.truncates && name.length > MAX_NAME_LENGTH;
  const duration = durationNs(found);
  const suffix = record.CompletedAt === undefined ? "+" : "";
  const fullRef = `${node.builder}/${node.name}/${record.Ref}`;
  return {
    Ref: record.Ref,
    FullRef: fullRef,
    Name: isLong ? `..${name.slice(name.length - MAX_NAME_LENGTH + 2)}` : name,
    Status: statusText(found),
    CreatedAt: `${humanDuration(Date.now() - Number(createdAt(found) / 1_000_000n))} ago`,
    Duration: duration === undefined ? "" : `${durationText(duration)}${suffix}`,
    Link: opts.isTable ? "" : `docker-desktop://dashboard/build/${fullRef}`,
  };
}

function statusText({ record }: FoundRecord): string {
  if (record.CompletedAt === undefined) return "Running";
  return record.error === undefined ? "Completed" : "Error";
}

function recordJson(found: FoundRecord): string {
  const { record, node, name } = found;
  const completed = timeOf(record.CompletedAt);
  return goJson(
    new Map<string, unknown>([
      ["ref", `${node.builder}/${node.name}/${record.Ref}`],
      ["name", name],
      ["status", statusText(found)],
      ["created_at", rfc3339(createdAt(found))],
      ["total_steps", record.numTotalSteps],
      ["completed_steps", record.numCompletedSteps],
      ["cached_steps", record.numCachedSteps],
      ...(completed === undefined ? [] : [["completed_at", rfc3339(completed)] as [string, unknown]]),
    ]),
  );
}
