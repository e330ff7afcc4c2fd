import { randomBytes } from "node:crypto";
import { create } from "@bufbuild/protobuf";
import type { ExportTraceServiceRequest } from "@kiln/api/otlp";
import { ExportTraceServiceRequestSchema } from "@kiln/api/otlp";
import {
  AnyValueSchema,
  type InstrumentationScope,
  InstrumentationScopeSchema,
  type KeyValue,
  KeyValueSchema,
} from "@kiln/api/otlp-common";
import { type Resource, ResourceSchema } from "@kiln/api/otlp-resource";
import { ResourceSpansSchema, ScopeSpansSchema, type Span } from "@kiln/api/otlp-trace";

/** A span of OpenTelemetry with who made it. */
export interface RecordedSpan {
  readonly span: Span;
  readonly resource: Resource | undefined;
  readonly scope: InstrumentationScope | undefined;
}

/** Takes spans; what they are for is its own matter. Must not throw. */
export interface SpanSink {
  add(spans: readonly RecordedSpan[]): void;
}

/** Which span calls belong to: W3C's trace context. Ids are lower-case hex. */
export interface TraceContext {
  readonly traceId: string;
  readonly spanId: string;
}

const SPAN_ID_BYTES = 8;
const TRACE_ID_BYTES = 16;

/** Reads a `traceparent` header; undefined for none and for one that means nothing. */
export function parseTraceParent(text: string | undefined): TraceContext | undefined {
  const [, version, traceId = "", spanId = ""] =
    /^([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(?:-.*)?$/.exec(text ?? "") ?? [];
  if (version === undefined || version === "ff" || /^0+$/.test(traceId) || /^0+$/.test(spanId))
    return undefined;
  return { traceId, spanId };
}

/** The header, saying that the trace is recorded. */
export function traceParent({ traceId, spanId }: TraceContext): string {
  return `00-${traceId}-${spanId}-01`;
}

/** A new span below `parent`, or the first of a new trace. */
export function newContext(parent: TraceContext | undefined): TraceContext {
  const traceId = parent?.traceId ?? randomBytes(TRACE_ID_BYTES).toString("hex");
  return { traceId, spanId: randomBytes(SPAN_ID_BYTES).toString("hex") };
}

/** The spans of an export, each with its resource and scope; those without usable ids are left out. */
export function spansOf(message: ExportTraceServiceRequest): RecordedSpan[] {
  const out: RecordedSpan[] = [];
  for (const { resource, scopeSpans } of message.resourceSpans) {
    for (const { scope, spans } of scopeSpans) {
      for (const span of spans) {
        if (span.traceId.length !== TRACE_ID_BYTES || span.spanId.length !== SPAN_ID_BYTES) continue;
        if (span.parentSpanId.length !== 0 && span.parentSpanId.length !== SPAN_ID_BYTES) continue;
        out.push({ span, resource, scope });
      }
    }
  }
  return out;
}

/** The other way: one group for each resource and scope. */
export function exportMessage(spans: readonly RecordedSpan[]): ExportTraceServiceRequest {
  const groups = new Map<Resource | undefined, Map<InstrumentationScope | undefined, Span[]>>();
  for (const { resource, scope, span } of spans) {
    const scopes = groups.get(resource) ?? new Map<InstrumentationScope | undefined, Span[]>();
    groups.set(resource, scopes);
    const list = scopes.get(scope) ?? [];
    scopes.set(scope, list);
    list.push(span);
  }
  return create(ExportTraceServiceRequestSchema, {
    resourceSpans: [...groups].map(([resource, scopes]) =>
      create(ResourceSpansSchema, {
        ...(resource === undefined ? {} : { resource }),
        scopeSpans: [...scopes].map(([scope, list]) =>
          create(ScopeSpansSchema, { ...(scope === undefined ? {} : { scope }), spans: list }),
        ),
      }),
    ),
  });
}

/** A text attribute. */
export function textAttribute(key: string, value: string): KeyValue {
  return create(KeyValueSchema, {
    key,
    value: create(AnyValueSchema, { value: { case: "stringValue", value } }),
  });
}

/** What the daemon calls itself: `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` may say otherwise. */
export function ownResource(program: string, env: Readonly<Record<string, string | undefined>>): Resource {
  const attributes = new Map([["service.name", program]]);
  for (const pair of (env["OTEL_RESOURCE_ATTRIBUTES"] ?? "").split(",")) {
    const at = pair.indexOf("=");
    if (at > 0) attributes.set(pair.slice(0, at).trim(), decoded(pair.slice(at + 1).trim()));
  }
  const name = env["OTEL_SERVICE_NAME"] ?? "";
  if (name !== "") attributes.set("service.name", name);
  attributes.set("telemetry.sdk.language", "nodejs");
  attributes.set("telemetry.sdk.name", "kiln");
  return create(ResourceSchema, {
    attributes: [...attributes].map(([key, value]) => textAttribute(key, value)),
  });
}

/** The scope of the daemon's own spans. */
export const OWN_SCOPE: InstrumentationScope = create(InstrumentationScopeSchema, { name: "kiln" });

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text; // a stray % is one
  }
}
