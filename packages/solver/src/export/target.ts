import type { Remote } from "../cache/cache-source.ts";

/** An input of a record that is being exported. */
export interface CacheExportLink<TRecord> {
  readonly record: TRecord;
  /** `""` for none. */
  readonly selector: string;
}

/** A result of a record that is being exported. */
export interface CacheExportResult {
  readonly remote: Remote;
  /** Nanoseconds since the epoch. */
  readonly createdAtNs: bigint;
  /** The edge it was found for: digest of the vertex, `""` if unknown, and output. */
  readonly vertex: string;
  readonly index: number;
}

/** What takes the records of a cache export. */
export interface CacheExportTarget<TRecord> {
  /**
   * Adds a record. Each input has at least one link, to records that this target has made.
   *
   * @returns undefined for records that it doesn't take, such as those of `random:` digests.
   */
  add(
    digest: string,
    inputs: readonly (readonly CacheExportLink<TRecord>[])[],
    results: readonly CacheExportResult[],
  ): TRecord | undefined;
}
