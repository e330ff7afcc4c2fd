import type { CacheKey } from "../cache/cache-key.ts";
import type { CacheSource, PendingCacheSource } from "../cache/cache-source.ts";
import type { CacheMap, Vertex } from "../types.ts";
import { EdgeState } from "./edge-state.ts";

/**
 * A piece of work that runs at most once. An aborted task still runs until it settles; only then may the
 * work start again.
 */
export type Work<T> =
  | { readonly kind: "idle" }
  | { readonly kind: "running"; readonly task: number; aborted: boolean }
  | { readonly kind: "done"; readonly value: T }
  | { readonly kind: "failed"; readonly error: unknown };

export const IDLE: Work<never> = { kind: "idle" };

/** Some work and the edges that are waiting for it. */
export class WorkSlot<TOp, TResult, T> {
  work: Work<T> = IDLE;
  readonly wantedBy = new Set<EdgeState<TOp, TResult>>();
}

/** The content key of an input; `undefined` when the op gave none. */
export type ContentKeyValue<TResult> = CacheKey<TResult> | undefined;

/** Something that keeps vertices active: a job, or a vertex that builds others while it runs. */
export interface Holder<TOp, TResult> {
  readonly held: Set<OpState<TOp, TResult>>;
  /** The vertex, if it is one. */
  readonly op?: OpState<TOp, TResult> | undefined;
}

/** Output `index` of an active vertex. */
export interface OpInput<TOp, TResult> {
  readonly op: OpState<TOp, TResult>;
  readonly index: number;
}

/** What a new {@link OpState} is made of. */
export interface OpInit<TOp, TResult> {
  /** As loaded: digest and inputs may differ from those the client sent. */
  readonly vertex: Vertex<TOp>;
  /** Name among the active vertices. */
  readonly name: string;
  readonly originalDigest: string;
  readonly inputs: readonly OpInput<TOp, TResult>[];
  readonly main: CacheSource<TResult>;
}

let lastSerial = 0;

/**
 * An active vertex, shared by all jobs that have it: what is known of its op, and its edges. It lives
 * until its last holder lets go.
 */
export class OpState<TOp, TResult> implements Holder<TOp, TResult> {
  /** Vertices are numbered in the order of their loading. */
  readonly serial = ++lastSerial;
  readonly vertex: Vertex<TOp>;
  readonly name: string;
  readonly originalDigest: string;
  readonly inputs: readonly OpInput<TOp, TResult>[];
  readonly edges = new Map<number, EdgeState<TOp, TResult>>();
  readonly holders = new Set<Holder<TOp, TResult>>();
  /** What this vertex's own builds keep active. */
  readonly held = new Set<OpState<TOp, TResult>>();
  /** Vertices that edges of this one have been merged into. */
  readonly mergedInto = new Set<OpState<TOp, TResult>>();
  readonly sources: CacheSource<TResult>[];
  /** Caches that are still being opened, and that must have been asked before the op runs. */
  readonly awaited = new Set<PendingCacheSource<TResult>>();
  readonly maps: CacheMap<TOp, TResult>[] = [];
  mapsDone = false;
  readonly map = new WorkSlot<TOp, TResult, void>();
  readonly exec = new WorkSlot<TOp, TResult, readonly TResult[]>();
  readonly content: WorkSlot<TOp, TResult, ContentKeyValue<TResult>>[];
  /** Keys of what the op has built itself. */
  readonly builtKeys: CacheKey<TResult>[] = [];
  metadata: unknown;
  deleted = false;

  constructor(init: OpInit<TOp, TResult>) {
    this.vertex = init.vertex;
    this.name = init.name;
    this.originalDigest = init.originalDigest;
    this.inputs = init.inputs;
    this.sources = [init.main];
    this.metadata = init.vertex.options.metadata;
    this.content = init.inputs.map(() => new WorkSlot());
  }

  get op(): this {
    return this;
  }

  get ignoreCache(): boolean {
    return this.vertex.options.ignoreCache === true;
  }

  /** True while a cache that may have the result is still being opened. */
  get waits(): boolean {
    return this.awaited.size > 0;
  }

  /** Nearest value under `key` in the options of its cache maps or, with `ancestors`, those of its inputs. */
  cacheOption(key: unknown, ancestors: boolean): unknown {
    const waiting: OpState<TOp, TResult>[] = [this];
    const seen = new Set(waiting);
    for (const op of waiting) {
      if (op.map.work.kind === "failed" || op.exec.work.kind === "failed") continue;
      for (const map of op.maps) if (map.opts?.has(key)) return map.opts.get(key);
      if (!ancestors) return undefined;
      for (const input of op.inputs) {
        if (seen.has(input.op)) continue;
        seen.add(input.op);
        waiting.push(input.op);
      }
    }
    return undefined;
  }

  /** The edge of output `index`, made on first use. It may have been merged into another. */
  edge(index: number): EdgeState<TOp, TResult> {
    let edge = this.edges.get(index);
    if (!edge) {
      edge = new EdgeState(this, index);
      this.edges.set(index, edge);
    }
    return edge;
  }
}
