/**
 * Where cache keys live: a graph of key ids, from the key of an input over a link to the key of an op's
 * output, and results hanging on keys.
 *
 * - The id of a key without inputs is `rootKey(digest, output)`; all other ids are made up when the key
 *   is first stored, and found again over links only.
 * - A key exists while it has a result, a link or is the target of a link.
 * - All methods are synchronous and quick: the solver calls them in its critical section. Slow backends
 *   copy what they need into memory first.
 *
 * `src/testing` has the suite that every implementation must pass.
 */
export interface CacheKeyStore {
  /** True when the key has results or outgoing links. */
  exists(id: string): boolean;
  /** Every key with results or outgoing links. */
  ids(): Iterable<string>;

  /** Results of a key, in no order. */
  results(id: string): readonly CacheResultInfo[];
  /** One result of a key. */
  result(id: string, resultId: string): CacheResultInfo | undefined;
  /** Adds or replaces the result with `info.id`. */
  addResult(id: string, info: CacheResultInfo): void;
  /**
   * Forgets a result under every key. A key left with neither results nor outgoing links is removed with
   * the links that lead to it, and so on upwards.
   */
  releaseResult(resultId: string): void;
  /** Keys that have a result. */
  idsByResult(resultId: string): readonly string[];

  /** Adds a link; adding it again changes nothing. */
  addLink(id: string, link: CacheLinkInfo, target: string): void;
  /** Removes a link if it is there; keys are not cleaned up. */
  removeLink(id: string, link: CacheLinkInfo, target: string): void;
  hasLink(id: string, link: CacheLinkInfo, target: string): boolean;
  /** Where a link leads to. */
  links(id: string, link: CacheLinkInfo): readonly string[];
  /** All links that lead to a key. */
  backlinks(id: string): readonly CacheBacklink[];
  /**
   * Digest under which exported caches list what a link of this store leads to; `rootKey` of the link's
   * digest and output when absent.
   */
  recordDigest?(link: CacheLinkInfo): string;
  /** Runs `fn` so that what it writes becomes durable together; runs it as it is when absent. */
  batch?<T>(fn: () => T): T;
}

/** A stored result. */
export interface CacheResultInfo {
  readonly id: string;
  /** Nanoseconds since the epoch. */
  readonly createdAtNs: bigint;
}

/** What a link says: "as input `input` of the op `digest`, through `selector`, gives output `output`". */
export interface CacheLinkInfo {
  readonly input: number;
  readonly output: number;
  readonly digest: string;
  /** `""` for none. */
  readonly selector: string;
}

/** A link seen from its target. */
export interface CacheBacklink {
  readonly id: string;
  readonly link: CacheLinkInfo;
}

/** One string per link, for implementations that need map keys. */
export function linkKey(link: CacheLinkInfo): string {
  return `${link.input} ${link.output} ${link.digest} ${link.selector}`;
}
