import type { Pruner } from "./pruner.ts";
import { type CacheRecord, parentIds, type RecordState } from "./record.ts";
import type { RefDeps } from "./ref-deps.ts";

/**
 * Makes the records agree with what is on disk, after a crash or not:
 *
 * 1. Snapshots without files, and files without snapshots, go (`Snapshotter.cleanup`).
 * 2. Mutable records that nobody asked to retain go.
 * 3. A record whose snapshot is gone becomes lazy when its blob, or a place to get it from, is known, and
 *    when it is a merge or a diff; otherwise it goes. A blob that is gone is forgotten when there is a snapshot.
 * 4. Records made from one that went go too.
 * 5. Snapshots that no record names go, and blobs after their time of grace.
 */
export async function recover(deps: RefDeps, pruner: Pruner): Promise<void> {
  await deps.snapshotter.cleanup();
  const lost = new Set(deps.records.all().filter((record) => !repair(deps, record)));
  for (let before = -1; before !== lost.size; ) {
    before = lost.size;
    for (const record of deps.records.all()) {
      const parents = parentIds(record.state).map((id) => deps.records.find(id));
      const equal = record.state.equalMutable;
      const mutable = equal === undefined ? undefined : deps.records.find(equal);
      const orphan = parents.some((parent) => !parent || lost.has(parent));
      const widow = equal !== undefined && (!mutable || lost.has(mutable));
      if (orphan || widow) lost.add(record);
    }
  }
  deps.records.remove([...lost]);
  await pruner.collectSnapshots();
  await pruner.collectContent();
}

/** False for a record that can't be used any more. */
function repair(deps: RefDeps, record: CacheRecord): boolean {
  const { content, records, snapshotter } = deps;
  const { state } = record;
  const change: Partial<RecordState> = {};
  const hasSnapshot = state.snapshot !== undefined && snapshotter.exists(state.snapshot);
  if (state.mutable) return hasSnapshot && state.cachePolicy === "retain";
  const variants = state.variants.filter((desc) => content.has(desc.digest));
  if (variants.length !== state.variants.length) change.variants = variants;
  const canHaveBlob =
    state.blob !== undefined && (content.has(state.blob.digest) || state.remotes.length > 0);
  if (state.snapshot !== undefined && !hasSnapshot) change.snapshot = undefined;
  const hasTree = hasSnapshot || state.equalMutable !== undefined || state.kind !== "layer";
  if (!hasTree && !canHaveBlob) return false;
  if (state.blob !== undefined && !canHaveBlob) {
    change.blob = undefined;
    change.blobChainId = undefined;
  }
  if (Object.keys(change).length > 0) records.update(record, { ...change, size: undefined });
  return true;
}
