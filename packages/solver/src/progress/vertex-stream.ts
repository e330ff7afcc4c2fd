import type { VertexProgress } from "./status.ts";

/** What unfinished vertices end with when a job ends. BuildKit's clients look for this text. */
export const CANCELED_TEXT = "context canceled";

/**
 * Fills in what a stream of vertices leaves unsaid, as BuildKit does: a vertex whose user starts without
 * it having run was cached, and one that never finished was cancelled.
 */
export class VertexStream {
  readonly #last = new Map<string, VertexProgress>();
  readonly #wasCached = new Set<string>();

  /** The vertices to show for `vertex`, which comes last. */
  add(vertex: VertexProgress): VertexProgress[] {
    const out: VertexProgress[] = [];
    // users before inputs in `waiting`, reversed at the end
    const waiting = [vertex];
    for (let next = waiting.pop(); next !== undefined; next = waiting.pop()) {
      this.#last.set(next.digest, next);
      out.push(next);
      if (next.startedMs !== undefined) waiting.push(...this.#unfinishedInputs(next, next.startedMs));
      if (next.cached) this.#markCached(next.digest);
    }
    for (const made of out.slice(1)) this.#last.delete(made.digest);
    return out.reverse();
  }

  /** Ends what has started and never completed. */
  finish(nowMs: number): VertexProgress[] {
    const out: VertexProgress[] = [];
    for (const vertex of this.#last.values()) {
      if (vertex.startedMs === undefined || vertex.completedMs !== undefined) continue;
      const cached = this.#wasCached.has(vertex.digest);
      const error = vertex.error || (cached ? undefined : CANCELED_TEXT);
      out.push({ ...vertex, completedMs: nowMs, error });
    }
    return out;
  }

  #unfinishedInputs(vertex: VertexProgress, atMs: number): VertexProgress[] {
    const out: VertexProgress[] = [];
    for (const digest of vertex.inputs) {
      const input = this.#last.get(digest);
      if (!input || input.cached || input.completedMs !== undefined) continue;
      const cached = { ...input, cached: true, startedMs: atMs, completedMs: atMs };
      this.#last.set(digest, cached);
      out.push(cached);
    }
    return out;
  }

  #markCached(first: string): void {
    const waiting = [first];
    for (let digest = waiting.pop(); digest !== undefined; digest = waiting.pop()) {
      const vertex = this.#last.get(digest);
      if (!vertex || this.#wasCached.has(digest)) continue;
      this.#wasCached.add(digest);
      waiting.push(...vertex.inputs);
    }
  }
}
