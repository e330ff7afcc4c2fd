import { create } from "@bufbuild/protobuf";
import { type Span, Span_SpanKind, SpanSchema, Status_StatusCode, StatusSchema } from "@kiln/api/otlp-trace";
import { errorMessage, isCanceled } from "@kiln/base";
import type { SolveStatus, VertexProgress } from "@kiln/solver";
import { newContext, type RecordedSpan, type TraceContext, textAttribute } from "./recorded-span.ts";

const SOLVE = "moby.buildkit.v1.Control/Solve";

/**
 * The spans of one build: one for the call, and below it one for each time that a vertex ran, under BuildKit's
 * names (`load cache: …` for a result that came from a cache).
 */
export class BuildTrace {
  /** Of the call's span. */
  readonly context: TraceContext;
  readonly #parent: TraceContext | undefined;
  readonly #emit: (spans: readonly Span[]) => void;
  readonly #startMs = Date.now();
  /** Start of the last interval that was told of, by vertex. */
  readonly #told = new Map<string, number>();

  constructor(parent: TraceContext | undefined, emit: (spans: readonly Span[]) => void) {
    this.#parent = parent;
    this.#emit = emit;
    this.context = newContext(parent);
  }

  observe({ vertexes }: SolveStatus): void {
    const spans = vertexes.flatMap((vertex) => this.#vertexSpan(vertex) ?? []);
    if (spans.length > 0) this.#emit(spans);
  }

  end(error: unknown): void {
    this.#emit([
      this.#span({
        context: this.context,
        parent: this.#parent,
        kind: Span_SpanKind.SERVER,
        name: SOLVE,
        startMs: this.#startMs,
        endMs: Date.now(),
        attributes: [textAttribute("rpc.method", SOLVE), textAttribute("rpc.system.name", "grpc")],
        error: error === undefined ? undefined : isCanceled(error) ? "context canceled" : errorMessage(error),
      }),
    ]);
  }

  #vertexSpan(vertex: VertexProgress): Span | undefined {
    const { digest, startedMs, completedMs } = vertex;
    if (startedMs === undefined || completedMs === undefined) return undefined;
    if (this.#told.get(digest) === startedMs) return undefined;
    this.#told.set(digest, startedMs);
    return this.#span({
      context: newContext(this.context),
      parent: this.context,
      kind: Span_SpanKind.INTERNAL,
      name: vertex.cached ? `load cache: ${vertex.name}` : vertex.name,
      startMs: startedMs,
      endMs: completedMs,
      attributes: [textAttribute("vertex", digest)],
      error: vertex.error,
    });
  }

  #span(of: {
    readonly context: TraceContext;
    readonly parent: TraceContext | undefined;
    readonly kind: Span_SpanKind;
    readonly name: string;
    readonly startMs: number;
    readonly endMs: number;
    readonly attributes: RecordedSpan["span"]["attributes"];
    readonly error: string | undefined;
  }): Span {
    return create(SpanSchema, {
      traceId: Buffer.from(of.context.traceId, "hex"),
      spanId: Buffer.from(of.context.spanId, "hex"),
      parentSpanId: Buffer.from(of.parent?.spanId ?? "", "hex"),
      name: of.name,
      kind: of.kind,
      startTimeUnixNano: nanoseconds(of.startMs),
      endTimeUnixNano: nanoseconds(of.endMs),
      attributes: of.attributes,
      flags: 1,
      ...(of.error === undefined
        ? {}
        : { status: create(StatusSchema, { code: Status_StatusCode.ERROR, message: of.error }) }),
    });
  }
}

function nanoseconds(ms: number): bigint {
  return BigInt(Math.round(ms * 1000)) * 1000n;
}
