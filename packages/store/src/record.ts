import type { Descriptor, Digest } from "@kiln/oci";
import type { CachePolicy, RecordType } from "./ref.ts";

/** How a tree came to be: changes on a parent, several trees laid over each other, or the difference of two. */
export type RecordKind = "layer" | "merge" | "diff";

/** What the database remembers of a record. Times in milliseconds since the epoch. */
export interface RecordState {
  kind: RecordKind;
  mutable: boolean;
  /** A layer: none or one. A diff: lower and upper, `""` for an empty tree. */
  parents: readonly string[];
  description: string;
  recordType: RecordType;
  cachePolicy: CachePolicy;
  createdAt: number;
  /** Name of the committed snapshot with the tree, key of the active one for a mutable record. */
  snapshot?: string | undefined;
  /** The mutable record whose snapshot this immutable one still is. */
  equalMutable?: string | undefined;
  blob?: Descriptor | undefined;
  /** The same layer in other compressions. */
  variants: readonly Descriptor[];
  diffId?: Digest | undefined;
  chainId?: Digest | undefined;
  blobChainId?: Digest | undefined;
  remotes: readonly string[];
  imageRefs: readonly string[];
  /** Bytes; absent when it has to be worked out. */
  size?: number | undefined;
}

/** A record in memory. */
export interface CacheRecord {
  readonly id: string;
  readonly state: RecordState;
  lastUsedAt: number | undefined;
  usageCount: number;
  /** Handles and running work. A record with any can't be removed. */
  refs: number;
  /** Records that were made from this one. */
  readonly children: Set<CacheRecord>;
  /** The immutable record that equals this mutable one. */
  equalImmutable: CacheRecord | undefined;
  /** Removed, or about to be. */
  dead: boolean;
  /** Counts mountings of a mutable record. */
  mountings: number;
}

/** Ids of the records that a record is made from. */
export function parentIds(state: RecordState): string[] {
  return state.parents.filter((id) => id !== "");
}
