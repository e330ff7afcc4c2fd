import { createDeferred, type Deferred, withSignal } from "@kiln/base";
import type { LogProgress, SolveStatus, StatusProgress, VertexProgress, WarningProgress } from "./status.ts";
import { VertexStream } from "./vertex-stream.ts";

/** One thing that happened. */
export type ProgressEvent =
  | { readonly kind: "vertex"; readonly value: VertexProgress }
  | { readonly kind: "status"; readonly value: StatusProgress }
  | { readonly kind: "log"; readonly value: LogProgress }
  | { readonly kind: "warning"; readonly value: WarningProgress };

/** Most events in one batch. */
const MAX_BATCH_EVENTS = 1000;
/** Log output after which a batch is cut. */
const MAX_BATCH_LOG_BYTES = 1 << 20;

/** Everything that has happened in a job, kept so that readers who come late see all of it. */
export class JobProgress {
  readonly #events: ProgressEvent[] = [];
  readonly #known = new WeakSet<object>();
  #closed = false;
  #wake: Deferred<void> | undefined;

  push(event: ProgressEvent): void {
    if (this.#closed) return;
    this.#events.push(event);
    this.#notify();
  }

  /** True the first time it is asked about `source`. */
  meets(source: object): boolean {
    if (this.#known.has(source)) return false;
    this.#known.add(source);
    return true;
  }

  /** No more events; readers end after the last one. */
  close(): void {
    this.#closed = true;
    this.#notify();
  }

  /** From the first event to the end of the job; `now` dates what was never finished. */
  async *read(signal: AbortSignal, now: () => number): AsyncGenerator<SolveStatus> {
    const stream = new VertexStream();
    let at = 0;
    for (;;) {
      signal.throwIfAborted();
      if (at < this.#events.length) {
        const end = this.#batchEnd(at);
        yield batchOf(this.#events.slice(at, end), stream);
        at = end;
      } else if (this.#closed) {
        break;
      } else {
        this.#wake ??= createDeferred();
        await withSignal(this.#wake.promise, signal);
      }
    }
    const rest = stream.finish(now());
    if (rest.length > 0) yield { vertexes: rest, statuses: [], logs: [], warnings: [] };
  }

  #notify(): void {
    const wake = this.#wake;
    this.#wake = undefined;
    wake?.resolve();
  }

  #batchEnd(from: number): number {
    let bytes = 0;
    let end = from;
    while (end < this.#events.length && end - from < MAX_BATCH_EVENTS && bytes < MAX_BATCH_LOG_BYTES) {
      const event = this.#events[end++]!;
      if (event.kind === "log") bytes += event.value.data.length;
    }
    return end;
  }
}

function batchOf(events: readonly ProgressEvent[], stream: VertexStream): SolveStatus {
  const vertexes: VertexProgress[] = [];
  const statuses = new Map<string, StatusProgress>();
  const logs: LogProgress[] = [];
  const warnings: WarningProgress[] = [];
  for (const event of events) {
    switch (event.kind) {
      case "vertex":
        vertexes.push(...stream.add(event.value));
        break;
      case "status": {
        // only the newest state of a transfer is worth sending
        const name = `${event.value.vertex} ${event.value.id}`;
        statuses.delete(name);
        statuses.set(name, event.value);
        break;
      }
      case "log":
        logs.push(event.value);
        break;
      case "warning":
        warnings.push(event.value);
        break;
    }
  }
  return {
    vertexes: vertexes.sort((a, b) => (a.startedMs ?? -1) - (b.startedMs ?? -1)),
    statuses: [...statuses.values()].sort((a, b) => a.timestampMs - b.timestampMs),
    logs: logs.sort((a, b) => a.timestampMs - b.timestampMs),
    warnings,
  };
}
