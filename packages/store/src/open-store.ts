import { renameSync, rmSync } from "node:fs";
import { join } from "node:path";
import { LayerPool } from "@kiln/archive";
import { BuildError, type Clock, DisposableStore, systemClock } from "@kiln/base";
import { diskSpace, type MachineNotes } from "@kiln/sys";
import { CacheManager } from "./cache-manager.ts";
import type { ContentStore } from "./content.ts";
import { FileContentStore } from "./content-store.ts";
import { Database } from "./database.ts";
import type { LeaseStore } from "./lease.ts";
import { createLeaseStore } from "./lease-store.ts";
import { NativeSnapshotter } from "./native/native-snapshotter.ts";
import { OverlaySnapshotter } from "./overlay/overlay-snapshotter.ts";
import { overlaySupport } from "./overlay/overlay-support.ts";
import { RecordSet } from "./record-set.ts";
import { recover } from "./recovery.ts";
import type { FetchBlob, RefDeps } from "./ref-deps.ts";
import type { RefManager } from "./ref-manager.ts";
import type { Snapshotter } from "./snapshotter.ts";
import { SpaceReserve } from "./space-reserve.ts";
import { TreePool } from "./tree-job.ts";

/** How to open a store. */
export interface StoreOptions {
  /** Folder that holds everything; nobody else may have it open. */
  readonly root: string;
  /** `auto` (default): overlayfs where it works, else native. */
  readonly snapshotter?: "auto" | "overlayfs" | "native";
  readonly fetchBlob: FetchBlob;
  readonly clock?: Clock;
  /** See `DatabaseOptions`: a power failure costs the last seconds of the cache, as with snapshots. */
  readonly synchronous?: "full" | "normal";
  readonly isShared?: RefDeps["isShared"];
  /** Takes note of what went wrong in the background; the default is silence. */
  readonly onWarning?: RefDeps["onWarning"];
  /** Threads for layers to share with others; the store's own when absent. */
  readonly layers?: LayerPool;
  /** Where it is noted whether overlays work here, so that the next start needn't try. */
  readonly notes?: MachineNotes;
}

/** Everything that one worker keeps. */
export interface Store extends AsyncDisposable {
  readonly root: string;
  /** For tables of other subsystems; closed with the store. */
  readonly db: Database;
  readonly content: ContentStore;
  readonly leases: LeaseStore;
  readonly snapshotter: Snapshotter;
  readonly refs: RefManager;
  readonly layers: LayerPool;
  /** Room for notes about removals on a full disk. */
  readonly reserve: SpaceReserve;
}

/**
 * Opens the store of one worker below `root` and repairs what a crash left: `kiln.db`, `content/`,
 * `snapshots/`, `mounts/`.
 *
 * @throws `failed_precondition` when overlayfs was asked for and doesn't work, or the state is of a newer program
 */
export async function openStore(opts: StoreOptions): Promise<Store> {
  await using undo = new DisposableStore();
  const clock = opts.clock ?? systemClock;
  const { root } = opts;
  const diskStat = () => diskSpace(root);
  const reserve = new SpaceReserve(join(root, "reserve"), () => diskStat().freeBytes);
  reserve.release();
  const db = undo.use(openDatabase(opts, reserve));
  const layers = opts.layers ?? undo.use(new LayerPool());
  const trees = undo.use(new TreePool());
  const content = new FileContentStore(join(root, "content"), db, { clock });
  const leases = createLeaseStore(db, clock);
  const snapshotter = chooseSnapshotter(opts.snapshotter ?? "auto", {
    root: join(root, "snapshots"),
    db,
    trees,
    clock,
    notes: opts.notes,
  });
  const records = undo.use(new RecordSet(db, clock));
  const manager = undo.use(
    new CacheManager({
      db,
      content,
      leases,
      snapshotter,
      records,
      layers,
      trees,
      fetchBlob: opts.fetchBlob,
      clock,
      diskStat,
      reserve,
      mountRoot: join(root, "mounts"),
      ...(opts.isShared ? { isShared: opts.isShared } : {}),
      onWarning: opts.onWarning ?? (() => undefined),
    }),
  );
  await recover(manager.deps, manager.pruner);
  reserve.restore();
  const owned = undo.move();
  return {
    root,
    db,
    content,
    leases,
    snapshotter,
    refs: manager,
    layers,
    reserve,
    [Symbol.asyncDispose]: () => owned[Symbol.asyncDispose](),
  };
}

/** A database that is damaged is put aside: what it knew was a cache. */
function openDatabase(opts: StoreOptions, reserve: SpaceReserve): Database {
  const path = join(opts.root, "kiln.db");
  const open = (): Database =>
    new Database(path, {
      beforeRemoval: () => reserve.release(),
      ...(opts.synchronous ? { synchronous: opts.synchronous } : {}),
    });
  try {
    return open();
  } catch (error) {
    if (!isDamaged(error)) throw error;
    const aside = `${path}.damaged`;
    renameSync(path, aside);
    for (const suffix of ["-wal", "-shm"]) rmSync(path + suffix, { force: true });
    opts.onWarning?.(
      `the cache database was damaged, starting with a new one (the old one is ${aside})`,
      error,
    );
    return open();
  }
}

const SQLITE_CORRUPT = 11;
const SQLITE_NOTADB = 26;

function isDamaged(error: unknown): boolean {
  const code = error instanceof Error && "errcode" in error ? error.errcode : undefined;
  return code === SQLITE_CORRUPT || code === SQLITE_NOTADB;
}

function chooseSnapshotter(
  wanted: "auto" | "overlayfs" | "native",
  opts: {
    readonly root: string;
    readonly db: Database;
    readonly trees: TreePool;
    readonly clock: Clock;
    readonly notes: MachineNotes | undefined;
  },
): Snapshotter {
  if (!["auto", "overlayfs", "native"].includes(wanted)) {
    throw new BuildError("unimplemented", `snapshotter ${wanted} is not supported`, {
      hint: "use auto, overlayfs or native",
    });
  }
  // Each kind has its own folder: with another kind than last time, every snapshot counts as lost.
  const native = (): Snapshotter => new NativeSnapshotter({ ...opts, root: join(opts.root, "native") });
  if (wanted === "native") return native();
  const root = join(opts.root, "overlayfs");
  const support = overlaySupport(root, opts.notes);
  if (!("reason" in support)) return new OverlaySnapshotter({ ...opts, root, support });
  if (wanted === "auto") return native();
  throw new BuildError(
    "failed_precondition",
    `overlayfs does not work below ${opts.root}: ${support.reason}`,
    {
      hint: "use the native snapshotter",
    },
  );
}
