/** Shows traces in a browser: a page of our own, and the JSON that Jaeger's user interface imports. */
import { createServer, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { BuildError } from "@kiln/base";
import { type JaegerSpan, type JaegerTrace, jaegerText } from "./trace-json.ts";

const SECURITY = {
  "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'",
  "x-content-type-options": "nosniff",
};

/** Serves `/trace/ID[...ID]` and `/api/traces/ID` until it is disposed of. */
export async function serveTraces(
  address: string,
  traces: readonly JaegerTrace[],
): Promise<{ readonly origin: string } & AsyncDisposable> {
  const known = new Map(traces.map((trace) => [trace.traceID, trace]));
  const server = createServer((req, res) => {
    const path = (req.url ?? "/").split("?")[0] as string;
    const [, kind, ids = ""] = /^\/(api\/traces|trace)\/([0-9a-f.]+)$/.exec(path) ?? [];
    const asked = ids.split("...").map((id) => known.get(id));
    if (req.method !== "GET" || kind === undefined || asked.some((trace) => trace === undefined)) {
      send(res, 404, "text/plain", "not found\n");
    } else if (kind === "trace") {
      send(res, 200, "text/html; charset=utf-8", page(asked as JaegerTrace[]));
    } else {
      send(res, 200, "application/json", jaegerText(asked[0] as JaegerTrace));
    }
  });
  const { host, port } = parseAddress(address);
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(port, host, resolve);
  });
  const bound = server.address() as AddressInfo;
  const name = bound.family === "IPv6" ? `[${bound.address}]` : bound.address;
  return {
    origin: `http://${name}:${bound.port}`,
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections();
      await new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
}

/** `host:port`; without a host this machine alone. */
function parseAddress(address: string): { readonly host: string; readonly port: number } {
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([^:]*)):(\d{1,5})$/.exec(address);
  if (match === null) throw new BuildError("invalid_argument", `invalid address ${JSON.stringify(address)}`);
  return { host: match[1] ?? (match[2] || "127.0.0.1"), port: Number(match[3]) };
}

function send(res: ServerResponse, status: number, type: string, body: string): void {
  res.writeHead(status, { ...SECURITY, "content-type": type }).end(body);
}

function page(traces: readonly JaegerTrace[]): string {
  const title = escaped(traces.map(({ traceID }) => traceID).join(" … "));
  return `<!doctype html><meta charset="utf-8"><title>${title}</title>
<style>body{font:13px system-ui;margin:16px}table{border-collapse:collapse;width:100%}td{padding:2px 6px;vertical-align:top}
td.n{width:45%;max-width:0;overflow:hidden;text-overflow:ellipsis;white-space:nowrap}td.t{text-align:right;width:7em}
div.b{background:#4a90d9;height:12px;min-width:1px}tr.e div.b{background:#d9534f}tr:hover{background:#eee}</style>
${traces.map(table).join("\n")}`;
}

function table(trace: JaegerTrace): string {
  const start = trace.spans.reduce(
    (least, span) => (span.startTime < least ? span.startTime : least),
    trace.spans[0]?.startTime ?? 0n,
  );
  const end = trace.spans.reduce((most, span) => {
    const at = span.startTime + span.duration;
    return at > most ? at : most;
  }, start + 1n);
  const rows = inOrder(trace.spans).map(({ span, depth }) => {
    const { serviceName = "" } = trace.processes.get(span.processID) ?? {};
    const share = (us: bigint): number => (Number(us) * 100) / Number(end - start);
    const failed = span.tags.some(({ key }) => key === "error");
    const tags = span.tags.map(({ key, value }) => `${key}=${String(value)}`).join("\n");
    return `<tr${failed ? ' class="e"' : ""} title="${escaped(tags)}"><td class="n" style="padding-left:${depth * 14 + 6}px">${escaped(
      span.operationName,
    )} <small>${escaped(serviceName)}</small></td><td class="t">${(Number(span.duration) / 1000).toFixed(1)} ms</td><td><div class="b" style="margin-left:${share(
      span.startTime - start,
    ).toFixed(3)}%;width:${share(span.duration).toFixed(3)}%"></div></td></tr>`;
  });
  return `<h3>${escaped(trace.traceID)}</h3><p><a href="/api/traces/${escaped(trace.traceID)}">JSON</a></p><table>${rows.join("\n")}</table>`;
}

/** Parents before children, the earliest first. */
function inOrder(spans: readonly JaegerSpan[]): { readonly span: JaegerSpan; readonly depth: number }[] {
  const ids = new Set(spans.map(({ spanID }) => spanID));
  const children = new Map<string, JaegerSpan[]>();
  for (const span of spans) {
    const parent = span.references.find(({ refType }) => refType === "CHILD_OF")?.spanID ?? "";
    const key = ids.has(parent) && parent !== span.spanID ? parent : "";
    const list = children.get(key) ?? [];
    children.set(key, list);
    list.push(span);
  }
  for (const list of children.values())
    list.sort((a, b) => (a.startTime < b.startTime ? -1 : a.startTime > b.startTime ? 1 : 0));
  const out: { readonly span: JaegerSpan; readonly depth: number }[] = [];
  const waiting = (children.get("") ?? []).map((span) => ({ span, depth: 0 })).reverse();
  const seen = new Set<JaegerSpan>();
  for (let item = waiting.pop(); item !== undefined; item = waiting.pop()) {
    const { depth, span } = item;
    if (seen.has(span)) continue; // ids are whatever somebody sent
    seen.add(span);
    out.push(item);
    const below = children.get(span.spanID) ?? [];
    for (const child of [...below].reverse()) waiting.push({ span: child, depth: depth + 1 });
  }
  return out;
}

function escaped(text: string): string {
  return text
    .replaceAll("&", "&amp;")
    .replaceAll("<", "&lt;")
    .replaceAll(">", "&gt;")
    .replaceAll('"', "&quot;");
}
