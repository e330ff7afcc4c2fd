/** buildctl's commands for build records. */
import { type BuildHistoryEvent, BuildHistoryEventType, type Descriptor } from "@kiln/api/control";
import { BuildError, errorMessage } from "@kiln/base";
import { type BuildkitClient, timeOf } from "@kiln/client";
import { parseDigest } from "@kiln/oci";
import type { CommandBody } from "../command/command.ts";
import { usageError } from "../command/flags.ts";
import { historyEvent, runFormat } from "../go-records.ts";
import { Printer } from "../printer.ts";
import { alignColumns, BUILDKIT_TABS } from "../tab-writer.ts";
import { format } from "./cache.ts";
import { connect } from "./connect.ts";

/** `buildctl debug histories`. */
export const historiesCommand: CommandBody = {
  usage: "[options]",
  flags: [format],
  minArgs: 0,
  maxArgs: 0,
  async run(ctx) {
    await using client = await connect(ctx);
    const template = ctx.flags.string("format");
    let table = "TYPE\tREF\tCREATED\tCOMPLETED\tGENERATION\tPINNED\n";
    for await (const event of client.history({ EarlyExit: true }, { signal: ctx.signal })) {
      if (template !== "") ctx.terminal.stdout.write(`${runFormat(template, historyEvent(event))}\n`);
      else {
        // As in the original, the columns of each row stand for themselves.
        table += `${rowText(event)}\t${event.record?.pinned ? "*" : ""}\n`;
        ctx.terminal.stdout.write(alignColumns(table, BUILDKIT_TABS));
        table = "";
      }
    }
    if (template === "" && table !== "") ctx.terminal.stdout.write(alignColumns(table, BUILDKIT_TABS));
    return 0;
  },
};

/** `buildctl prune-histories`. */
export const pruneHistoriesCommand: CommandBody = {
  usage: "[options]",
  flags: [format],
  minArgs: 0,
  maxArgs: 0,
  async run(ctx) {
    await using client = await connect(ctx);
    const template = ctx.flags.string("format");
    const errors: string[] = [];
    let table = "TYPE\tREF\tCREATED\tCOMPLETED\tGENERATION\n";
    for await (const event of client.history({ EarlyExit: true }, { signal: ctx.signal })) {
      const { record } = event;
      if (record === undefined || record.pinned) continue;
      try {
        await client.updateHistory({ Ref: record.Ref, Delete: true }, { signal: ctx.signal });
      } catch (error) {
        errors.push(errorMessage(error));
        continue;
      }
      if (template !== "") ctx.terminal.stdout.write(`${runFormat(template, historyEvent(event))}\n`);
      else {
        table += `${rowText(event)}\n`;
        ctx.terminal.stdout.write(alignColumns(table, BUILDKIT_TABS));
        table = "";
      }
    }
    if (template === "" && table !== "") ctx.terminal.stdout.write(alignColumns(table, BUILDKIT_TABS));
    if (errors.length > 0) throw new BuildError("unknown", errors.join("\n"));
    return 0;
  },
};

/** `buildctl debug get`. */
export const getCommand: CommandBody = {
  usage: "[options]",
  flags: [],
  minArgs: 0,
  maxArgs: 1,
  async run(ctx) {
    const [text] = ctx.args;
    if (text === undefined) throw usageError("blob digest must be specified");
    const digest = parseDigest(text);
    await using client = await connect(ctx);
    await copyBlob(client, digest, ctx);
    return 0;
  },
};

/** `buildctl debug logs`. */
export const logsCommand: CommandBody = {
  usage: "[options]",
  flags: [
    { name: "progress", kind: "string", defaultValue: "auto", usage: "progress output type" },
    { name: "trace", kind: "bool", usage: "show opentelemetry trace" },
  ],
  minArgs: 0,
  maxArgs: 1,
  async run(ctx) {
    const [ref] = ctx.args;
    if (ref === undefined) throw usageError("build ref must be specified");
    await using client = await connect(ctx);
    if (ctx.flags.bool("trace")) {
      for await (const { record } of client.history({ Ref: ref, EarlyExit: true }, { signal: ctx.signal })) {
        if (!record?.trace) throw new BuildError("not_found", `ref ${ref} does not have trace`);
        await copyBlob(client, record.trace.digest, ctx);
        return 0;
      }
      throw new BuildError("not_found", `ref ${ref} not found`);
    }
    const printer = new Printer({
      mode: ctx.flags.string("progress"),
      output: ctx.terminal.stdout,
      env: ctx.terminal.env,
      debug: ctx.debug,
    });
    try {
      for await (const status of client.status(ref, { signal: ctx.signal })) printer.update(status);
    } finally {
      printer.end();
    }
    return 0;
  },
};

/** `buildctl debug ctl`. */
export const ctlCommand: CommandBody = {
  usage: "[options]",
  flags: [
    { name: "pin", kind: "bool", usage: "Pin build so it will not be garbage collected" },
    { name: "unpin", kind: "bool", usage: "Unpin build so it will be garbage collected" },
    { name: "delete", kind: "bool", usage: "Delete build record" },
  ],
  minArgs: 0,
  maxArgs: 1,
  async run(ctx) {
    const [ref] = ctx.args;
    if (ref === undefined) throw usageError("build ref must be specified");
    const [pin, unpin, del] = ["pin", "unpin", "delete"].map((name) => ctx.flags.bool(name)) as [
      boolean,
      boolean,
      boolean,
    ];
    if (!pin && !unpin && !del) throw usageError("must specify one of --pin, --unpin, --delete");
    if (pin && unpin) throw usageError("cannot specify both --pin and --unpin");
    if (del && (pin || unpin)) throw usageError("cannot specify --delete with --pin or --unpin");
    await using client = await connect(ctx);
    await client.updateHistory({ Ref: ref, Pinned: pin, Delete: del }, { signal: ctx.signal });
    return 0;
  },
};

/** `buildctl debug monitor`. */
export const monitorCommand: CommandBody = {
  usage: "[options]",
  flags: [
    { name: "completed", kind: "bool", usage: "show completed builds" },
    { name: "ref", kind: "string", usage: "show events for a specific build" },
  ],
  minArgs: 0,
  maxArgs: 0,
  async run(ctx) {
    await using client = await connect(ctx);
    const request = { ActiveOnly: !ctx.flags.bool("completed"), Ref: ctx.flags.string("ref") };
    for await (const event of client.history(request, { signal: ctx.signal })) {
      ctx.terminal.stdout.write(eventText(event));
    }
    return 0;
  },
};

function eventText(event: BuildHistoryEvent): string {
  const { record } = event;
  let out = `event: ${typeName(event)} ref:${record?.Ref ?? ""}\n`;
  if (!record) return out;
  if (record.numTotalSteps !== 0) out += `  cache: ${record.numCachedSteps}/${record.numTotalSteps}\n`;
  if (record.numWarnings !== 0) out += `  warnings: ${record.numWarnings}\n`;
  if (record.logs) out += `  logs: ${descriptorText(record.logs)}\n`;
  if (record.trace) out += `  trace: ${descriptorText(record.trace)}\n`;
  const all = [...(record.Result ? ([["", record.Result]] as const) : []), ...Object.entries(record.Results)];
  for (const [id, result] of all) {
    const prefix = id === "" ? "  " : `  [${id}] `;
    const descriptors = Object.values(result.Results);
    if (descriptors.length === 0 && result.ResultDeprecated) descriptors.push(result.ResultDeprecated);
    for (const descriptor of descriptors) out += `${prefix}descriptor: ${descriptorText(descriptor)}\n`;
    for (const descriptor of result.Attestations)
      out += `${prefix}attestation: ${descriptorText(descriptor)}\n`;
  }
  return out;
}

function descriptorText(descriptor: Descriptor): string {
  return `media_type:${JSON.stringify(descriptor.mediaType)} digest:${JSON.stringify(descriptor.digest)} size:${descriptor.size}`;
}

function typeName(event: BuildHistoryEvent): string {
  return (
    Object.entries(BuildHistoryEventType).find(([, value]) => value === event.type)?.[0] ?? String(event.type)
  );
}

function rowText(event: BuildHistoryEvent): string {
  const { record } = event;
  const time = (value: NonNullable<typeof record>["CreatedAt"]): string => {
    const ns = timeOf(value);
    return ns === undefined ? "" : localTime(new Date(Number(ns / 1_000_000n)));
  };
  return [
    typeName(event),
    record?.Ref ?? "",
    time(record?.CreatedAt),
    time(record?.CompletedAt),
    String(record?.Generation ?? 0),
  ].join("\t");
}

/** RFC 3339 in this machine's time zone. */
function localTime(date: Date): string {
  const offset = -date.getTimezoneOffset();
  const local = new Date(date.getTime() + offset * 60_000).toISOString().slice(0, 19);
  if (offset === 0) return `${local}Z`;
  const part = (n: number): string => String(Math.trunc(n)).padStart(2, "0");
  return `${local}${offset < 0 ? "-" : "+"}${part(Math.abs(offset) / 60)}:${part(Math.abs(offset) % 60)}`;
}

async function copyBlob(
  client: BuildkitClient,
  digest: string,
  ctx: { readonly terminal: { readonly stdout: NodeJS.WritableStream }; readonly signal: AbortSignal },
): Promise<void> {
  for await (const chunk of client.readContent(digest, { signal: ctx.signal })) {
    if (!ctx.terminal.stdout.write(chunk)) {
      await new Promise<void>((resolve) => ctx.terminal.stdout.once("drain", resolve));
    }
  }
}
