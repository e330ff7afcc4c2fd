import type { RecordType } from "./ref.ts";

/** One record as `buildctl du` shows it; BuildKit's `UsageRecord`. Times in milliseconds since the epoch. */
export interface UsageInfo {
  readonly id: string;
  readonly mutable: boolean;
  readonly inUse: boolean;
  readonly sizeBytes: number;
  readonly parents: readonly string[];
  readonly createdAt: number;
  readonly lastUsedAt: number | undefined;
  readonly usageCount: number;
  readonly description: string;
  readonly recordType: RecordType;
  readonly shared: boolean;
}

/** What `diskUsage` hides. */
export interface DiskUsageOptions {
  /** containerd filter syntax; a record is shown when any matches. */
  readonly filters?: readonly string[];
  /** Hides records that were used more recently than this. */
  readonly ageLimitMs?: number;
}

/** One rule of garbage collection; BuildKit's `PruneInfo` / `[[worker.oci.gcpolicy]]`. */
export interface PruneOptions {
  readonly filters?: readonly string[];
  /** Also records of type `internal` and `frontend`. */
  readonly all?: boolean;
  /** Spares records used within this time. */
  readonly keepDurationMs?: number;
  /** Sizes in bytes; 0 and absent mean no limit. */
  readonly reservedSpace?: number;
  readonly maxUsedSpace?: number;
  readonly minFreeSpace?: number;
}

/** Where total and free bytes of the state directory's disk come from. */
export type DiskStat = () => { readonly totalBytes: number; readonly freeBytes: number };
