import { toBinary } from "@bufbuild/protobuf";
import { SpanSchema } from "@kiln/api/otlp-trace";
import type { RecordedSpan, SpanSink } from "./recorded-span.ts";

/** Spans that no build has asked for are kept this long: a build's first ones may come before it. */
const IDLE_MS = 60_000;
const GC_INTERVAL_MS = 60_000;
/** What clients and steps send is kept in memory, so it is bounded; further spans are left out. */
const MAX_TRACES = 1_000;
const MAX_SPANS_PER_TRACE = 10_000;
const MAX_BYTES_PER_TRACE = 4 << 20;
const MAX_BYTES = 16 << 20;

interface Trace {
  readonly spans: RecordedSpan[];
  bytes: number;
  listeners: number;
  lastMs: number;
}

/** Keeps spans by trace until the builds that they belong to have been recorded. */
export class TraceRecorder implements SpanSink, Disposable {
  readonly #traces = new Map<string, Trace>();
  readonly #timer: NodeJS.Timeout;
  readonly #now: () => number;
  #bytes = 0;

  constructor(now: () => number = Date.now) {
    this.#now = now;
    this.#timer = setInterval(() => this.collect(), GC_INTERVAL_MS);
    this.#timer.unref();
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
    this.#traces.clear();
    this.#bytes = 0;
  }

  add(spans: readonly RecordedSpan[]): void {
    for (const recorded of spans) {
      const id = Buffer.from(recorded.span.traceId).toString("hex");
      if (!this.#traces.has(id) && this.#traces.size >= MAX_TRACES)
        this.#drop((other) => other.listeners === 0);
      if (!this.#traces.has(id) && this.#traces.size >= MAX_TRACES) continue;
      const trace = this.#traceOf(id);
      const bytes = toBinary(SpanSchema, recorded.span).length;
      if (trace.spans.length >= MAX_SPANS_PER_TRACE || trace.bytes + bytes > MAX_BYTES_PER_TRACE) continue;
      if (this.#bytes + bytes > MAX_BYTES) this.#drop((other) => other.listeners === 0 && other !== trace);
      if (this.#bytes + bytes > MAX_BYTES) continue;
      trace.spans.push(recorded);
      trace.bytes += bytes;
      this.#bytes += bytes;
    }
  }

  /** Keeps what comes for a trace until the returned function is called, which gives all there is. */
  record(traceId: string): () => readonly RecordedSpan[] {
    const trace = this.#traceOf(traceId);
    trace.listeners++;
    let spans: readonly RecordedSpan[] | undefined;
    return () => {
      if (spans === undefined) {
        trace.listeners--;
        spans = [...trace.spans];
      }
      return spans;
    };
  }

  /** Forgets traces that nobody has asked for lately. */
  collect(): void {
    const before = this.#now() - IDLE_MS;
    this.#drop((trace) => trace.listeners === 0 && trace.lastMs < before);
  }

  #traceOf(id: string): Trace {
    const trace = this.#traces.get(id) ?? { spans: [], bytes: 0, listeners: 0, lastMs: 0 };
    trace.lastMs = this.#now();
    this.#traces.set(id, trace);
    return trace;
  }

  #drop(which: (trace: Trace) => boolean): void {
    for (const [id, trace] of this.#traces) {
      if (!which(trace)) continue;
      this.#traces.delete(id);
      this.#bytes -= trace.bytes;
    }
  }
}
