import { isBuildError } from "@kiln/base";
import type { BlobFetcher } from "./blob-fetcher.ts";
import { type FieldReader, parseFilters } from "./filter.ts";
import { type CacheRecord, parentIds } from "./record.ts";
import type { RefDeps } from "./ref-deps.ts";
import type { DiskUsageOptions, PruneOptions, UsageInfo } from "./usage.ts";

/** Without a size limit, records go in batches of this many. */
const BATCH = 10;
/** With one, at most this part of the candidates goes before they are looked at anew. */
const SORTED_SHARE = 64;
/** A database with more free pages than this gives some back after a pruning. */
const MAX_FREE_DB_BYTES = 8 << 20;
/** Blobs that nothing names are kept this long: their writer may not have named them yet. */
const CONTENT_GRACE_MS = 60 * 60 * 1000;

/** Says what the cache holds and removes what it need not. */
export class Pruner {
  readonly #deps: RefDeps;
  readonly #blobs: BlobFetcher;
  readonly #listeners = new Set<(id: string) => void>();
  /** Prunings run one after the other. */
  #running: Promise<void> = Promise.resolve();
  #waiting: { readonly rules: readonly PruneOptions[]; readonly done: Promise<void> } | undefined;

  constructor(deps: RefDeps, blobs: BlobFetcher) {
    this.#deps = deps;
    this.#blobs = blobs;
  }

  onRemoved(listener: (id: string) => void): Disposable {
    this.#listeners.add(listener);
    return { [Symbol.dispose]: () => void this.#listeners.delete(listener) };
  }

  /** See `RefManager.diskUsage`. */
  async diskUsage(opts: DiskUsageOptions): Promise<UsageInfo[]> {
    const filter = parseFilters(opts.filters ?? []);
    const { records, clock } = this.#deps;
    const shown = records.all().filter((record) => !this.#isTwin(record));
    const used = inUse(shown);
    const shared = this.#shared(shown);
    const recent = clock.now() - (opts.ageLimitMs ?? 0);
    const found: UsageInfo[] = [];
    for (const record of shown) {
      // It may have been removed while sizes of others were found out.
      if (record.dead) continue;
      const info = usageOf(record, { inUse: used.has(record), shared: shared.has(record), sizeBytes: 0 });
      if (!filter(reader(info))) continue;
      if ((opts.ageLimitMs ?? 0) > 0 && (record.lastUsedAt ?? 0) > recent) continue;
      const sizeBytes = record.state.mutable && record.refs > 0 ? 0 : await this.sizeOf(record);
      found.push({ ...info, sizeBytes });
    }
    return found;
  }

  /** The one of two records with the same data that isn't shown. */
  #isTwin(record: CacheRecord): boolean {
    const equal = record.equalImmutable;
    if (equal && equal.refs > 0) return true;
    return record.state.equalMutable !== undefined && record.refs === 0;
  }

  #shared(records: readonly CacheRecord[]): Set<CacheRecord> {
    const shared = new Set<CacheRecord>();
    if (!this.#deps.isShared) return shared;
    const mark = (record: CacheRecord): void => {
      if (shared.has(record)) return;
      shared.add(record);
      for (const parent of this.#deps.records.parents(record)) mark(parent);
    };
    for (const record of records) if (this.#isShared(record)) mark(record);
    return shared;
  }

  #isShared(record: CacheRecord): boolean {
    const digests = this.#deps.records.layers(record).map((layer) => layer.state.blob?.digest ?? "");
    return this.#deps.isShared?.(record.id, digests) ?? false;
  }

  /** Bytes of a record's snapshot and blobs; remembered until they change. */
  async sizeOf(record: CacheRecord): Promise<number> {
    const { records, snapshotter, content } = this.#deps;
    if (record.state.size !== undefined) return record.state.size;
    const idle = record.refs === 0 || !record.state.mutable;
    const { mountings } = record;
    using _hold = records.hold(record);
    const { snapshot, blob, variants } = record.state;
    let size = 0;
    if (snapshot !== undefined && snapshotter.exists(snapshot))
      size += (await snapshotter.usage(snapshot)).sizeBytes;
    for (const desc of blob ? [blob, ...variants] : variants) {
      if (content.has(desc.digest)) size += content.info(desc.digest).sizeBytes;
    }
    const unchanged = idle && record.mountings === mountings && record.state.snapshot === snapshot;
    if (!record.dead && unchanged) this.#rememberSize(record, size);
    return size;
  }

  /** A size that can't be noted (a full disk) is found out again the next time. */
  #rememberSize(record: CacheRecord, size: number): void {
    try {
      this.#deps.records.update(record, { size });
    } catch (error) {
      if (!isBuildError(error, "resource_exhausted")) throw error;
    }
  }

  /** See `RefManager.prune`. */
  async prune(
    rules: readonly PruneOptions[],
    onRecord: ((record: UsageInfo) => void) | undefined,
    signal: AbortSignal | undefined,
    overheadBytes = 0,
  ): Promise<void> {
    const before = this.#running;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#running = promise;
    await before;
    const { reserve } = this.#deps;
    try {
      for (const rule of rules) await this.#pruneRule(rule, { onRecord, signal, overheadBytes });
      await this.collectContent();
      this.#shrinkDatabase();
    } finally {
      resolve();
      reserve?.restore();
    }
  }

  /** See `RefManager.enforce`. */
  async enforce(rules: readonly PruneOptions[]): Promise<void> {
    const waiting = this.#waiting;
    if (waiting && waiting.rules === rules) return await waiting.done;
    const done = this.#running.then(async () => {
      this.#waiting = undefined;
      // The cap is for all that the cache takes on the disk; the database is a part of it.
      await this.prune(rules, undefined, undefined, this.#deps.db.size().totalBytes);
    });
    this.#waiting = { rules, done };
    await done;
  }

  #shrinkDatabase(): void {
    const { db, onWarning } = this.#deps;
    if (db.size().freeBytes < MAX_FREE_DB_BYTES) return;
    try {
      db.compact();
    } catch (error) {
      onWarning("failed to shrink the database", error);
    }
  }

  async #pruneRule(
    rule: PruneOptions,
    run: {
      readonly onRecord: ((record: UsageInfo) => void) | undefined;
      readonly signal: AbortSignal | undefined;
      readonly overheadBytes: number;
    },
  ): Promise<void> {
    const { onRecord, signal } = run;
    const limits = [rule.maxUsedSpace, rule.reservedSpace, rule.minFreeSpace].some(
      (bytes) => (bytes ?? 0) > 0,
    );
    const usage = limits ? await this.diskUsage({}) : [];
    let total = usage.reduce((sum, info) => sum + (info.shared ? 0 : info.sizeBytes), run.overheadBytes);
    const keep = keepBytes(rule, total, () => this.#deps.diskStat().freeBytes);
    for (;;) {
      signal?.throwIfAborted();
      if (keep !== 0 && total < keep) return;
      const candidates = this.#candidates(rule);
      // One at a time, as its removal may free an older one; of very many a few, or each would cost a sort of all.
      const atATime = Math.max(1, Math.floor(candidates.length / SORTED_SHARE));
      const batch = keep === 0 ? candidates.slice(0, BATCH) : sortForDeletion(candidates).slice(0, atATime);
      let removed = 0;
      for (const record of batch) {
        if (keep !== 0 && total < keep) return;
        const info = await this.#removeOne(record);
        if (!info) continue;
        removed++;
        total -= info.sizeBytes;
        onRecord?.(info);
      }
      if (removed === 0) return;
    }
  }

  #candidates(rule: PruneOptions): CacheRecord[] {
    const filter = parseFilters(rule.filters ?? []);
    const checkShared = this.#deps.isShared !== undefined && (!rule.all || (rule.filters ?? []).length > 0);
    const cutOff = this.#deps.clock.now() - (rule.keepDurationMs ?? 0);
    return this.#deps.records.all().filter((record) => {
      if (this.#isTwin(record) || !isFree(record)) return false;
      const shared = checkShared && this.#isShared(record);
      const { recordType } = record.state;
      if (!rule.all && (recordType === "internal" || recordType === "frontend" || shared)) return false;
      if ((rule.keepDurationMs ?? 0) > 0 && (record.lastUsedAt ?? 0) > cutOff) return false;
      return filter(reader({ ...usageOf(record, { inUse: false, shared, sizeBytes: 0 }), parents: [] }));
    });
  }

  /** Removes a record, unless somebody has taken it meanwhile. */
  async #removeOne(record: CacheRecord): Promise<UsageInfo | undefined> {
    if (record.dead || !isFree(record)) return undefined;
    const sizeBytes = await this.sizeOf(record);
    if (record.dead || !isFree(record)) return undefined;
    const info = usageOf(record, { inUse: false, shared: false, sizeBytes });
    await this.remove(record);
    return info;
  }

  /**
   * Removes a free record with what only it uses: first the rows, then the files, so that a crash leaves
   * nothing that names what is gone.
   */
  async remove(record: CacheRecord): Promise<void> {
    const { records } = this.#deps;
    const twin = record.equalImmutable;
    const gone = twin ? [twin, record] : [record];
    records.remove(gone);
    for (const { id } of gone) this.#tell(id);
    for (const { state } of gone) await this.release(state);
  }

  /** What others note of it only saves work: when that fails (a full disk), the space is freed all the same. */
  #tell(id: string): void {
    for (const listener of this.#listeners) {
      try {
        listener(id);
      } catch (error) {
        this.#deps.onWarning(`failed to forget cache record ${id}`, error);
      }
    }
  }

  /** Removes the snapshot and the blobs of a record that is gone, unless something else uses them. */
  async release(state: CacheRecord["state"]): Promise<void> {
    const { snapshot, blob, variants } = state;
    if (snapshot !== undefined) await this.#releaseSnapshot(snapshot);
    for (const desc of blob ? [blob, ...variants] : variants) await this.releaseBlob(desc.digest);
  }

  async #releaseSnapshot(name: string): Promise<void> {
    const { records, snapshotter, leases } = this.#deps;
    if (records.withSnapshot(name).length > 0 || leases.holds({ kind: "snapshot", id: name })) return;
    if (!snapshotter.exists(name)) return;
    try {
      await snapshotter.remove(name);
    } catch (error) {
      // Somebody is building on it right now; `collectSnapshots` comes back for it.
      if (!isBuildError(error, "failed_precondition")) throw error;
    }
  }

  /** Removes a blob that no record and no lease names. */
  async releaseBlob(digest: string): Promise<void> {
    const { records, content, leases } = this.#deps;
    if (records.withBlob(digest).length > 0 || leases.holds({ kind: "content", id: digest })) return;
    this.#blobs.forget(digest);
    await content.delete(digest);
  }

  /** Removes blobs that nobody has named for an hour. */
  async collectContent(graceMs = CONTENT_GRACE_MS): Promise<void> {
    const oldest = this.#deps.clock.now() - graceMs;
    for (const { digest, createdAt } of this.#deps.content.walk()) {
      if (createdAt <= oldest) await this.releaseBlob(digest);
    }
  }

  /** Removes snapshots that neither a record nor a lease names; only when nothing is being made. */
  async collectSnapshots(): Promise<void> {
    const { records, snapshotter, leases } = this.#deps;
    for (let removed = -1; removed !== 0; ) {
      removed = 0;
      const parents = new Set([...snapshotter.walk()].map((info) => info.parent));
      for (const { name } of [...snapshotter.walk()]) {
        if (parents.has(name) || records.withSnapshot(name).length > 0) continue;
        if (leases.holds({ kind: "snapshot", id: name })) continue;
        await snapshotter.remove(name);
        removed++;
      }
    }
  }
}

/** Nobody holds it, its equal or anything made from it. */
function isFree(record: CacheRecord): boolean {
  const equal = record.equalImmutable;
  return (
    record.refs === 0 &&
    record.children.size === 0 &&
    (!equal || (equal.refs === 0 && equal.children.size === 0))
  );
}

/** Records with a handle, and those below them. */
function inUse(records: readonly CacheRecord[]): Set<CacheRecord> {
  const byId = new Map(records.map((record) => [record.id, record]));
  const used = new Set<CacheRecord>();
  const mark = (record: CacheRecord): void => {
    if (used.has(record)) return;
    used.add(record);
    for (const id of parentIds(record.state)) {
      const parent = byId.get(id);
      if (parent) mark(parent);
    }
  };
  for (const record of records) if (record.refs > 0) mark(record);
  return used;
}

/** How many bytes a rule keeps; 0 for no limit. */
export function keepBytes(rule: PruneOptions, totalBytes: number, freeBytes: () => number): number {
  const { maxUsedSpace = 0, reservedSpace = 0, minFreeSpace = 0 } = rule;
  if (maxUsedSpace === 0 && reservedSpace === 0 && minFreeSpace === 0) return 0;
  let keep = maxUsedSpace;
  const excess = minFreeSpace === 0 ? 0 : minFreeSpace - freeBytes();
  if (excess > 0) keep = keep === 0 ? totalBytes - excess : Math.min(keep, totalBytes - excess);
  else if (minFreeSpace !== 0 && keep === 0) keep = totalBytes;
  return Math.max(keep, reservedSpace);
}

/**
 * Least valuable first: the sum of the places in the orders of last use and of number of uses, each divided
 * by the number of places.
 */
export function sortForDeletion<
  T extends { readonly lastUsedAt: number | undefined; readonly usageCount: number },
>(records: readonly T[]): T[] {
  const byUse = [...records].sort((a, b) => (a.lastUsedAt ?? -1) - (b.lastUsedAt ?? -1));
  const useRank = ranks(byUse, (record) => record.lastUsedAt ?? -1, -1);
  const byCount = [...records].sort((a, b) => a.usageCount - b.usageCount);
  const countRank = ranks(byCount, (record) => record.usageCount, 0);
  const score = (record: T): number =>
    (useRank.of.get(record) ?? 0) / useRank.max + (countRank.of.get(record) ?? 0) / countRank.max;
  return [...records].sort((a, b) => score(a) - score(b));
}

function ranks<T>(
  sorted: readonly T[],
  value: (item: T) => number,
  first: number,
): { readonly of: Map<T, number>; readonly max: number } {
  const of = new Map<T, number>();
  let max = 1;
  let last = first;
  for (const item of sorted) {
    if (value(item) !== last) {
      last = value(item);
      max++;
    }
    of.set(item, max);
  }
  return { of, max };
}

function usageOf(
  record: CacheRecord,
  is: { readonly inUse: boolean; readonly shared: boolean; readonly sizeBytes: number },
): UsageInfo {
  const { state } = record;
  return {
    id: record.id,
    mutable: state.mutable,
    inUse: is.inUse,
    sizeBytes: is.sizeBytes,
    parents: parentIds(state),
    createdAt: state.createdAt,
    lastUsedAt: record.lastUsedAt,
    usageCount: record.usageCount,
    description: state.description,
    recordType: state.recordType,
    shared: is.shared,
  };
}

/** Fields of a record for filters. */
function reader(info: UsageInfo): FieldReader {
  const text = (value: string): string | undefined => (value === "" ? undefined : value);
  const flag = (value: boolean): string | undefined => (value ? "" : undefined);
  return ([field]) => {
    switch (field) {
      case "id":
        return text(info.id);
      case "parents":
        return text(info.parents.join(";"));
      case "description":
        return text(info.description);
      case "inuse":
        return flag(info.inUse);
      case "mutable":
        return flag(info.mutable);
      case "immutable":
        return flag(!info.mutable);
      case "type":
        return text(info.recordType);
      case "shared":
        return flag(info.shared);
      case "private":
        return flag(!info.shared);
      default:
        return undefined;
    }
  };
}
