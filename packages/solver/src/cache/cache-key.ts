import { rootKey } from "../digest.ts";
import type { CacheSource } from "./cache-source.ts";

/** A key as input of another, through a selector. */
export interface CacheKeyLink<TResult> {
  readonly key: CacheKey<TResult>;
  /** `""` for none. */
  readonly selector: string;
}

/** A stored result that can stand in for an edge. */
export interface CacheRecord<TResult> {
  readonly id: string;
  readonly createdAtNs: bigint;
  readonly source: CacheSource<TResult>;
  readonly key: CacheKey<TResult>;
}

/** What a {@link CacheKey} is made of. */
export interface CacheKeyInit<TResult> {
  readonly digest: string;
  readonly output: number;
  /** Digest of the vertex it was made for; `""` for content keys. */
  readonly vertex?: string;
  /** Per input the names that its result is known under. */
  readonly deps?: readonly (readonly CacheKeyLink<TResult>[])[];
  /** `false` keeps results of it out of exported caches. */
  readonly exportCache?: boolean | undefined;
  readonly origin?: CacheKeyOrigin | undefined;
}

/** Who made a key: knows what loading its results may need. */
export interface CacheKeyOrigin {
  cacheOption(key: unknown, ancestors: boolean): unknown;
}

/**
 * A name of an edge's result: the op's digest, the output, and per input the keys of what went in. It is
 * also the handle from which a cache export starts.
 *
 * One edge can have several: one per cache map of a source, one per stored id that its inputs lead to.
 */
export class CacheKey<TResult> {
  readonly digest: string;
  readonly output: number;
  readonly vertex: string;
  readonly deps: readonly (readonly CacheKeyLink<TResult>[])[];
  readonly exportCache: boolean | undefined;
  readonly origin: CacheKeyOrigin | undefined;
  /** Its id in each source in which it has been found or stored. */
  readonly ids = new Map<CacheSource<TResult>, string>();
  /** Results known for it, best first. */
  records: readonly CacheRecord<TResult>[] = [];
  /** Other ways to the same result, learnt when edges merged: live, per input. */
  alternates: readonly AlternateInput<TResult>[] = [];
  /** Keys that are exported wherever this one is: of nested builds, of the source's other cache maps. */
  companions: readonly CacheKey<TResult>[] = [];
  #rootId: string | undefined;

  constructor(init: CacheKeyInit<TResult>) {
    this.digest = init.digest;
    this.output = init.output;
    this.vertex = init.vertex ?? "";
    this.deps = init.deps ?? [];
    this.exportCache = init.exportCache;
    this.origin = init.origin;
  }

  /** Id of a key without inputs; digest of the record in exported caches. */
  get rootId(): string {
    this.#rootId ??= rootKey(this.digest, this.output);
    return this.#rootId;
  }
}

/** A key that also names input `input`. */
export interface AlternateInput<TResult> {
  readonly input: number;
  readonly link: CacheKeyLink<TResult>;
}

/** Output number of the keys that stand for an input's content. */
export const CONTENT_OUTPUT = -1;

/** The key of some content, whoever made it. */
export function contentKey<TResult>(digest: string): CacheKey<TResult> {
  return new CacheKey({ digest, output: CONTENT_OUTPUT });
}

/** True for what {@link contentKey} makes. */
export function isContentKey<TResult>(key: CacheKey<TResult>): boolean {
  return key.output === CONTENT_OUTPUT;
}
