import { BuildError } from "@kiln/base";
import { newId } from "@kiln/formats";
import type { Descriptor } from "@kiln/oci";
import { readonlyMounts, syncFileSystem } from "@kiln/sys";
import { BlobFetcher } from "./blob-fetcher.ts";
import { Pruner } from "./pruner.ts";
import type { CacheRecord, RecordState } from "./record.ts";
import { chain } from "./record-set.ts";
import type {
  BlobProvider,
  BlobRefOptions,
  ImmutableRef,
  LayerObserver,
  Mountable,
  MutableRef,
  RefContext,
  RefMetadata,
  RefOptions,
} from "./ref.ts";
import type { RefDeps } from "./ref-deps.ts";
import { ImmutableHandle, MutableHandle, type RefOwner } from "./ref-handle.ts";
import type { RefManager } from "./ref-manager.ts";
import { RemoteMaker } from "./remote-maker.ts";
import { SharedMounts } from "./shared-mounts.ts";
import { TreeExtractor } from "./tree-extractor.ts";
import type { DiskUsageOptions, PruneOptions, UsageInfo } from "./usage.ts";

/**
 * Snapshots are synced to disk this long after a commit, several at a time: what a power failure may cost,
 * against disturbing the builds that run.
 */
const SYNC_DELAY_MS = 30_000;
const LOCKED = "locked";

/** True for the error of `getMutable` on a record that somebody holds. */
export function isLocked(error: unknown): boolean {
  return (
    error instanceof BuildError && error.code === "failed_precondition" && error.message.endsWith(LOCKED)
  );
}

/** The {@link RefManager} of one worker. Make it with `openStore`. */
export class CacheManager implements RefManager, RefOwner {
  readonly deps: RefDeps;
  readonly blobs: BlobFetcher;
  readonly trees: TreeExtractor;
  readonly remotes: RemoteMaker;
  readonly pruner: Pruner;
  readonly #mounts: SharedMounts;
  #syncTimer: NodeJS.Timeout | undefined;
  #syncing: Promise<void> = Promise.resolve();

  constructor(deps: RefDeps) {
    this.deps = deps;
    this.blobs = new BlobFetcher(deps);
    this.trees = new TreeExtractor(deps, this.blobs, () => this.#scheduleSync());
    this.remotes = new RemoteMaker(deps, this.blobs, this.trees);
    this.pruner = new Pruner(deps, this.blobs);
    this.#mounts = new SharedMounts(deps.mountRoot);
  }

  #state(kind: RecordState["kind"], parents: readonly string[], opts: RefOptions): RecordState {
    return {
      kind,
      mutable: false,
      parents,
      description: opts.description ?? "",
      recordType: opts.recordType ?? "regular",
      cachePolicy: opts.cachePolicy ?? "default",
      createdAt: opts.createdAt ?? this.deps.clock.now(),
      variants: [],
      remotes: [],
      imageRefs: opts.imageRefs ?? [],
    };
  }

  get(id: string, opts: { readonly noUpdate?: boolean } = {}): ImmutableRef {
    const record = this.deps.records.get(id);
    if (record.state.mutable) {
      throw new BuildError("failed_precondition", `cache record ${id} is mutable: ${LOCKED}`);
    }
    return new ImmutableHandle(this, record, opts.noUpdate === true);
  }

  async newMutable(
    parent: ImmutableRef | undefined,
    opts: RefOptions & { readonly ctx?: RefContext },
  ): Promise<MutableRef> {
    const { records, snapshotter } = this.deps;
    const below = parent && records.get(parent.id);
    const id = newId();
    using _hold = below && records.hold(below);
    if (below) {
      await this.finalize(below);
      await this.trees.extract(below, opts.ctx ?? { signal: new AbortController().signal });
    }
    await snapshotter.prepare(id, below?.state.snapshot);
    const state = this.#state("layer", below ? [below.id] : [], opts);
    try {
      const record = records.add(id, { ...state, mutable: true, snapshot: id });
      return new MutableHandle(this, record);
    } catch (error) {
      await snapshotter.remove(id);
      throw error;
    }
  }

  async getMutable(id: string): Promise<MutableRef> {
    const { records } = this.deps;
    const record = records.get(id);
    if (!record.state.mutable) {
      throw new BuildError("not_found", `cache record ${id} is not mutable`);
    }
    const equal = record.equalImmutable;
    if (record.refs > 0 || (equal && (equal.refs > 0 || equal.children.size > 0))) {
      throw new BuildError("failed_precondition", `cache record ${id}: ${LOCKED}`);
    }
    const handle = new MutableHandle(this, record);
    try {
      if (equal) await this.pruner.remove(equal);
    } catch (error) {
      await handle.release();
      throw error;
    }
    return handle;
  }

  async getByBlob(
    desc: Descriptor,
    parent: ImmutableRef | undefined,
    opts: BlobRefOptions,
  ): Promise<ImmutableRef> {
    const { records } = this.deps;
    const below = parent && records.get(parent.id);
    using _hold = below && records.hold(below);
    if (below) await this.finalize(below);
    if (below && (!below.state.chainId || !below.state.blobChainId)) {
      throw new BuildError("failed_precondition", "failed to get ref by blob on non-addressable parent");
    }
    const { diffId } = opts;
    const chainId = chain(below?.state.chainId, diffId);
    const blobChainId = chain(below?.state.blobChainId, chain(desc.digest, diffId));
    if (opts.provider) this.blobs.addProvider(desc.digest, opts.provider);
    const known = records.withBlobChainId(blobChainId).find((record) => record.state.chainId === chainId);
    if (known) {
      this.#learn(known, opts);
      return new ImmutableHandle(this, known, false);
    }
    const twin = records.withChainId(chainId).find((record) => record.state.snapshot !== undefined);
    if (!twin && !this.blobs.canHave(desc.digest, opts.remotes ?? [])) {
      throw new BuildError("not_found", `missing remote provider for blob ${desc.digest}`);
    }
    const blob: Descriptor = {
      mediaType: desc.mediaType,
      digest: desc.digest,
      size: desc.size,
      ...(desc.urls ? { urls: desc.urls } : {}),
      ...(desc.annotations ? { annotations: desc.annotations } : {}),
    };
    const record = records.add(newId(), {
      ...this.#state("layer", below ? [below.id] : [], opts),
      blob,
      diffId,
      chainId,
      blobChainId,
      remotes: [...(opts.remotes ?? [])],
      ...(twin ? { snapshot: twin.state.snapshot } : {}),
    });
    return new ImmutableHandle(this, record, false);
  }

  /** A known layer may have been seen in another image, and be had from there. */
  #learn(record: CacheRecord, opts: BlobRefOptions): void {
    const remotes = [...new Set([...record.state.remotes, ...(opts.remotes ?? [])])];
    const imageRefs = [...new Set([...record.state.imageRefs, ...(opts.imageRefs ?? [])])];
    if (remotes.length === record.state.remotes.length && imageRefs.length === record.state.imageRefs.length)
      return;
    this.deps.records.update(record, { remotes, imageRefs });
  }

  async merge(parents: readonly ImmutableRef[], opts: RefOptions): Promise<ImmutableRef> {
    const { records } = this.deps;
    const flat: string[] = [];
    for (const parent of parents) {
      const record = records.get(parent.id);
      await this.finalize(record);
      flat.push(...(record.state.kind === "merge" ? record.state.parents : [record.id]));
    }
    if (flat.length === 1) return this.get(flat[0] as string);
    return new ImmutableHandle(this, this.#addNamed("merge", flat, opts), false);
  }

  #addNamed(kind: "merge" | "diff", parents: readonly string[], opts: RefOptions): CacheRecord {
    const record = this.deps.records.add(newId(), this.#state(kind, parents, opts));
    this.deps.records.nameChain(record);
    return record;
  }

  async diff(
    lower: ImmutableRef | undefined,
    upper: ImmutableRef | undefined,
    opts: RefOptions,
  ): Promise<ImmutableRef> {
    const { records } = this.deps;
    if (!lower && !upper) throw new BuildError("invalid_argument", "diff of nothing");
    const [below, above] = [lower, upper].map((ref) => ref && records.get(ref.id));
    for (const record of [below, above]) if (record) await this.finalize(record);
    const between = above && layersBetween(records.layers(above), below ? records.layers(below) : []);
    if (between && between.length > 1) {
      const parents = between.map((layer) => this.#layerDiff(layer));
      return new ImmutableHandle(this, this.#addNamed("merge", parents, opts), false);
    }
    const record = this.#addNamed("diff", [below?.id ?? "", above?.id ?? ""], opts);
    return new ImmutableHandle(this, record, false);
  }

  /** What one layer changes, as a record of its own; the layer itself when nothing is below it. */
  #layerDiff(layer: CacheRecord): string {
    const lower = layer.state.kind === "layer" ? layer.state.parents[0] : undefined;
    if (lower === undefined) return layer.id;
    return this.#addNamed("diff", [lower, layer.id], { description: `diff "${lower}" -> "${layer.id}"` }).id;
  }

  search(index: string): readonly string[] {
    return this.deps.records.search(index);
  }

  metadataOf(id: string): RefMetadata | undefined {
    return this.deps.records.find(id) && this.deps.records.metadata(id);
  }

  isAvailable(id: string): boolean {
    const record = this.deps.records.find(id);
    return record !== undefined && this.#isAvailable(record);
  }

  #isAvailable({ state }: CacheRecord): boolean {
    if (state.snapshot !== undefined || state.equalMutable !== undefined) return true;
    if (state.kind === "layer") {
      if (!state.blob || !this.blobs.canHave(state.blob.digest, state.remotes)) return false;
    }
    return state.parents.every((parent) => parent === "" || this.isAvailable(parent));
  }

  canHaveBlob(id: string, digest: string): boolean {
    if (this.deps.content.has(digest)) return true;
    const state = this.deps.records.find(id)?.state;
    return state?.blob?.digest === digest && this.blobs.canHave(digest, state.remotes);
  }

  refreshProvider(digest: string, provider: BlobProvider): void {
    this.blobs.refreshProvider(digest, provider);
  }

  observe(id: string, observer: LayerObserver): Disposable | undefined {
    const digests: string[] = [];
    for (const { state } of this.deps.records.layers(this.deps.records.get(id))) {
      const { blob } = state;
      if (blob && (state.snapshot === undefined || !this.deps.content.has(blob.digest)))
        digests.push(blob.digest);
    }
    return digests.length === 0 ? undefined : this.blobs.observe(digests, observer);
  }

  async ensureBlob(id: string, digest: string, ctx: RefContext): Promise<void> {
    if (this.deps.content.has(digest)) return;
    const record = this.deps.records.get(id);
    using _hold = this.deps.records.hold(record);
    const { blob } = record.state;
    if (blob?.digest !== digest) throw new BuildError("not_found", `blob ${digest}: not found`);
    await this.blobs.ensure(record, blob, ctx);
  }

  async diskUsage(opts: DiskUsageOptions = {}): Promise<readonly UsageInfo[]> {
    return await this.pruner.diskUsage(opts);
  }

  async prune(
    rules: readonly PruneOptions[],
    onRecord?: (record: UsageInfo) => void,
    signal?: AbortSignal,
  ): Promise<void> {
    await this.pruner.prune(rules, onRecord, signal);
  }

  async collectContent(graceMs: number): Promise<void> {
    await this.pruner.collectContent(graceMs);
  }

  async enforce(rules: readonly PruneOptions[]): Promise<void> {
    await this.pruner.enforce(rules);
  }

  onRemoved(listener: (id: string) => void): Disposable {
    return this.pruner.onRemoved(listener);
  }

  /** Mounts of a mutable record. */
  async mountMutable(record: CacheRecord, readonly: boolean): Promise<Mountable> {
    record.mountings++;
    const key = record.state.snapshot as string;
    if (!readonly) {
      if (record.state.size !== undefined) this.deps.records.update(record, { size: undefined });
      return this.#mounts.open(record.id, () => this.deps.snapshotter.mounts(key));
    }
    return this.#mounts.openReadonly(record.id) ?? fixed(readonlyMounts(this.deps.snapshotter.mounts(key)));
  }

  /** Mounts of an immutable record, for reading. */
  async mountImmutable(record: CacheRecord, ctx: RefContext): Promise<Mountable> {
    await this.trees.extract(record, ctx);
    const { equalMutable } = record.state;
    if (equalMutable === undefined) return fixed(this.trees.mounts(record));
    return await this.mountMutable(this.deps.records.get(equalMutable), true);
  }

  /** Ends a mutable handle by making its tree immutable. */
  async commit(record: CacheRecord): Promise<ImmutableRef> {
    const { records } = this.deps;
    if (this.#mounts.inUse(record.id)) {
      throw new BuildError("failed_precondition", `cache record ${record.id} is still mounted`);
    }
    const { state } = record;
    const id = newId();
    const next: RecordState = {
      ...state,
      mutable: false,
      cachePolicy: "default",
      snapshot: undefined,
      size: undefined,
      createdAt: this.deps.clock.now(),
    };
    if (state.cachePolicy === "retain") {
      const equal = records.add(id, { ...next, equalMutable: record.id });
      // It was written or compared with its source just now: collection is to keep what builds come back to.
      records.touch(record);
      this.#scheduleSync();
      return new ImmutableHandle(this, equal, false);
    }
    await this.deps.snapshotter.commit(id, state.snapshot as string);
    const committed = this.deps.db.transaction(() => {
      const added = records.add(id, { ...next, snapshot: id });
      records.remove([record]);
      return added;
    });
    this.#scheduleSync();
    return new ImmutableHandle(this, committed, false);
  }

  /** Gives an immutable record a snapshot of its own when it still shares that of a mutable one. */
  async finalize(record: CacheRecord): Promise<void> {
    const { records, snapshotter, db } = this.deps;
    const { equalMutable } = record.state;
    if (equalMutable === undefined) return;
    const mutable = records.get(equalMutable);
    await snapshotter.commit(record.id, mutable.state.snapshot as string);
    db.transaction(() => {
      records.remove([mutable]);
      records.update(record, { snapshot: record.id, equalMutable: undefined, size: undefined });
    });
    this.#scheduleSync();
  }

  /** Takes back a handle of a mutable record. */
  async releaseMutable(record: CacheRecord): Promise<void> {
    if (record.dead || record.state.cachePolicy === "retain") return;
    await this.pruner.remove(record);
  }

  #scheduleSync(): void {
    this.#syncTimer ??= setTimeout(() => {
      this.#syncTimer = undefined;
      this.#syncing = this.sync().catch((error: unknown) => {
        this.deps.onWarning("failed to sync snapshots to disk", error);
      });
    }, SYNC_DELAY_MS).unref();
  }

  /** Brings the files of committed and idle snapshots to disk and takes note of it. */
  async sync(): Promise<void> {
    const { snapshotter, records } = this.deps;
    const idle = (name: string): readonly CacheRecord[] | undefined => {
      const users = records.withSnapshot(name);
      return users.length > 0 && users.every((user) => !user.state.mutable || user.refs === 0)
        ? users
        : undefined;
    };
    const before = new Map<string, number>();
    for (const name of snapshotter.dirty()) {
      const users = idle(name);
      if (users) before.set(name, sum(users));
    }
    if (before.size === 0) return;
    await syncFileSystem(this.deps.mountRoot);
    const durable = [...before].filter(([name, mountings]) => {
      const users = idle(name);
      return users !== undefined && sum(users) === mountings;
    });
    snapshotter.markDurable(durable.map(([name]) => name));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearTimeout(this.#syncTimer);
    await this.#syncing;
    await this.sync();
    this.deps.records.flush();
  }
}

function sum(users: readonly CacheRecord[]): number {
  return users.reduce((total, user) => total + user.mountings, 0);
}

function fixed(mounts: Mountable["mounts"]): Mountable {
  const release = async (): Promise<void> => undefined;
  return { mounts, release, [Symbol.asyncDispose]: release };
}

/** The layers of `upper` above those of `lower`; undefined when `lower` isn't where `upper` starts. */
function layersBetween(
  upper: readonly CacheRecord[],
  lower: readonly CacheRecord[],
): readonly CacheRecord[] | undefined {
  if (upper.length <= lower.length || lower.length === 0) return undefined;
  return lower.every((layer, i) => layer === upper[i]) ? upper.slice(lower.length) : undefined;
}
