/** Recorded traces: a row of JSON documents, one per span, after the Go SDK's `SpanStub`. */
import { BuildError } from "@kiln/base";
import { goJson } from "@kiln/formats";

/** A typed value of an attribute. */
export interface StubAttribute {
  readonly Key: string;
  readonly Value: { readonly Type: string; readonly Value: unknown };
}

/** Which span of which trace. */
export interface StubContext {
  readonly TraceID: string;
  readonly SpanID: string;
  readonly TraceFlags?: string;
}

/** What is read of a span; it may say more. */
export interface SpanStub {
  readonly Name: string;
  readonly SpanContext: StubContext;
  readonly Parent: StubContext;
  readonly SpanKind: number;
  readonly StartTime: string;
  readonly EndTime: string;
  readonly Attributes: readonly StubAttribute[] | null;
  readonly Events:
    | readonly {
        readonly Name: string;
        readonly Attributes: readonly StubAttribute[] | null;
        readonly DroppedAttributeCount?: number;
        readonly Time: string;
      }[]
    | null;
  readonly Links: readonly { readonly SpanContext: StubContext }[] | null;
  readonly Status: { readonly Code: number | string; readonly Description: string };
  readonly Resource: readonly StubAttribute[] | null;
  readonly InstrumentationLibrary?: { readonly Name: string; readonly Version: string };
}

/** Spans of a recorded trace. @throws BuildError `data_loss` for anything else. */
export function parseSpanStubs(text: string): SpanStub[] {
  return [...documents(text)].map((document) => {
    const span: unknown = JSON.parse(document);
    if (!isStub(span)) throw new BuildError("data_loss", "error decoding JSON: no span");
    return span;
  });
}

/**
 * The texts of the documents that follow each other: each ends with the brace that closes it.
 */
function* documents(text: string): Generator<string> {
  let depth = 0;
  let start = -1;
  for (let i = 0; i < text.length; i++) {
    const char = text[i];
    if (char === '"') {
      // to the end of the string
      for (i++; i < text.length && text[i] !== '"'; i++) if (text[i] === "\\") i++;
    } else if (char === "{") {
      if (depth++ === 0) start = i;
    } else if (char === "}" && --depth === 0) {
      yield text.slice(start, i + 1);
    }
  }
  if (depth !== 0) throw new BuildError("data_loss", "error decoding JSON: unexpected end of the trace");
}

function isStub(value: unknown): value is SpanStub {
  if (typeof value !== "object" || value === null) return false;
  const span = value as Partial<Record<keyof SpanStub, unknown>>;
  return (
    typeof span.Name === "string" &&
    isContext(span.SpanContext) &&
    isContext(span.Parent) &&
    typeof span.StartTime === "string" &&
    typeof span.EndTime === "string"
  );
}

function isContext(value: unknown): boolean {
  if (typeof value !== "object" || value === null) return false;
  const { TraceID, SpanID } = value as Partial<StubContext>;
  return /^[0-9a-f]{32}$/.test(String(TraceID)) && /^[0-9a-f]{16}$/.test(String(SpanID));
}

const SECRET_OPTION = /(ghtoken|token|access_key_id|secret_access_key|session_token)=[^ ,]+/gi;
const SECRET_WORDS = [/(?:ghu|ghs)_[A-Za-z0-9]{36}/g, /github_pat_\w{82}/g];

/** The trace without the keys and tokens that stand in command lines. */
export function sanitizedTrace(text: string): string {
  const spans = parseSpanStubs(text).map((span) => {
    const { InstrumentationScope: _scope, ...rest } = span as SpanStub & { InstrumentationScope?: unknown };
    return { ...rest, Attributes: span.Attributes && span.Attributes.map(withoutSecrets) };
  });
  return spans.map((span) => `${goJson(span, { indent: "  " })}\n`).join("");
}

function withoutSecrets(attribute: StubAttribute): StubAttribute {
  const { Type, Value } = attribute.Value;
  if (Type === "STRING") return { ...attribute, Value: { Type, Value: sanitized(String(Value)) } };
  if (Type === "STRINGSLICE" && Array.isArray(Value))
    return { ...attribute, Value: { Type, Value: Value.map((item) => sanitized(String(item))) } };
  return attribute;
}

function sanitized(text: string): string {
  const out = text.replace(SECRET_OPTION, "$1=xxxxx");
  return SECRET_WORDS.reduce((done, word) => done.replace(word, "xxxxx"), out);
}
