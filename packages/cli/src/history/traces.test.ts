import assert from "node:assert/strict";
import { test } from "node:test";
import { parseSpanStubs, type SpanStub, sanitizedTrace } from "./span-stubs.ts";
import { jaegerText, jaegerTrace } from "./trace-json.ts";
import { serveTraces } from "./trace-server.ts";

const TRACE = "0af7651916cd43dd8448eb211c80319c";
const ROOT = "b7ad6b7169203331";
const NONE = "0".repeat(16);

function stub(over: Partial<SpanStub> & { readonly id?: string; readonly parent?: string } = {}): SpanStub {
  const { id = ROOT, parent = NONE, ...rest } = over;
  return {
    Name: "build <x>",
    SpanContext: { TraceID: TRACE, SpanID: id, TraceFlags: "01" },
    Parent: { TraceID: TRACE, SpanID: parent },
    SpanKind: 1,
    StartTime: "2026-01-02T03:04:05.000000006Z",
    EndTime: "2026-01-02T03:04:06.5Z",
    Attributes: null,
    Events: null,
    Links: null,
    Status: { Code: 0, Description: "" },
    Resource: [{ Key: "service.name", Value: { Type: "STRING", Value: "buildctl" } }],
    ...rest,
  };
}

test("a recorded trace is documents in a row", () => {
  const text = `${JSON.stringify(stub({ Name: 'a "}{" \\' }), null, 2)}\n${JSON.stringify(stub())}`;
  assert.deepEqual(
    parseSpanStubs(text).map(({ Name }) => Name),
    ['a "}{" \\', "build <x>"],
  );
  assert.deepEqual(parseSpanStubs(""), []);
  assert.throws(() => parseSpanStubs('{"Name": "x"'), /unexpected end/);
  assert.throws(() => parseSpanStubs('{"Name": "x"}'), /no span/);
});

test("spans in Jaeger's words", () => {
  const failed = stub({
    id: "00f067aa0ba902b7",
    parent: ROOT,
    SpanKind: 2,
    Status: { Code: 1, Description: "no" },
    Attributes: [
      { Key: "n", Value: { Type: "INT64", Value: 3 } },
      { Key: "list", Value: { Type: "STRINGSLICE", Value: ["a", "b"] } },
    ],
  });
  const trace = jaegerTrace([stub(), failed]);
  assert.ok(trace);
  const [, span] = trace.spans;
  assert.equal(span?.startTime, 1_767_323_045_000_000n);
  assert.equal(span?.duration, 1_499_999n);
  assert.deepEqual(span?.references, [{ refType: "CHILD_OF", traceID: TRACE, spanID: ROOT }]);
  assert.deepEqual(
    span?.tags.map(({ key, value }) => `${key}=${String(value)}`),
    [
      "n=3",
      'list=["a","b"]',
      "span.kind=server",
      "error=true",
      "otel.status_code=ERROR",
      "otel.status_description=no",
    ],
  );
  assert.equal(trace.processes.get("p1")?.serviceName, "buildctl");
  assert.equal(JSON.parse(jaegerText(trace)).data[0].spans[0].operationName, "build <x>");
  assert.equal(jaegerTrace([]), undefined);
});

test("bundles show no tokens of command lines", () => {
  const command = stub({
    Attributes: [
      {
        Key: "command",
        Value: { Type: "STRINGSLICE", Value: ["--export-cache", "type=gha,token=s3cret,scope=x"] },
      },
      { Key: "line", Value: { Type: "STRING", Value: `secret_access_key=s3cret ghs_${"a".repeat(36)}` } },
    ],
  });
  const text = sanitizedTrace(JSON.stringify(command));
  assert.doesNotMatch(text, /s3cret|aaaa/);
  assert.match(text, /scope=x/);
});

test("traces are shown to this machine's browser, whatever their names", async () => {
  const trace = jaegerTrace([stub(), stub({ id: "00f067aa0ba902b7", parent: "00f067aa0ba902b7" })]);
  assert.ok(trace);
  await using server = await serveTraces("127.0.0.1:0", [trace]);
  const page = await (await fetch(`${server.origin}/trace/${TRACE}`)).text();
  assert.match(page, /build &lt;x&gt;/);
  assert.doesNotMatch(page, /build <x>/);
  const json = (await (await fetch(`${server.origin}/api/traces/${TRACE}`)).json()) as { data: unknown[] };
  assert.equal(json.data.length, 1);
  assert.equal((await fetch(`${server.origin}/trace/abc`)).status, 404);
  await assert.rejects(serveTraces("nowhere", [trace]), /invalid address/);
});
