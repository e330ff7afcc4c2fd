import { existsSync, mkdirSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { type Clock, systemClock } from "@kiln/base";
import { escapeLowerDir, type Mount } from "@kiln/sys";
import type { Database } from "../database.ts";
import { type SnapshotRow, SnapshotTable } from "../snapshot-table.ts";
import type { SnapshotInfo, Snapshotter, SnapshotUsage, StagedSnapshot } from "../snapshotter.ts";
import type { TreePool } from "../tree-job.ts";
import type { OverlaySupport } from "./overlay-support.ts";

/** What an {@link OverlaySnapshotter} works with. */
export interface OverlayOptions {
  readonly root: string;
  readonly db: Database;
  readonly trees: TreePool;
  readonly support: OverlaySupport;
  readonly clock?: Clock;
}

/**
 * Snapshots as upper directories of overlayfs: `<root>/<number>/fs`, and `work` beside it. Layers may be
 * unpacked before their parents.
 */
export class OverlaySnapshotter implements Snapshotter {
  readonly name = "overlayfs";
  readonly mergeable = true;
  readonly #root: string;
  readonly #table: SnapshotTable;
  readonly #trees: TreePool;
  readonly #support: OverlaySupport;
  #staged = 0;

  constructor(opts: OverlayOptions) {
    this.#root = opts.root;
    this.#trees = opts.trees;
    this.#support = opts.support;
    this.#table = new SnapshotTable(opts.db, opts.clock ?? systemClock);
    mkdirSync(this.#root, { recursive: true, mode: 0o700 });
  }

  get xattrPrefix(): "trusted." | "user." {
    return this.#support.userXattr ? "user." : "trusted.";
  }

  async prepare(key: string, parent?: string): Promise<readonly Mount[]> {
    this.#make(this.#table.insert(key, "active", parent));
    return this.mounts(key);
  }

  async view(key: string, parent?: string): Promise<readonly Mount[]> {
    this.#make(this.#table.insert(key, "view", parent));
    return this.mounts(key);
  }

  #make(row: SnapshotRow): void {
    rmSync(this.#path(row.dir), { recursive: true, force: true });
    mkdirSync(this.#path(row.dir), { mode: 0o700 });
    mkdirSync(join(this.#path(row.dir), "fs"), { mode: 0o755 });
    if (row.kind === "active") mkdirSync(join(this.#path(row.dir), "work"), { mode: 0o711 });
  }

  async commit(name: string, key: string): Promise<void> {
    const { dir } = this.#table.get(key);
    this.#table.commit(name, key);
    rmSync(join(this.#path(dir), "work"), { recursive: true, force: true });
  }

  /** Those of a committed snapshot are read-only. */
  mounts(key: string): readonly Mount[] {
    const row = this.#table.get(key);
    const lower = this.lowerDirs(key);
    const own = join(this.#path(row.dir), "fs");
    if (row.kind === "active") return [this.#activeMount(row, own, lower)];
    const dirs = row.kind === "committed" ? [own, ...lower] : lower;
    if (dirs.length <= 1) return [{ type: "bind", source: dirs[0] ?? own, options: ["ro", "rbind"] }];
    return [this.#overlay(dirs, [])];
  }

  #activeMount(row: SnapshotRow, own: string, lower: readonly string[]): Mount {
    this.#table.markDirty(row.name);
    if (lower.length === 0) return { type: "bind", source: own, options: ["rw", "rbind"] };
    const work = join(this.#path(row.dir), "work");
    const options = [`upperdir=${escapeDir(own)}`, `workdir=${escapeDir(work)}`];
    if (this.#support.volatile) {
      // Left by an earlier mount; the kernel would refuse another one.
      rmSync(join(work, "work", "incompat"), { recursive: true, force: true });
      options.push("volatile");
    }
    return this.#overlay(lower, options);
  }

  #overlay(lower: readonly string[], options: readonly string[]): Mount {
    return {
      type: "overlay",
      source: "overlay",
      options: [...this.#support.options, ...options, `lowerdir=${lower.map(escapeLowerDir).join(":")}`],
    };
  }

  stat(key: string): SnapshotInfo {
    return this.#table.get(key);
  }

  exists(key: string): boolean {
    return this.#table.find(key) !== undefined;
  }

  async usage(key: string): Promise<SnapshotUsage> {
    const row = this.#table.get(key);
    if (row.usage) return row.usage;
    const usage = await this.#trees.run<SnapshotUsage>({ kind: "usage", path: this.#path(row.dir) });
    if (row.kind === "committed") this.#table.setUsage(key, usage);
    return usage;
  }

  async remove(key: string): Promise<void> {
    const row = this.#table.remove(key);
    await this.#trees.run({ kind: "remove", path: this.#path(row.dir) });
  }

  walk(): Iterable<SnapshotInfo> {
    return this.#table.all();
  }

  upperDir(key: string): string {
    return join(this.#path(this.#table.get(key).dir), "fs");
  }

  lowerDirs(key: string): readonly string[] {
    const dirs: string[] = [];
    for (let at = this.#table.get(key).parent; at !== undefined; ) {
      const row = this.#table.get(at);
      dirs.push(join(this.#path(row.dir), "fs"));
      at = row.parent;
    }
    return dirs;
  }

  async stage(): Promise<StagedSnapshot> {
    const row = this.#table.insert(`stage-${process.pid}-${++this.#staged}`, "active", undefined);
    this.#make(row);
    return { id: row.name, dir: join(this.#path(row.dir), "fs") };
  }

  async commitStaged(name: string, staged: StagedSnapshot, parent?: string): Promise<void> {
    const { dir } = this.#table.get(staged.id);
    this.#table.commit(name, staged.id, parent);
    rmSync(join(this.#path(dir), "work"), { recursive: true, force: true });
  }

  dirty(): readonly string[] {
    return this.#table.dirty();
  }

  markDurable(names: readonly string[]): void {
    this.#table.markDurable(names);
  }

  async cleanup(): Promise<readonly string[]> {
    for (const row of this.#table.all()) {
      if (row.kind === "view" || row.name.startsWith("stage-")) this.#table.remove(row.name);
    }
    const lost = this.#table.dropLost((row) => !existsSync(join(this.#path(row.dir), "fs")));
    const known = new Set(this.#table.all().map((row) => String(row.dir)));
    for (const name of readdirSync(this.#root)) {
      if (!known.has(name)) await this.#trees.run({ kind: "remove", path: join(this.#root, name) });
    }
    return lost;
  }

  #path(dir: number): string {
    return join(this.#root, String(dir));
  }
}

function escapeDir(path: string): string {
  return path.replace(/[\\,]/g, "\\$&");
}
