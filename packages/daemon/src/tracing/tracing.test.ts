import assert from "node:assert/strict";
import { test } from "node:test";
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { TraceService } from "@kiln/api/otlp";
import { AnyValueSchema, KeyValueSchema } from "@kiln/api/otlp-common";
import { type Span, SpanSchema } from "@kiln/api/otlp-trace";
import { Channel, duplexPair, Router } from "@kiln/grpc";
import { BuildTrace } from "./build-trace.ts";
import { exporterFromEnv, OtlpExporter } from "./otlp-exporter.ts";
import {
  exportMessage,
  ownResource,
  parseTraceParent,
  type RecordedSpan,
  spansOf,
  traceParent,
} from "./recorded-span.ts";
import { spanStubs } from "./span-stubs.ts";
import { TraceRecorder } from "./trace-recorder.ts";
import { Tracer } from "./tracer.ts";

const TRACE = "0af7651916cd43dd8448eb211c80319c";
const SPAN = "b7ad6b7169203331";

function spanOf(init: Partial<Span> = {}): RecordedSpan {
  const span = create(SpanSchema, {
    traceId: Buffer.from(TRACE, "hex"),
    spanId: Buffer.from(SPAN, "hex"),
    name: "build",
    kind: 1,
    startTimeUnixNano: 1_767_323_045_000_000_006n,
    endTimeUnixNano: 1_767_323_046_500_000_000n,
  });
  return { span: Object.assign(span, init), resource: ownResource("kilnd", {}), scope: undefined };
}

test("trace contexts: only whole ones count", () => {
  const text = `00-${TRACE}-${SPAN}-01`;
  assert.deepEqual(parseTraceParent(text), { traceId: TRACE, spanId: SPAN });
  assert.equal(traceParent({ traceId: TRACE, spanId: SPAN }), text);
  for (const bad of [
    undefined,
    "",
    "x",
    `ff-${TRACE}-${SPAN}-01`,
    `00-${"0".repeat(32)}-${SPAN}-01`,
    `00-${TRACE}-${"0".repeat(16)}-01`,
    `00-${TRACE.toUpperCase()}-${SPAN}-01`,
    `00-${TRACE}-${SPAN}`,
  ])
    assert.equal(parseTraceParent(bad), undefined, String(bad));
});

test("a build's trace: the call, and each time that a vertex ran", () => {
  const spans: Span[] = [];
  const trace = new BuildTrace({ traceId: TRACE, spanId: SPAN }, (more) => void spans.push(...more));
  const status = { statuses: [], logs: [], warnings: [] };
  const vertex = { digest: "sha256:a", inputs: [], name: "RUN x", cached: false };
  trace.observe({ ...status, vertexes: [vertex, { ...vertex, startedMs: 1 }] });
  assert.equal(spans.length, 0);
  const done = { ...vertex, startedMs: 1, completedMs: 2.5, error: "exit code: 1" };
  trace.observe({ ...status, vertexes: [done, done] });
  trace.observe({
    ...status,
    vertexes: [{ ...vertex, digest: "b", cached: true, startedMs: 3, completedMs: 3 }],
  });
  trace.end(new Error("no"));
  assert.deepEqual(
    spans.map((span) => [span.name, span.status?.message, span.endTimeUnixNano - span.startTimeUnixNano]),
    [
      ["RUN x", "exit code: 1", 1_500_000n],
      ["load cache: RUN x", undefined, 0n],
      ["moby.buildkit.v1.Control/Solve", "no", spans[2]!.endTimeUnixNano - spans[2]!.startTimeUnixNano],
    ],
  );
  const [run, , solve] = spans;
  assert.deepEqual(run?.parentSpanId, solve?.spanId);
  assert.equal(Buffer.from(solve!.parentSpanId).toString("hex"), SPAN);
  assert.equal(Buffer.from(run!.traceId).toString("hex"), TRACE);
});

test("recorded traces read as those of BuildKit", () => {
  const attribute = (key: string, value: MessageInitShape<typeof AnyValueSchema>["value"]) =>
    create(KeyValueSchema, {
      key,
      value: create(AnyValueSchema, { value } as MessageInitShape<typeof AnyValueSchema>),
    });
  const recorded = spanOf({
    attributes: [
      attribute("text", { case: "stringValue", value: "<a>" }),
      attribute("number", { case: "intValue", value: 7n }),
      attribute("bytes", { case: "bytesValue", value: new Uint8Array(1) }),
    ],
  });
  const stub = JSON.parse(spanStubs([recorded]));
  assert.deepEqual(stub.SpanContext, {
    TraceID: TRACE,
    SpanID: SPAN,
    TraceFlags: "01",
    TraceState: "",
    Remote: false,
  });
  assert.equal(stub.Parent.TraceID, "0".repeat(32));
  assert.equal(stub.StartTime, "2026-01-02T03:04:05.000000006Z");
  assert.equal(stub.EndTime, "2026-01-02T03:04:06.5Z");
  assert.deepEqual(stub.Attributes, [
    { Key: "text", Value: { Type: "STRING", Value: "<a>" } },
    { Key: "number", Value: { Type: "INT64", Value: 7 } },
  ]);
  assert.equal(stub.Events, null);
  assert.equal(stub.Resource[0].Value.Value, "kilnd");
  assert.equal(spanStubs([recorded, recorded]).match(/"Name": "build"/g)?.length, 2);
});

test("spans are kept by trace for who asks in time, within bounds", () => {
  let now = 0;
  using recorder = new TraceRecorder(() => now);
  recorder.add([spanOf({ name: "early" })]);
  const stop = recorder.record(TRACE);
  now = 120_000;
  recorder.collect();
  recorder.add(Array.from({ length: 15_000 }, () => spanOf()));
  const spans = stop();
  assert.equal(spans[0]?.span.name, "early");
  assert.equal(spans.length, 10_000);
  now = 300_000;
  recorder.collect();
  assert.deepEqual(recorder.record(TRACE)(), []);
  // a flood of other traces takes no room from those that are wanted
  const wanted = recorder.record(TRACE);
  for (let n = 0; n < 5_000; n++) {
    const traceId = Buffer.alloc(16);
    traceId.writeUInt32BE(n + 1);
    recorder.add([spanOf({ traceId })]);
  }
  recorder.add([spanOf({ name: "wanted" })]);
  assert.deepEqual(
    wanted().map(({ span }) => span.name),
    ["wanted"],
  );
  // what has no usable ids is nobody's
  const odd = exportMessage([spanOf({ traceId: new Uint8Array(3) }), spanOf()]);
  assert.equal(spansOf(odd).length, 1);
});

test("the collector's address is OpenTelemetry's; what can't be is refused by name", async () => {
  const failed: unknown[] = [];
  const from = (env: Record<string, string>) => exporterFromEnv(env, (error) => failed.push(error));
  assert.equal(from({}), undefined);
  assert.equal(from({ OTEL_TRACES_EXPORTER: "none", OTEL_EXPORTER_OTLP_ENDPOINT: "http://x" }), undefined);
  assert.throws(() => from({ OTEL_TRACES_EXPORTER: "jaeger" }), /unsupported opentelemetry exporter jaeger/);
  assert.throws(
    () => from({ OTEL_TRACES_EXPORTER: "otlp", OTEL_EXPORTER_OTLP_PROTOCOL: "http/json" }),
    /unsupported otlp protocol http\/json/,
  );
  assert.equal(from({ OTEL_TRACES_EXPORTER: "jaeger", OTEL_IGNORE_ERROR: "1" }), undefined);
  const endpoint = { OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: "http://127.0.0.1:1" };
  await using exporter = from(endpoint);
  exporter?.add([spanOf()]);
  await exporter?.[Symbol.asyncDispose]();
  assert.equal(failed.length, 1);
});

test("spans reach a collector in batches, the last ones at the end", async () => {
  const sent: number[] = [];
  const exporter = new OtlpExporter({
    send: async (spans) => void sent.push(spans.length),
    timeoutMs: 1000,
    onFailure: (error) => assert.fail(String(error)),
  });
  exporter.add(Array.from({ length: 600 }, () => spanOf()));
  exporter.add(Array.from({ length: 9000 }, () => spanOf()));
  await exporter[Symbol.asyncDispose]();
  assert.deepEqual(sent, [600, 2048]);
});

test("clients and steps send their spans by the collector's service", async () => {
  using tracer = new Tracer({ resource: ownResource("kilnd", {}), exporter: undefined });
  const build = tracer.begin(`00-${TRACE}-${SPAN}-01`);
  const router = new Router().add(TraceService, tracer.handlers());
  const [near, far] = duplexPair();
  router.accept(far);
  await using channel = new Channel(async () => near);
  await channel.unary(TraceService.method.export, exportMessage([spanOf()]));
  build.trace.end(undefined);
  assert.deepEqual(
    build.stop().map(({ span }) => span.name),
    ["build", "moby.buildkit.v1.Control/Solve"],
  );
  await router.close({ timeoutMs: 0 });
});
