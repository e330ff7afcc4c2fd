import type { AnyValue, KeyValue } from "@kiln/api/otlp-common";
import type { Span } from "@kiln/api/otlp-trace";
import type { RecordedSpan } from "./recorded-span.ts";

/** Media type of a recorded trace. */
export const TRACE_TYPE = "application/vnd.buildkit.otlp.json.v0";

/** A trace as BuildKit keeps it: one indented JSON document per span, after the Go SDK's `SpanStub`. */
export function spanStubs(spans: readonly RecordedSpan[]): string {
  return spans.map((recorded) => `${JSON.stringify(stubOf(recorded), null, 2)}\n`).join("");
}

function stubOf({ span, resource, scope }: RecordedSpan): object {
  const traceId = hex(span.traceId);
  const library = {
    Name: scope?.name ?? "",
    Version: scope?.version ?? "",
    SchemaURL: "",
    Attributes: {},
  };
  const isRoot = span.parentSpanId.length === 0;
  return {
    Name: span.name,
    SpanContext: contextOf(traceId, hex(span.spanId), "01"),
    Parent: isRoot
      ? contextOf("0".repeat(32), "0".repeat(16), "00")
      : contextOf(traceId, hex(span.parentSpanId), "01"),
    SpanKind: span.kind,
    StartTime: goTime(span.startTimeUnixNano),
    EndTime: goTime(span.endTimeUnixNano),
    Attributes: attributesOf(span.attributes),
    Events: nullIfEmpty(
      span.events.map((event) => ({
        Name: event.name,
        Attributes: attributesOf(event.attributes),
        DroppedAttributeCount: event.droppedAttributesCount,
        Time: goTime(event.timeUnixNano),
      })),
    ),
    Links: nullIfEmpty(span.links.filter(hasIds).map(linkOf)),
    Status: statusOf(span),
    DroppedAttributes: span.droppedAttributesCount,
    DroppedEvents: span.droppedEventsCount,
    DroppedLinks: span.droppedLinksCount,
    ChildSpanCount: 0,
    Resource: attributesOf(resource?.attributes ?? []),
    InstrumentationScope: library,
    InstrumentationLibrary: library,
  };
}

function contextOf(traceId: string, spanId: string, flags: string): object {
  return { TraceID: traceId, SpanID: spanId, TraceFlags: flags, TraceState: "", Remote: false };
}

function hasIds(link: Span["links"][number]): boolean {
  return link.traceId.length === 16 && link.spanId.length === 8;
}

function linkOf(link: Span["links"][number]): object {
  return {
    SpanContext: contextOf(hex(link.traceId), hex(link.spanId), "00"),
    Attributes: attributesOf(link.attributes),
    DroppedAttributeCount: link.droppedAttributesCount,
  };
}

/** OTLP counts unset, ok, error; Go's SDK unset, error, ok. */
function statusOf(span: Span): object {
  const code = span.status?.code ?? 0;
  return { Code: code === 1 ? 2 : code === 2 ? 1 : 0, Description: span.status?.message ?? "" };
}

function attributesOf(list: readonly KeyValue[]): readonly object[] | null {
  return nullIfEmpty(
    list.flatMap(({ key, value }) => {
      const found = value === undefined ? undefined : attributeValue(value);
      return found === undefined ? [] : [{ Key: key, Value: found }];
    }),
  );
}

/** Undefined for what Go's SDK has no type for. */
function attributeValue({ value }: AnyValue): object | undefined {
  switch (value.case) {
    case "stringValue":
      return { Type: "STRING", Value: value.value };
    case "boolValue":
      return { Type: "BOOL", Value: value.value };
    case "intValue":
      return { Type: "INT64", Value: Number(value.value) };
    case "doubleValue":
      return Number.isFinite(value.value) ? { Type: "FLOAT64", Value: value.value } : undefined;
    case "arrayValue": {
      const texts = value.value.values.flatMap((item) =>
        item.value.case === "stringValue" ? [item.value.value] : [],
      );
      return texts.length === value.value.values.length ? { Type: "STRINGSLICE", Value: texts } : undefined;
    }
    default:
      return undefined;
  }
}

function nullIfEmpty<T>(list: readonly T[]): readonly T[] | null {
  return list.length === 0 ? null : list;
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("hex");
}

/** RFC 3339 in UTC, with as many digits of a second as there are. */
function goTime(ns: bigint): string {
  const seconds = ns / 1_000_000_000n;
  // what is no date in Go's JSON either
  const isDate = seconds < 253_402_300_800n;
  const text = new Date(isDate ? Number(seconds) * 1000 : 0).toISOString().slice(0, 19);
  const fraction = isDate ? (ns % 1_000_000_000n).toString().padStart(9, "0").replace(/0+$/, "") : "";
  return `${text}${fraction === "" ? "" : `.${fraction}`}Z`;
}
