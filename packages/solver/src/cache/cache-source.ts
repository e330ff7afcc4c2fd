import type { OpContext } from "../types.ts";
import type { CacheKeyStore, CacheResultInfo } from "./key-store.ts";

/** A cache: keys, and the results they lead to. The solver has a main one; imported ones are added per build. */
export interface CacheSource<TResult> {
  /** Two sources of one id are the same. */
  readonly id: string;
  readonly keys: CacheKeyStore;
  readonly results: CacheResultStore<TResult>;
}

/**
 * A cache that is still being opened. Vertices that may be in it are looked up, and taken from other caches;
 * only what would have to run waits for it.
 */
export interface PendingCacheSource<TResult> {
  /** That of the cache. */
  readonly id: string;
  /** `undefined` when there is none after all. Never rejects. */
  readonly opened: Promise<CacheSource<TResult> | undefined>;
}

/** What loading from a cache may use. */
export type CacheLoadContext = Pick<
  OpContext<never, never>,
  "signal" | "sessions" | "progress" | "cacheOption" | "vertexDigest" | "cleanup"
>;

/** The results of a {@link CacheSource}. */
export interface CacheResultStore<TResult> {
  /** Whether `load` can be expected to succeed, without asking anything slow. */
  exists(resultId: string): boolean;
  /** A new handle, which the caller releases. A failure makes the solver try the next record, then run the op. */
  load(info: CacheResultInfo, ctx: CacheLoadContext): Promise<TResult>;
  /**
   * Like `load`, and whatever of the keys it was built from comes for free, by key id. The key asked for
   * must be among them.
   */
  loadWithParents?(
    keyId: string,
    info: CacheResultInfo,
    ctx: CacheLoadContext,
  ): Promise<ReadonlyMap<string, TResult>>;
  /** Makes a result stay and names it. Missing in sources that can't be written. The handle stays the caller's. */
  save?(result: TResult, createdAtNs: bigint): CacheResultInfo;
  /**
   * Transferable forms of a result that exist already, best first; never makes any.
   * `compression` is the exporter's own word for which forms will do, and asks for all of them.
   */
  remotes?(info: CacheResultInfo, compression: unknown): Promise<readonly Remote[]>;
}

/** Pointer to a blob. The shape of an OCI descriptor. */
export interface RemoteDescriptor {
  readonly mediaType: string;
  readonly digest: string;
  readonly size: number;
  readonly annotations?: Readonly<Record<string, string>> | undefined;
}

/** A result as layers, lowest first, that can be had elsewhere. */
export interface Remote {
  readonly descriptors: readonly RemoteDescriptor[];
  /** Where the blobs come from; the engine's own. */
  readonly provider: unknown;
}
