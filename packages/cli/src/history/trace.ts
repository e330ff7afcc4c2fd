import { BuildError, sleep } from "@kiln/base";
import type { CommandBody, CommandContext } from "../command/command.ts";
import { openUrl } from "./open-url.ts";
import { type FoundRecord, findRecord, type HistoryNodes, openNodes } from "./query.ts";
import { parseSpanStubs } from "./span-stubs.ts";
import { type JaegerTrace, jaegerText, jaegerTrace } from "./trace-json.ts";
import { serveTraces } from "./trace-server.ts";

/** Clients send the last spans after a build has ended. */
const LAST_SPANS_MS = 1000;

/** `kiln history trace`: prints the trace, or on a terminal shows it in the browser. */
export const historyTraceCommand: CommandBody = {
  usage: "[OPTIONS] [REF]",
  flags: [
    { name: "addr", kind: "string", defaultValue: "127.0.0.1:0", usage: "Address to bind the UI server" },
    { name: "compare", kind: "string", usage: "Compare with another build record" },
  ],
  minArgs: 0,
  maxArgs: 1,
  async run(ctx) {
    const compare = ctx.flags.string("compare");
    await using nodes = await openNodes(ctx);
    const traces = [await loadTrace(nodes, ctx.args[0] ?? "", ctx.signal)];
    if (compare !== "") traces.unshift(await loadTrace(nodes, compare, ctx.signal));
    const [first] = traces as [JaegerTrace];
    if (ctx.terminal.stdout.isTTY !== true && compare === "") {
      // Buildx ends with an empty line too
      ctx.terminal.stdout.write(`${jaegerText(first)}\n`);
      return 0;
    }
    await show(ctx, traces);
    return 0;
  },
};

async function show(ctx: CommandContext, traces: readonly JaegerTrace[]): Promise<void> {
  await using server = await serveTraces(ctx.flags.string("addr"), traces);
  const url = `${server.origin}/trace/${traces.map(({ traceID }) => traceID).join("...")}`;
  ctx.terminal.stderr.write(`Trace available at ${url}\n`);
  // without a desktop the address is enough
  await openUrl(url).catch(() => undefined);
  await new Promise<void>((resolve) => {
    if (ctx.signal.aborted) resolve();
    ctx.signal.addEventListener("abort", () => resolve(), { once: true });
  });
}

async function loadTrace(nodes: HistoryNodes, ref: string, signal: AbortSignal): Promise<JaegerTrace> {
  const found = await traced(nodes, await findRecord(nodes, ref, signal, { completedOnly: true }), signal);
  const { trace } = found.record;
  if (trace === undefined)
    throw new BuildError("not_found", `build record ${JSON.stringify(found.record.Ref)} is missing a trace`);
  const text = new TextDecoder().decode(await found.client.readBlob(trace.digest, undefined, { signal }));
  const made = jaegerTrace(parseSpanStubs(text));
  if (made === undefined) throw new BuildError("not_found", "no trace data");
  return made;
}

/** The record once the daemon has put its trace into it. */
async function traced(nodes: HistoryNodes, found: FoundRecord, signal: AbortSignal): Promise<FoundRecord> {
  const { client, record } = found;
  if (record.trace !== undefined) return found;
  await sleep(LAST_SPANS_MS, signal);
  await client.updateHistory({ Ref: record.Ref, Finalize: true }, { signal });
  return await findRecord(nodes, record.Ref, signal, { completedOnly: true });
}
