import { toBinary } from "@bufbuild/protobuf";
import { ExportTraceServiceRequestSchema, TraceService } from "@kiln/api/otlp";
import { BuildError, errorMessage } from "@kiln/base";
import { Channel, dialAddress } from "@kiln/grpc";
import { exportMessage, type RecordedSpan, type SpanSink } from "./recorded-span.ts";

const INTERVAL_MS = 5_000;
const BATCH_SPANS = 512;
/** Spans that wait for a collector that doesn't answer; further ones are left out. */
const MAX_WAITING_SPANS = 2048;
const DEFAULT_TIMEOUT_MS = 10_000;
/** The last spans get this long when the daemon stops. */
const STOP_TIMEOUT_MS = 5_000;

type Env = Readonly<Record<string, string | undefined>>;
type Send = (spans: readonly RecordedSpan[], timeoutMs: number) => Promise<void>;

/** Sends spans to a collector, in batches. What can't be delivered is lost, and told of. */
export class OtlpExporter implements SpanSink, AsyncDisposable {
  readonly #send: Send;
  readonly #timeoutMs: number;
  readonly #onFailure: (error: unknown) => void;
  readonly #timer: NodeJS.Timeout;
  #waiting: RecordedSpan[] = [];
  #sending: Promise<void> | undefined;

  constructor(opts: {
    readonly send: Send;
    readonly timeoutMs: number;
    readonly onFailure: (error: unknown) => void;
  }) {
    this.#send = opts.send;
    this.#timeoutMs = opts.timeoutMs;
    this.#onFailure = opts.onFailure;
    this.#timer = setInterval(() => void this.#flush(this.#timeoutMs), INTERVAL_MS);
    this.#timer.unref();
  }

  add(spans: readonly RecordedSpan[]): void {
    this.#waiting.push(...spans.slice(0, Math.max(0, MAX_WAITING_SPANS - this.#waiting.length)));
    if (this.#waiting.length >= BATCH_SPANS) void this.#flush(this.#timeoutMs);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#timer);
    await this.#sending;
    await this.#flush(Math.min(this.#timeoutMs, STOP_TIMEOUT_MS));
  }

  async #flush(timeoutMs: number): Promise<void> {
    if (this.#sending !== undefined || this.#waiting.length === 0) return;
    const batch = this.#waiting;
    this.#waiting = [];
    this.#sending = this.#send(batch, timeoutMs).catch(this.#onFailure);
    await this.#sending;
    this.#sending = undefined;
  }
}

/**
 * The collector that OpenTelemetry's environment names, as BuildKit reads it (buildkit.md §10.2); undefined for
 * none.
 *
 * @throws BuildError `unimplemented` for an exporter or protocol that isn't supported, unless `OTEL_IGNORE_ERROR`
 * says that this is no reason to stop.
 */
export function exporterFromEnv(env: Env, onFailure: (error: unknown) => void): OtlpExporter | undefined {
  try {
    return detect(env, onFailure);
  } catch (error) {
    if (/^(?:1|t|T|true|TRUE|True)$/.test(env["OTEL_IGNORE_ERROR"] ?? "")) return undefined;
    throw error;
  }
}

function detect(env: Env, onFailure: (error: unknown) => void): OtlpExporter | undefined {
  const name = env["OTEL_TRACES_EXPORTER"] ?? "";
  if (name === "none") return undefined;
  if (name !== "" && name !== "otlp") {
    throw new BuildError("unimplemented", `unsupported opentelemetry exporter ${name}`);
  }
  const setting = (key: string): string =>
    env[`OTEL_EXPORTER_OTLP_TRACES_${key}`] || env[`OTEL_EXPORTER_OTLP_${key}`] || "";
  if (name === "" && setting("ENDPOINT") === "") return undefined;
  const protocol = setting("PROTOCOL") || "grpc";
  const headers = headersOf(setting("HEADERS"));
  const timeoutMs = Number(setting("TIMEOUT")) || DEFAULT_TIMEOUT_MS;
  switch (protocol) {
    case "grpc":
      return new OtlpExporter({
        send: grpcSender(setting("ENDPOINT") || "http://localhost:4317", headers),
        timeoutMs,
        onFailure,
      });
    case "http/protobuf":
      return new OtlpExporter({ send: httpSender(httpEndpoint(env), headers), timeoutMs, onFailure });
    default:
      throw new BuildError("unimplemented", `unsupported otlp protocol ${protocol}`);
  }
}

/** `name=value` pairs, percent-encoded. */
function headersOf(text: string): Record<string, string> {
  const out: Record<string, string> = Object.create(null);
  for (const pair of text.split(",")) {
    const at = pair.indexOf("=");
    if (at > 0) out[pair.slice(0, at).trim().toLowerCase()] = decodeURIComponent(pair.slice(at + 1).trim());
  }
  return out;
}

function grpcSender(endpoint: string, metadata: Record<string, string>): Send {
  const url = endpoint.includes("://") ? endpoint : `http://${endpoint}`;
  const isUnix = url.startsWith("unix:");
  const { hostname, host, port, protocol } = isUnix ? new URL("http://localhost") : new URL(url);
  const tls = protocol === "https:" ? { serverName: hostname } : undefined;
  const address = isUnix ? url.replace(/^unix:(?:\/\/)?/, "unix://") : `tcp://${hostname}:${port || "4317"}`;
  return async (spans, timeoutMs) => {
    await using channel = new Channel(dialAddress(address, tls), { authority: host });
    await channel.unary(TraceService.method.export, exportMessage(spans), { timeoutMs, metadata });
  };
}

function httpEndpoint(env: Env): string {
  const own = env["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"] ?? "";
  if (own !== "") return own;
  const base = env["OTEL_EXPORTER_OTLP_ENDPOINT"] || "http://localhost:4318";
  return `${base.replace(/\/+$/, "")}/v1/traces`;
}

function httpSender(url: string, headers: Record<string, string>): Send {
  if (!URL.canParse(url)) throw new BuildError("invalid_argument", "invalid OTLP endpoint");
  return async (spans, timeoutMs) => {
    const response = await fetch(url, {
      method: "POST",
      headers: { ...headers, "content-type": "application/x-protobuf" },
      body: toBinary(ExportTraceServiceRequestSchema, exportMessage(spans)),
      signal: AbortSignal.timeout(timeoutMs),
      redirect: "error",
    });
    await response.body?.cancel();
    if (!response.ok) throw new BuildError("unavailable", `collector answered ${response.status}`);
  };
}

/** For the log. */
export function exportFailure(error: unknown): string {
  return `traces could not be exported: ${errorMessage(error)}`;
}
