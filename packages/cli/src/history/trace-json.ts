/** Traces in the words of Jaeger's user interface. */
import { goJson } from "@kiln/formats";
import type { SpanStub, StubAttribute } from "./span-stubs.ts";

/** Name of a process that doesn't say its own. */
const UNKNOWN_SERVICE = "unknown_service:kiln";
const KINDS = ["unspecified", "internal", "server", "client", "producer", "consumer"];

/** One value at a span. */
export interface JaegerTag {
  readonly key: string;
  readonly type: "string" | "bool" | "int64" | "float64";
  readonly value: unknown;
}

/** A span; times are microseconds since the epoch. */
export interface JaegerSpan {
  readonly traceID: string;
  readonly spanID: string;
  readonly flags?: number | undefined;
  readonly operationName: string;
  readonly references: readonly {
    readonly refType: string;
    readonly traceID: string;
    readonly spanID: string;
  }[];
  readonly startTime: bigint;
  readonly duration: bigint;
  readonly tags: readonly JaegerTag[];
  readonly logs: readonly { readonly timestamp: bigint; readonly fields: readonly JaegerTag[] }[] | null;
  readonly processID: string;
  readonly warnings: null;
}

/** A trace with the processes that it went through. */
export interface JaegerTrace {
  readonly traceID: string;
  readonly spans: readonly JaegerSpan[];
  readonly processes: ReadonlyMap<
    string,
    { readonly serviceName: string; readonly tags: readonly JaegerTag[] | null }
  >;
  readonly warnings: null;
}

/** The trace of recorded spans, named after the first; undefined for none. */
export function jaegerTrace(stubs: readonly SpanStub[]): JaegerTrace | undefined {
  const [first] = stubs;
  if (first === undefined) return undefined;
  return {
    traceID: first.SpanContext.TraceID,
    spans: stubs.map((stub, i) => spanOf(stub, `p${i}`)),
    processes: new Map(stubs.map((stub, i) => [`p${i}`, processOf(stub)])),
    warnings: null,
  };
}

/** What Jaeger's user interface imports. */
export function jaegerText(trace: JaegerTrace): string {
  return `${goJson({ data: [trace] }, { indent: "  " })}\n`;
}

function spanOf(stub: SpanStub, processID: string): JaegerSpan {
  const { SpanContext: context, Parent: parent } = stub;
  const start = microseconds(stub.StartTime);
  return {
    traceID: context.TraceID,
    spanID: context.SpanID,
    flags: context.TraceFlags === "01" ? 1 : undefined,
    operationName: stub.Name,
    references: [
      ...(stub.Links ?? []).map((link) => reference("FOLLOWS_FROM", link.SpanContext)),
      reference("CHILD_OF", parent),
    ],
    startTime: start.us,
    duration: (microseconds(stub.EndTime).ns - start.ns) / 1000n,
    tags: tagsOf(stub),
    logs: logsOf(stub),
    processID,
    warnings: null,
  };
}

function reference(
  refType: string,
  { TraceID, SpanID }: { readonly TraceID: string; readonly SpanID: string },
): JaegerSpan["references"][number] {
  return { refType, traceID: TraceID, spanID: SpanID };
}

function tagsOf(stub: SpanStub): JaegerTag[] {
  const tags = (stub.Attributes ?? []).flatMap(tagOf);
  const library = stub.InstrumentationLibrary;
  if (library?.Name) {
    tags.push(text("otel.library.name", library.Name));
    if (library.Version) tags.push(text("otel.library.version", library.Version));
  }
  if (stub.SpanKind !== 1) tags.push(text("span.kind", KINDS[stub.SpanKind] ?? "unspecified"));
  const code = stub.Status.Code;
  const isError = code === 1 || code === "Error";
  const isOk = code === 2 || code === "Ok";
  if (isOk) tags.push(text("otel.status_code", "OK"));
  if (isError) tags.push({ key: "error", type: "bool", value: true }, text("otel.status_code", "ERROR"));
  if ((isOk || isError) && stub.Status.Description)
    tags.push(text("otel.status_description", stub.Status.Description));
  return tags;
}

function logsOf(stub: SpanStub): JaegerSpan["logs"] {
  if (stub.Events === null || stub.Events.length === 0) return null;
  return stub.Events.map((event) => ({
    timestamp: microseconds(event.Time).us,
    fields: [
      ...(event.Name === "" ? [] : [text("event", event.Name)]),
      ...(event.Attributes ?? []).flatMap(tagOf),
      ...(event.DroppedAttributeCount
        ? [
            {
              key: "otel.event.dropped_attributes_count",
              type: "int64",
              value: event.DroppedAttributeCount,
            } as const,
          ]
        : []),
    ],
  }));
}

function processOf(stub: SpanStub): {
  readonly serviceName: string;
  readonly tags: readonly JaegerTag[] | null;
} {
  const attributes = stub.Resource ?? [];
  const name = attributes.find(({ Key }) => Key === "service.name")?.Value.Value;
  const tags = attributes.filter(({ Key }) => Key !== "service.name").flatMap(tagOf);
  return {
    serviceName: typeof name === "string" && name !== "" ? name : UNKNOWN_SERVICE,
    tags: tags.length === 0 ? null : tags,
  };
}

function tagOf({ Key: key, Value: { Type, Value: value } }: StubAttribute): JaegerTag[] {
  switch (Type) {
    case "STRING":
      return [text(key, String(value))];
    case "BOOL":
      return [{ key, type: "bool", value: value === true }];
    case "INT64":
      return [{ key, type: "int64", value: Number(value) }];
    case "FLOAT64":
      return [{ key, type: "float64", value: Number(value) }];
    default:
      return Array.isArray(value) ? [text(key, goJson(value))] : [];
  }
}

function text(key: string, value: string): JaegerTag {
  return { key, type: "string", value };
}

function microseconds(time: string): { readonly us: bigint; readonly ns: bigint } {
  const fraction = /\.(\d{1,9})/.exec(time)?.[1] ?? "";
  const seconds = Date.parse(time.replace(/\.\d+/, ""));
  const ns = Number.isNaN(seconds) ? 0n : BigInt(seconds) * 1_000_000n + BigInt(fraction.padEnd(9, "0"));
  return { us: ns / 1000n, ns };
}
