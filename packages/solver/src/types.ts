import type { CacheSource, PendingCacheSource } from "./cache/cache-source.ts";
import type { CachedResult } from "./cached-result.ts";
import type { ProgressGroup, ProgressWriter } from "./progress/status.ts";

/** One output of a vertex. */
export interface Edge<TOp> {
  readonly vertex: Vertex<TOp>;
  /** Output number, ≥ 0. */
  readonly index: number;
}

/**
 * A node of the build graph. Two vertices with one digest are the same work: the solver runs it once,
 * however many jobs ask for it.
 */
export interface Vertex<TOp> {
  /** Digest of the definition, inputs included. */
  readonly digest: string;
  readonly inputs: readonly Edge<TOp>[];
  readonly name: string;
  readonly options: VertexOptions;
  /** What the engine needs to run it; the solver only hands it on. */
  readonly op: TOp;
}

/** What may differ between two vertices of one digest. */
export interface VertexOptions {
  /** Never answer from the cache; the result gets a new cache key. */
  readonly ignoreCache?: boolean | undefined;
  /** `false` keeps the result (not the record) out of exported caches. */
  readonly exportCache?: boolean | undefined;
  readonly description?: Readonly<Record<string, string>> | undefined;
  readonly progressGroup?: ProgressGroup | undefined;
  /** Combined by {@link SolverOptions.mergeMetadata} when several jobs bring the same vertex. */
  readonly metadata?: unknown;
}

/** How the solver handles results, which it never looks into. All three are synchronous and cheap. */
export interface ResultHooks<TResult> {
  /** Name under which people and logs see it. */
  id(result: TResult): string;
  /** A second handle on the same value; each is released on its own. */
  clone(result: TResult): TResult;
  /** Gives a handle back. What it returns is awaited by nobody; a rejection goes to `onWarning`. */
  release(result: TResult): void | Promise<void>;
}

/** What an op says about the caching of one of its inputs. */
export interface CacheMapDep<TOp, TResult> {
  /** Sub-path of the input: part of its definition-based key, never of its content-based one. */
  readonly selector?: string | undefined;
  /** Digest of the part of the input's content that the op can see. `""` means: no content-based key. */
  readonly computeContentKey?:
    | ((result: TResult, ctx: OpContext<TOp, TResult>) => Promise<string>)
    | undefined;
  /** Runs on the input before anything reads it, in the input's own context (unlazies it, for example). */
  readonly preprocess?: ((result: TResult, ctx: OpContext<TOp, TResult>) => Promise<void>) | undefined;
}

/** How an op is cached. */
export interface CacheMap<TOp, TResult> {
  /** Digest of the operation without its inputs; `random:…` is never exported. */
  readonly digest: string;
  /** One per input of the vertex, in order. */
  readonly deps: readonly CacheMapDep<TOp, TResult>[];
  /** Things that loading a cached result may need (providers of lazy blobs, …); no part of any key. */
  readonly opts?: ReadonlyMap<unknown, unknown> | undefined;
}

/** One answer of {@link OpRunner.cacheMap}. */
export interface CacheMapAnswer<TOp, TResult> {
  readonly cacheMap: CacheMap<TOp, TResult>;
  /** `false`: another, slower key can be had with the next index. Only vertices without inputs may say so. */
  readonly done: boolean;
}

/**
 * The engine's side of one active vertex. The solver calls each method at most once at a time, and never
 * again after it has succeeded; a call that fails because its `ctx.signal` aborted may be repeated.
 */
export interface OpRunner<TOp, TResult> {
  cacheMap(index: number, ctx: OpContext<TOp, TResult>): Promise<CacheMapAnswer<TOp, TResult>>;
  /**
   * Runs the operation. `inputs` are lent until it settles. It hands over one result per output.
   */
  exec(inputs: readonly TResult[], ctx: OpContext<TOp, TResult>): Promise<readonly TResult[]>;
  /** Waits for a place to run; returns what gives it back. */
  acquire(ctx: OpContext<TOp, TResult>): Promise<() => void>;
}

/** The sessions of everybody who needs a piece of work; changes while clients come and go. */
export interface SessionGroup {
  /** Ids at this moment, first those of the vertex's own jobs, then those of the vertices that build it. */
  ids(): readonly string[];
}

/** What a vertex in a job's progress that is no vertex of the graph is called. */
export interface InternalVertex {
  readonly name: string;
  /** Its digest is the sha256 of this; the name when absent. */
  readonly id?: string | undefined;
  readonly progressGroup?: ProgressGroup | undefined;
}

/** What running work may use. */
export interface OpContext<TOp, TResult> {
  /** Aborts when no job needs the work any more. */
  readonly signal: AbortSignal;
  /** Digest under which progress is reported. */
  readonly vertexDigest: string;
  readonly sessions: SessionGroup;
  readonly progress: ProgressWriter;
  readonly resolverCache: ResolverCache;
  /** Runs `fn` when the jobs that hold this vertex are gone. */
  cleanup(fn: () => void | Promise<void>): void;
  /** What the jobs that need this vertex have stored under `key`. */
  jobValues(key: string): readonly unknown[];
  /** Nearest value that this vertex or, with `ancestors`, one it depends on gave in its cache map's `opts`. */
  cacheOption(key: unknown, ancestors?: boolean): unknown;
  /** Solves another edge on behalf of this vertex; the caller releases the result. */
  build(edge: Edge<TOp>, opts?: BuildOptions<TResult>): Promise<CachedResult<TResult>>;
  /** Runs `fn` as a vertex of its own in the progress of the same jobs. */
  inVertex<T>(vertex: InternalVertex, fn: (ctx: OpContext<TOp, TResult>) => Promise<T>): Promise<T>;
}

/** Options of one build. */
export interface BuildOptions<TResult> {
  /** Stops waiting; the work itself goes on only if another job needs it. */
  readonly signal?: AbortSignal | undefined;
  /** Imported caches that may answer for the vertices of this build. */
  readonly cacheSources?: readonly (CacheSource<TResult> | PendingCacheSource<TResult>)[] | undefined;
}

/** Remembers what a job has resolved, so that every vertex of it sees one answer. */
export interface ResolverCache {
  /** Waits for other holders of `key`; `values` are what they left, oldest first. */
  lock(key: string, signal?: AbortSignal): Promise<ResolverLock>;
}

/** A held key of a {@link ResolverCache}. */
export interface ResolverLock {
  readonly values: readonly unknown[];
  /** Lets the next holder in; a value that isn't `undefined` is remembered. */
  release(value?: unknown): void;
}

/** What went wrong where; given to {@link SolverOptions.describeFailure}. */
export interface Failure<TOp, TResult> {
  readonly vertex: Vertex<TOp>;
  /** Digest in the definition that the client sent (that of `vertex` may be one made for ignored caches). */
  readonly originalDigest: string;
  readonly phase: "cacheMap" | "exec" | "contentKey";
  /** Input number, for `contentKey`. */
  readonly input?: number | undefined;
  /** That input's result, lent for the call, for `contentKey`. */
  readonly result?: TResult | undefined;
  /** Runs `fn` when the jobs that hold the vertex are gone. */
  cleanup(fn: () => void | Promise<void>): void;
}
