import { createServer, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { performance } from "node:perf_hooks";
import { BuildError, errorMessage } from "@kiln/base";
import { type BuildMetrics, gauge } from "./build-metrics.ts";

/** What the debugging address tells of. */
export interface DebugState {
  readonly metrics: BuildMetrics;
  /** The daemon's state, for people: plain JSON values. */
  readonly state: () => Readonly<Record<string, unknown>>;
}

/** Addresses of buildkitd that are about Go's runtime or its own caches' format. */
const MISSING: readonly (readonly [RegExp, string])[] = [
  [/^\/debug\/pprof(?:\/|$)/, "profiles of Go's runtime; start kilnd with NODE_OPTIONS=--cpu-prof instead"],
  [/^\/debug\/flight(?:\/|$)/, "flight records of Go's runtime"],
  [/^\/debug\/(?:requests|events)$/, "Go's request traces; builds have traces in their history records"],
  [/^\/debug\/cache(?:\/|$)/, "plaintexts of cache digests (--save-cache-debug)"],
  [/^\/debug\/gc$/, "a collection on demand"],
];

/**
 * Serves `--debugaddr`: `/metrics` for Prometheus, `/debug/vars` and `/debug/state` as JSON. What buildkitd has
 * besides is refused by name. An address without a host is this machine's alone.
 */
export async function serveDebug(
  address: string,
  at: DebugState,
): Promise<{ readonly address: string } & AsyncDisposable> {
  const server = createServer((req, res) => {
    const path = (req.url ?? "/").split("?")[0] as string;
    answer(res, req.method === "GET" || req.method === "HEAD" ? path : "", at);
  });
  server.headersTimeout = 60_000;
  await bind(server, address);
  server.on("error", () => undefined);
  server.unref();
  const bound = server.address() as AddressInfo | string;
  const text = typeof bound === "string" ? `unix://${bound}` : `tcp://${hostText(bound)}:${bound.port}`;
  return {
    address: text,
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections();
      await new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
}

function answer(res: ServerResponse, path: string, at: DebugState): void {
  switch (path) {
    case "/metrics":
      send(res, 200, "text/plain; version=0.0.4; charset=utf-8", at.metrics.text() + processMetrics());
      return;
    case "/debug/vars":
      send(res, 200, "application/json", json({ cmdline: process.argv, memstats: process.memoryUsage() }));
      return;
    case "/debug/state":
      send(res, 200, "application/json", json(at.state()));
      return;
    default: {
      const missing = MISSING.find(([pattern]) => pattern.test(path));
      if (missing === undefined) send(res, 404, "text/plain", "404 page not found\n");
      else send(res, 501, "text/plain", `not supported by kilnd: ${missing[1]}\n`);
    }
  }
}

function processMetrics(): string {
  const { system, user } = process.cpuUsage();
  const { heapUsed, rss } = process.memoryUsage();
  return [
    gauge("process_resident_memory_bytes", "Resident memory size in bytes.", rss),
    gauge("process_start_time_seconds", "Start time since the epoch.", performance.timeOrigin / 1000),
    gauge("nodejs_heap_size_used_bytes", "Heap that is in use.", heapUsed),
    `# HELP process_cpu_seconds_total User and system time spent.\n# TYPE process_cpu_seconds_total counter\n`,
    `process_cpu_seconds_total ${(system + user) / 1e6}\n`,
  ].join("");
}

async function bind(server: Server, address: string): Promise<void> {
  const [, scheme = "tcp", rest = address] = /^([a-z]+):\/\/(.*)$/.exec(address) ?? [];
  await new Promise<void>((resolve, reject) => {
    server.once("error", (error) =>
      reject(new BuildError("unavailable", `--debugaddr ${address}: ${errorMessage(error)}`)),
    );
    if (scheme === "unix") {
      server.listen(rest, resolve);
      return;
    }
    const match = /^(?:\[([0-9a-fA-F:.]+)\]|([^:]*)):(\d{1,5})$/.exec(rest);
    if (scheme !== "tcp" || match === null) {
      reject(new BuildError("invalid_argument", `--debugaddr: invalid address ${address}`));
      return;
    }
    server.listen({ host: match[1] ?? (match[2] || "127.0.0.1"), port: Number(match[3]) }, resolve);
  });
}

function hostText({ address, family }: AddressInfo): string {
  return family === "IPv6" ? `[${address}]` : address;
}

function send(res: ServerResponse, status: number, type: string, body: string): void {
  res.writeHead(status, { "content-type": type, "x-content-type-options": "nosniff" }).end(body);
}

function json(value: unknown): string {
  return `${JSON.stringify(value, null, 2)}\n`;
}
