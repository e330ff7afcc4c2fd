import { BuildError, type Clock, isBuildError } from "@kiln/base";
import { type Digest, sha256 } from "@kiln/oci";
import type { Database, Row } from "./database.ts";
import { type CacheRecord, parentIds, type RecordState } from "./record.ts";
import type { RefMetadata } from "./ref.ts";

const SCHEMA = [
  `CREATE TABLE refs (
     id TEXT PRIMARY KEY, state TEXT NOT NULL, last_used_at INTEGER, usage_count INTEGER NOT NULL) STRICT;
   CREATE TABLE ref_metadata (
     id TEXT NOT NULL REFERENCES refs (id) ON DELETE CASCADE, key TEXT NOT NULL, value ANY NOT NULL, idx TEXT,
     PRIMARY KEY (id, key)) STRICT, WITHOUT ROWID;
   CREATE INDEX ref_metadata_by_index ON ref_metadata (idx) WHERE idx IS NOT NULL;`,
];

/** Uses are written after this long, together. */
const TOUCH_DELAY_MS = 1000;

/** The records: in memory, in the database, and by what they name. */
export class RecordSet implements Disposable {
  readonly #db: Database;
  readonly #clock: Clock;
  readonly #records = new Map<string, CacheRecord>();
  readonly #byChain = new Map<string, Set<CacheRecord>>();
  readonly #bySnapshot = new Map<string, Set<CacheRecord>>();
  readonly #byBlob = new Map<string, Set<CacheRecord>>();
  readonly #indexed = new Map<string, readonly [Map<string, Set<CacheRecord>>, string][]>();
  readonly #touched = new Set<CacheRecord>();
  #touchTimer: NodeJS.Timeout | undefined;
  #closed = false;

  constructor(db: Database, clock: Clock) {
    this.#db = db;
    this.#clock = clock;
    db.migrate("refs", SCHEMA);
    for (const row of db.all("SELECT * FROM refs")) this.#insert(recordOf(row));
    for (const record of this.#records.values()) this.#linkParents(record);
  }

  #insert(record: CacheRecord): void {
    this.#records.set(record.id, record);
    this.#reindex(record);
  }

  #linkParents(record: CacheRecord): void {
    for (const id of parentIds(record.state)) this.#records.get(id)?.children.add(record);
    const mutable = record.state.equalMutable && this.#records.get(record.state.equalMutable);
    if (mutable) mutable.equalImmutable = record;
  }

  #reindex(record: CacheRecord): void {
    for (const [map, key] of this.#indexed.get(record.id) ?? []) {
      const set = map.get(key);
      set?.delete(record);
      if (set?.size === 0) map.delete(key);
    }
    const { chainId, blobChainId, snapshot, blob, variants } = record.state;
    const entries: [Map<string, Set<CacheRecord>>, string][] = [];
    if (chainId) entries.push([this.#byChain, chainId]);
    if (blobChainId) entries.push([this.#byChain, `blob:${blobChainId}`]);
    if (snapshot) entries.push([this.#bySnapshot, snapshot]);
    for (const desc of blob ? [blob, ...variants] : variants) entries.push([this.#byBlob, desc.digest]);
    for (const [map, key] of entries) map.set(key, (map.get(key) ?? new Set()).add(record));
    this.#indexed.set(record.id, entries);
  }

  find(id: string): CacheRecord | undefined {
    const record = this.#records.get(id);
    return record?.dead ? undefined : record;
  }

  /** @throws `not_found` */
  get(id: string): CacheRecord {
    const record = this.find(id);
    if (!record) throw new BuildError("not_found", `cache record ${id}: not found`);
    return record;
  }

  all(): readonly CacheRecord[] {
    return [...this.#records.values()].filter((record) => !record.dead);
  }

  /** Makes a record; it is in the database when this returns. */
  add(id: string, state: RecordState): CacheRecord {
    for (const parent of parentIds(state)) this.get(parent);
    const record: CacheRecord = {
      id,
      state,
      lastUsedAt: undefined,
      usageCount: 0,
      refs: 0,
      children: new Set(),
      equalImmutable: undefined,
      dead: false,
      mountings: 0,
    };
    this.#db.run("INSERT INTO refs VALUES (?, ?, NULL, 0)", id, JSON.stringify(state));
    this.#insert(record);
    this.#linkParents(record);
    return record;
  }

  /** Changes a record, in memory and in the database. */
  update(record: CacheRecord, change: Partial<RecordState>): void {
    const next = { ...record.state, ...change };
    this.#db.run("UPDATE refs SET state = ? WHERE id = ?", JSON.stringify(next), record.id);
    const before = record.state;
    Object.assign(record.state, change);
    if (before.equalMutable !== change.equalMutable) this.#linkParents(record);
    this.#reindex(record);
  }

  /** Forgets records, with their metadata. They must have no children left outside the list. */
  remove(records: readonly CacheRecord[]): void {
    this.#db.transaction(() => {
      for (const record of records) this.#db.run("DELETE FROM refs WHERE id = ?", record.id);
    });
    for (const record of records) {
      record.dead = true;
      this.#records.delete(record.id);
      this.#touched.delete(record);
      for (const id of parentIds(record.state)) this.#records.get(id)?.children.delete(record);
      const mutable = record.state.equalMutable && this.#records.get(record.state.equalMutable);
      if (mutable) mutable.equalImmutable = undefined;
      for (const [map, key] of this.#indexed.get(record.id) ?? []) map.get(key)?.delete(record);
      this.#indexed.delete(record.id);
    }
  }

  /** Keeps a record from being removed until disposed of. */
  hold(record: CacheRecord): Disposable {
    if (record.dead) throw new BuildError("not_found", `cache record ${record.id}: not found`);
    record.refs++;
    let held = true;
    return {
      [Symbol.dispose]: () => {
        if (held) record.refs--;
        held = false;
      },
    };
  }

  /** Counts a use; written a little later. */
  touch(record: CacheRecord): void {
    if (record.dead || this.#closed) return;
    record.lastUsedAt = this.#clock.now();
    record.usageCount++;
    this.#touched.add(record);
    this.#flushLater();
  }

  #flushLater(): void {
    this.#touchTimer ??= setTimeout(() => {
      try {
        this.flush();
      } catch (error) {
        // A full disk: when something was used matters less than going on. What waits is written later.
        if (!isBuildError(error)) throw error;
        if (!this.#closed) this.#flushLater();
      }
    }, TOUCH_DELAY_MS).unref();
  }

  /** Writes the uses that wait. */
  flush(): void {
    clearTimeout(this.#touchTimer);
    this.#touchTimer = undefined;
    if (this.#touched.size === 0) return;
    this.#db.transaction(() => {
      for (const record of this.#touched) {
        this.#db.run(
          "UPDATE refs SET last_used_at = ?, usage_count = ? WHERE id = ?",
          record.lastUsedAt ?? null,
          record.usageCount,
          record.id,
        );
      }
    });
    this.#touched.clear();
  }

  parents(record: CacheRecord): CacheRecord[] {
    return parentIds(record.state).map((id) => this.get(id));
  }

  withChainId(chainId: string): readonly CacheRecord[] {
    return [...(this.#byChain.get(chainId) ?? [])];
  }

  withBlobChainId(blobChainId: string): readonly CacheRecord[] {
    return [...(this.#byChain.get(`blob:${blobChainId}`) ?? [])];
  }

  withSnapshot(snapshot: string): readonly CacheRecord[] {
    return [...(this.#bySnapshot.get(snapshot) ?? [])];
  }

  withBlob(digest: string): readonly CacheRecord[] {
    return [...(this.#byBlob.get(digest) ?? [])];
  }

  /**
   * The layers that make up a tree, base first. A merge is the layers of its parents; a diff is one layer of
   * its own, unless it is exactly what one layer changes.
   */
  layers(record: CacheRecord): CacheRecord[] {
    const { kind, parents } = record.state;
    if (kind === "merge") return this.parents(record).flatMap((parent) => this.layers(parent));
    if (kind === "diff") {
      const [lower, upper] = parents.map((id) => (id === "" ? undefined : this.get(id)));
      const isOneLayer =
        upper?.state.kind === "layer" && (upper.state.parents[0] ?? "") === (lower?.id ?? "");
      return [isOneLayer ? upper : record];
    }
    const chain = [record];
    for (let at = record; ; ) {
      const parent = at.state.parents[0];
      if (parent === undefined) break;
      at = this.get(parent);
      if (at.state.kind !== "layer") return [...this.layers(at), ...chain.reverse()];
      chain.push(at);
    }
    return chain.reverse();
  }

  /** Works out the chain ids of a record, once all its layers have blobs. */
  nameChain(record: CacheRecord): void {
    if (record.state.chainId && record.state.blobChainId) return;
    let chainId: Digest | undefined;
    let blobChainId: Digest | undefined;
    for (const { state } of this.layers(record)) {
      if (!state.diffId || !state.blob) return;
      chainId = chain(chainId, state.diffId);
      blobChainId = chain(blobChainId, chain(state.blob.digest, state.diffId));
    }
    this.update(record, { chainId, blobChainId });
  }

  /** Ids of the records whose metadata has this index value, oldest record first. */
  search(index: string): string[] {
    const rows = this.#db.all("SELECT DISTINCT id FROM ref_metadata WHERE idx = ?", index);
    const found = rows.map((row) => this.find(String(row.id))).filter((record) => record !== undefined);
    return found.sort((a, b) => a.state.createdAt - b.state.createdAt).map((record) => record.id);
  }

  /** Metadata of a record. */
  metadata(id: string): RefMetadata {
    const db = this.#db;
    const value = (key: string): Row | undefined =>
      db.get("SELECT value FROM ref_metadata WHERE id = ? AND key = ?", id, key);
    const set = (key: string, data: string | Uint8Array, index: string | undefined): void => {
      this.get(id);
      db.run(
        `INSERT INTO ref_metadata VALUES (?, ?, ?, ?)
         ON CONFLICT (id, key) DO UPDATE SET value = excluded.value, idx = excluded.idx`,
        id,
        key,
        data,
        index ?? null,
      );
    };
    return {
      getString: (key) => {
        const found = value(key)?.value;
        return typeof found === "string" ? found : undefined;
      },
      getBytes: (key) => {
        const found = value(key)?.value;
        return found instanceof Uint8Array ? found : undefined;
      },
      setString: set,
      setBytes: (key, data) => set(key, data, undefined),
      delete: (key) => void db.run("DELETE FROM ref_metadata WHERE id = ? AND key = ?", id, key),
    };
  }

  [Symbol.dispose](): void {
    this.flush();
    this.#closed = true;
  }
}

function recordOf(row: Row): CacheRecord {
  return {
    id: String(row.id),
    state: JSON.parse(String(row.state)) as RecordState,
    lastUsedAt: row.last_used_at === null ? undefined : Number(row.last_used_at),
    usageCount: Number(row.usage_count),
    refs: 0,
    children: new Set(),
    equalImmutable: undefined,
    dead: false,
    mountings: 0,
  };
}

/** OCI's ChainID of a layer on top of a chain (image-spec, config.md). */
export function chain(parent: Digest | undefined, diffId: Digest): Digest {
  return parent === undefined ? diffId : sha256(`${parent} ${diffId}`);
}
