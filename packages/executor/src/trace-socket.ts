import { existsSync } from "node:fs";
import type { PlannedMount } from "./protocol.ts";

/** Where a step finds the socket. */
export const TRACE_SOCKET_DEST = "/dev/otel-grpc.sock";

const TRACE_ENV = [
  ["OTEL_TRACES_EXPORTER", "otlp"],
  ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", `unix://${TRACE_SOCKET_DEST}`],
  ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc"],
] as const;

/** Lets a step send traces to the daemon's `socket`: returns its environment, and adds the mount to `mounts`. */
export function addTraceSocket(
  socket: string | undefined,
  process: { readonly env: readonly string[]; readonly traceParent?: string | undefined },
  mounts: PlannedMount[],
): readonly string[] {
  const { env, traceParent } = process;
  if (!socket) return env;
  if (existsSync(socket))
    mounts.push({ kind: "host", dest: TRACE_SOCKET_DEST, source: socket, readonly: true });
  const set = new Set(env.map((entry) => entry.split("=", 1)[0]));
  const added = TRACE_ENV.filter(([name]) => !set.has(name)).map(([name, value]) => `${name}=${value}`);
  return [...env, ...added, ...(traceParent === undefined ? [] : [`TRACEPARENT=${traceParent}`])];
}
