import type { LayerPool } from "@kiln/archive";
import type { Clock } from "@kiln/base";
import type { Descriptor } from "@kiln/oci";
import type { ContentStore } from "./content.ts";
import type { Database } from "./database.ts";
import type { LeaseStore } from "./lease.ts";
import type { RecordSet } from "./record-set.ts";
import type { RefContext } from "./ref.ts";
import type { Snapshotter } from "./snapshotter.ts";
import type { SpaceReserve } from "./space-reserve.ts";
import type { TreePool } from "./tree-job.ts";
import type { DiskStat } from "./usage.ts";

/** Streams a blob from one of its `remotes`, which are tried in order. */
export type FetchBlob = (
  desc: Descriptor,
  remotes: readonly string[],
  ctx: RefContext,
) => Promise<AsyncIterable<Uint8Array>>;

/** What the parts of the ref manager share. */
export interface RefDeps {
  readonly db: Database;
  readonly content: ContentStore;
  readonly leases: LeaseStore;
  readonly snapshotter: Snapshotter;
  readonly records: RecordSet;
  readonly layers: LayerPool;
  readonly trees: TreePool;
  readonly fetchBlob: FetchBlob;
  readonly clock: Clock;
  readonly diskStat: DiskStat;
  readonly reserve?: SpaceReserve;
  /** Folder for mount points of our own. */
  readonly mountRoot: string;
  /** True for a record that something outside the cache uses too (an image store). */
  readonly isShared?: (id: string, layers: readonly string[]) => boolean;
  /** Takes note of what went wrong in the background. */
  readonly onWarning: (message: string, error: unknown) => void;
}
