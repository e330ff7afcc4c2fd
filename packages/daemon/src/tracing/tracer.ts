import type { TraceService } from "@kiln/api/otlp";
import type { Resource } from "@kiln/api/otlp-resource";
import type { ServiceHandlers } from "@kiln/grpc";
import { BuildTrace } from "./build-trace.ts";
import { OWN_SCOPE, parseTraceParent, type RecordedSpan, type SpanSink, spansOf } from "./recorded-span.ts";
import { TraceRecorder } from "./trace-recorder.ts";

/** The trace of one build that is being recorded. */
export interface RecordedBuild {
  readonly trace: BuildTrace;
  /** Ends the recording. */
  stop(): readonly RecordedSpan[];
}

/** Traces of builds: the daemon's own spans, and those that clients and steps send. */
export class Tracer implements Disposable {
  readonly #recorder = new TraceRecorder();
  readonly #resource: Resource;
  readonly #exporter: SpanSink | undefined;

  constructor(opts: {
    readonly resource: Resource;
    /** Where all spans go besides, if anywhere. */
    readonly exporter: SpanSink | undefined;
  }) {
    this.#resource = opts.resource;
    this.#exporter = opts.exporter;
  }

  [Symbol.dispose](): void {
    this.#recorder[Symbol.dispose]();
  }

  /** Begins the trace of a build, under the span of its client if that said which. */
  begin(traceParent: string | undefined): RecordedBuild {
    const trace = new BuildTrace(parseTraceParent(traceParent), (spans) =>
      this.add(spans.map((span) => ({ span, resource: this.#resource, scope: OWN_SCOPE }))),
    );
    return { trace, stop: this.#recorder.record(trace.context.traceId) };
  }

  add(spans: readonly RecordedSpan[]): void {
    this.#recorder.add(spans);
    this.#exporter?.add(spans);
  }

  /** Handlers of `opentelemetry.proto.collector.trace.v1.TraceService`. */
  handlers(): ServiceHandlers<typeof TraceService> {
    return {
      export: (message) => {
        this.add(spansOf(message));
        return {};
      },
    };
  }
}
