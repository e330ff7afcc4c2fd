import { type ApplyResult, fixImplicitDirs, GrowingFile, type LayerJob } from "@kiln/archive";
import { BuildError, createDeferred, DisposableStore, isBuildError } from "@kiln/base";
import type { Descriptor } from "@kiln/oci";
import { localMount, type Mount } from "@kiln/sys";
import type { BlobFetcher } from "./blob-fetcher.ts";
import { Flights } from "./flights.ts";
import type { CacheRecord } from "./record.ts";
import type { RefContext } from "./ref.ts";
import type { RefDeps } from "./ref-deps.ts";
import type { StagedSnapshot } from "./snapshotter.ts";
import type { TreeDiff } from "./tree-merge.ts";

/** A layer unpacked before its parent. */
interface StagedLayer {
  readonly staged: StagedSnapshot;
  readonly implicitDirs: readonly string[];
}

interface ApplyTo {
  readonly blob: Descriptor;
  readonly dir: string;
  readonly whiteouts: "overlay" | "remove";
  /** The blob is still being written. */
  readonly growing?: GrowingFile;
}

/** Layers from this size on are unpacked while they are downloaded. */
const MIN_STREAMED_BYTES = 1 << 20;

/** Makes the trees of records: downloads and unpacks layers, lays merges and diffs. Each once at a time. */
export class TreeExtractor {
  readonly #deps: RefDeps;
  readonly #blobs: BlobFetcher;
  readonly #flights = new Flights();
  readonly #onCommit: () => void;

  /** `onCommit` is told of every new snapshot. */
  constructor(deps: RefDeps, blobs: BlobFetcher, onCommit: () => void) {
    this.#deps = deps;
    this.#blobs = blobs;
    this.#onCommit = onCommit;
  }

  /** True when the tree can be mounted right away. */
  isExtracted(record: CacheRecord): boolean {
    return record.state.snapshot !== undefined || record.state.equalMutable !== undefined;
  }

  /** Makes the tree of a record mountable. The caller holds the record. */
  async extract(record: CacheRecord, ctx: RefContext): Promise<void> {
    if (this.isExtracted(record)) return;
    await this.#flights.run(record.id, ctx, async (shared) => {
      using _hold = this.#deps.records.hold(record);
      if (record.state.kind === "layer") await this.#extractLayer(record, shared);
      else await this.#extractMerge(record, shared);
    });
  }

  /** Mounts of an extracted tree, for reading. */
  mounts(record: CacheRecord): readonly Mount[] {
    const { snapshot } = record.state;
    if (snapshot === undefined) throw new BuildError("internal", `cache record ${record.id} has no snapshot`);
    return this.#deps.snapshotter.mounts(snapshot);
  }

  async #extractLayer(record: CacheRecord, ctx: RefContext): Promise<void> {
    if (this.isExtracted(record) || this.#link(record)) return;
    const { blob } = record.state;
    if (!blob) throw new BuildError("internal", `cache record ${record.id} has neither snapshot nor blob`);
    const [parent] = this.#deps.records.parents(record);
    const parentReady = parent ? this.extract(parent, ctx) : Promise.resolve();
    parentReady.catch(() => undefined);
    if (this.#deps.snapshotter.stage) await this.#stageAndCommit(record, { parent, parentReady, blob }, ctx);
    else await this.#applyOnParent(record, { parent, parentReady, blob }, ctx);
    this.#onCommit();
  }

  /** Takes over the tree of another record with the same chain of layers. */
  #link(record: CacheRecord): boolean {
    const { records, snapshotter } = this.#deps;
    const { chainId } = record.state;
    if (!chainId) return false;
    for (const { state } of records.withChainId(chainId)) {
      if (!state.snapshot || !snapshotter.exists(state.snapshot)) continue;
      records.update(record, { snapshot: state.snapshot, size: undefined });
      return true;
    }
    return false;
  }

  async #stageAndCommit(record: CacheRecord, from: LayerSource, ctx: RefContext): Promise<void> {
    const { snapshotter, records } = this.#deps;
    const staging = this.#stage(record, from.blob, ctx);
    staging.catch(() => undefined);
    let layer: StagedLayer | undefined;
    try {
      [layer] = await Promise.all([staging, from.parentReady]);
      const parent = from.parent?.state.snapshot;
      if (parent !== undefined && layer.implicitDirs.length > 0) {
        const lowers = [snapshotter.upperDir(parent) as string, ...snapshotter.lowerDirs(parent)];
        fixImplicitDirs(layer.staged.dir, layer.implicitDirs, lowers);
      }
      await snapshotter.commitStaged?.(record.id, layer.staged, parent);
    } catch (error) {
      const done = layer ?? (await staging.catch(() => undefined));
      if (done) await snapshotter.remove(done.staged.id);
      throw error;
    }
    records.update(record, { snapshot: record.id, size: undefined });
  }

  async #stage(record: CacheRecord, blob: Descriptor, ctx: RefContext): Promise<StagedLayer> {
    const { snapshotter, content, layers } = this.#deps;
    for (let tries = 0; ; tries++) {
      const mayStream = blob.size >= MIN_STREAMED_BYTES && layers.free > 1 && !content.has(blob.digest);
      if (!mayStream) await this.#blobs.ensure(record, blob, ctx);
      const staged = await (snapshotter.stage as () => Promise<StagedSnapshot>)();
      try {
        // a layer with nothing below it is mounted as it is: its whiteouts would be seen as devices
        const isLowest = this.#deps.records.parents(record).length === 0;
        const to: ApplyTo = { blob, dir: staged.dir, whiteouts: isLowest ? "remove" : "overlay" };
        const result = mayStream
          ? await this.#fetchAndApply(record, to, ctx)
          : await this.#apply(record, to, ctx);
        return { staged, implicitDirs: result.implicitDirs };
      } catch (error) {
        await snapshotter.remove(staged.id);
        await this.#retryOrThrow(record, { blob, error, tries }, ctx);
      }
    }
  }

  /** Unpacks a layer while it is being downloaded. What fails the download fails both. */
  async #fetchAndApply(record: CacheRecord, to: ApplyTo, ctx: RefContext): Promise<ApplyResult> {
    const begun = createDeferred<GrowingFile | undefined>();
    const growing = (path: string): GrowingFile => {
      const file = new GrowingFile(path);
      begun.resolve(file);
      return file;
    };
    const fetched = this.#blobs.ensure(record, to.blob, { ...ctx, growing });
    // Somebody else may be downloading it; then there is nothing to read along.
    fetched.then(
      () => begun.resolve(undefined),
      () => begun.resolve(undefined),
    );
    const file = await begun.promise;
    if (!file) {
      await fetched;
      return await this.#apply(record, to, ctx);
    }
    const [fetch, applied] = await Promise.allSettled([
      fetched,
      this.#apply(record, { ...to, growing: file }, ctx),
    ]);
    if (fetch.status === "rejected") throw fetch.reason;
    if (applied.status === "rejected") throw applied.reason;
    return applied.value;
  }

  async #applyOnParent(record: CacheRecord, from: LayerSource, ctx: RefContext): Promise<void> {
    const { snapshotter, records } = this.#deps;
    await from.parentReady;
    for (let tries = 0; ; tries++) {
      await this.#blobs.ensure(record, from.blob, ctx);
      const key = `extract-${record.id}`;
      const mounts = await snapshotter.prepare(key, from.parent?.state.snapshot);
      try {
        {
          using mounted = localMount(mounts);
          await this.#apply(record, { blob: from.blob, dir: mounted.path, whiteouts: "remove" }, ctx);
        }
        await snapshotter.commit(record.id, key);
        records.update(record, { snapshot: record.id, size: undefined });
        return;
      } catch (error) {
        await snapshotter.remove(key);
        await this.#retryOrThrow(record, { blob: from.blob, error, tries }, ctx);
      }
    }
  }

  async #apply(record: CacheRecord, to: ApplyTo, ctx: RefContext): Promise<ApplyResult> {
    const { content, layers, snapshotter } = this.#deps;
    const { digest, size } = to.blob;
    const job: LayerJob & { kind: "apply" } = {
      kind: "apply",
      file: content.path(digest),
      ...(to.growing ? { growing: { path: to.growing.path, memory: to.growing.memory } } : {}),
      dir: to.dir,
      opts: { whiteouts: to.whiteouts, overlayXattrPrefix: snapshotter.xattrPrefix },
      ...(record.state.diffId ? { diffId: record.state.diffId, layer: digest } : {}),
    };
    return await this.#blobs.observed(digest, ctx, async (tell) => {
      const report = (current: number, done: boolean): void =>
        tell({ digest, action: "extracting", current, total: size, done });
      report(0, false);
      const result = await layers.run(job, {
        signal: ctx.signal,
        onProgress: (bytes) => report(bytes, false),
      });
      report(size, true);
      return result;
    });
  }

  /** A blob that was damaged on disk is fetched again, once; a blob that lies about its layer is thrown away. */
  async #retryOrThrow(
    record: CacheRecord,
    failed: { readonly blob: Descriptor; readonly error: unknown; readonly tries: number },
    ctx: RefContext,
  ): Promise<void> {
    ctx.signal.throwIfAborted();
    const { digest } = failed.blob;
    const damaged = await this.#blobs.wasDamaged(digest);
    if (damaged && failed.tries === 0 && this.#blobs.canHave(digest, record.state.remotes)) return;
    if (isBuildError(failed.error, "data_loss") && this.#deps.records.withBlob(digest).length <= 1) {
      await this.#deps.content.delete(digest);
    }
    throw failed.error;
  }

  async #extractMerge(record: CacheRecord, ctx: RefContext): Promise<void> {
    const { snapshotter, records, trees } = this.#deps;
    if (this.isExtracted(record)) return;
    await Promise.all(records.parents(record).map((parent) => this.extract(parent, ctx)));
    const steps = await this.#steps(record, ctx);
    const first = steps[0]?.upper;
    const isOverlay = first !== undefined && snapshotter.upperDir(first) !== undefined;
    const { base, rest } = isOverlay
      ? skipBase(steps, (key) => snapshotter.stat(key).parent)
      : { base: undefined, rest: steps };
    const key = `merge-${record.id}`;
    const mounts = await snapshotter.prepare(key, base);
    try {
      await using mounted = new DisposableStore();
      const diffs = rest.map((step) => this.#treeDiff(step, mounted));
      const lowerDirs = snapshotter.lowerDirs(key);
      const dir = snapshotter.upperDir(key) ?? (mounts[0] as Mount).source;
      const target = {
        dir,
        ...(lowerDirs.length > 0 ? { lowerDirs } : {}),
        overlayXattrPrefix: snapshotter.xattrPrefix,
        link: snapshotter.mergeable,
      };
      await trees.run({ kind: "merge", target, diffs });
      ctx.signal.throwIfAborted();
      await snapshotter.commit(record.id, key);
    } catch (error) {
      await snapshotter.remove(key);
      throw error;
    }
    records.update(record, { snapshot: record.id, size: undefined });
    this.#onCommit();
  }

  /** The differences that make up a merge or a diff, as pairs of snapshots. */
  async #steps(record: CacheRecord, ctx: RefContext): Promise<Step[]> {
    const { records } = this.#deps;
    const steps: Step[] = [];
    for (const layer of records.layers(record)) {
      const pair =
        layer.state.kind === "diff" ? layer.state.parents : [layer.state.parents[0] ?? "", layer.id];
      const [lower, upper] = pair.map((id) => (id ? records.get(id) : undefined));
      for (const needed of [lower, upper]) if (needed) await this.extract(needed, ctx);
      steps.push({ lower: lower?.state.snapshot, upper: upper?.state.snapshot });
    }
    return steps;
  }

  #treeDiff(step: Step, mounted: DisposableStore): TreeDiff {
    const { snapshotter } = this.#deps;
    const show = (key: string | undefined): string => {
      if (key === undefined) return this.#emptyDir(mounted);
      return mounted.use(
        localMount(snapshotter.mounts(key), { forReading: true, tmpDir: this.#deps.mountRoot }),
      ).path;
    };
    const lower = step.lower === undefined ? {} : { lowerDir: show(step.lower) };
    const own = step.upper === undefined ? undefined : snapshotter.upperDir(step.upper);
    if (own !== undefined && step.upper !== undefined && snapshotter.stat(step.upper).parent === step.lower) {
      return { ...lower, upperDir: own, overlayUpperDir: own };
    }
    return { ...lower, upperDir: show(step.upper) };
  }

  #emptyDir(mounted: DisposableStore): string {
    return mounted.use(
      localMount([{ type: "tmpfs", source: "tmpfs", options: ["ro", "size=4k"] }], {
        tmpDir: this.#deps.mountRoot,
      }),
    ).path;
  }
}

interface LayerSource {
  readonly parent: CacheRecord | undefined;
  readonly parentReady: Promise<void>;
  readonly blob: Descriptor;
}

/** A difference between two snapshots; undefined stands for an empty tree. */
interface Step {
  readonly lower: string | undefined;
  readonly upper: string | undefined;
}

/** As long as each difference is one layer on the one before, the last of them can be the parent of the result. */
function skipBase(
  steps: readonly Step[],
  parentOf: (key: string) => string | undefined,
): { readonly base: string | undefined; readonly rest: readonly Step[] } {
  let base: string | undefined;
  let skipped = 0;
  for (const step of steps) {
    if (step.upper === undefined || parentOf(step.upper) !== step.lower || step.lower !== base) break;
    base = step.upper;
    skipped++;
  }
  return { base, rest: steps.slice(skipped) };
}
