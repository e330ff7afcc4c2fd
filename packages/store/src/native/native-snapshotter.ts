import { existsSync, mkdirSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { type Clock, systemClock } from "@kiln/base";
import { type Mount, removeTree } from "@kiln/sys";
import type { Database } from "../database.ts";
import { SnapshotTable } from "../snapshot-table.ts";
import type { SnapshotInfo, Snapshotter, SnapshotUsage } from "../snapshotter.ts";
import type { TreePool } from "../tree-job.ts";

/** What a {@link NativeSnapshotter} works with. */
export interface NativeOptions {
  readonly root: string;
  readonly db: Database;
  readonly trees: TreePool;
  readonly clock?: Clock;
}

/** Snapshots as whole copies of their parents (reflinks where the file system has them); works everywhere. */
export class NativeSnapshotter implements Snapshotter {
  readonly name = "native";
  readonly mergeable = true;
  readonly xattrPrefix = "trusted.";
  readonly #root: string;
  readonly #table: SnapshotTable;
  readonly #trees: TreePool;

  constructor(opts: NativeOptions) {
    this.#root = opts.root;
    this.#trees = opts.trees;
    this.#table = new SnapshotTable(opts.db, opts.clock ?? systemClock);
    mkdirSync(this.#root, { recursive: true, mode: 0o700 });
  }

  async prepare(key: string, parent?: string): Promise<readonly Mount[]> {
    const { dir } = this.#table.insert(key, "active", parent);
    const path = this.#path(dir);
    try {
      removeTree(path);
      mkdirSync(path, { mode: 0o755 });
      if (parent !== undefined) {
        await this.#trees.run({ kind: "copy", from: this.#path(this.#table.get(parent).dir), to: path });
      }
    } catch (error) {
      this.#table.remove(key);
      removeTree(path);
      throw error;
    }
    return this.mounts(key);
  }

  async view(key: string, parent?: string): Promise<readonly Mount[]> {
    const { dir } = this.#table.insert(key, "view", parent);
    if (parent === undefined) mkdirSync(this.#path(dir), { mode: 0o755 });
    return this.mounts(key);
  }

  async commit(name: string, key: string): Promise<void> {
    this.#table.commit(name, key);
  }

  /** Those of a committed snapshot are read-only. */
  mounts(key: string): readonly Mount[] {
    const row = this.#table.get(key);
    if (row.kind === "active") this.#table.markDirty(key);
    const shown = row.kind === "view" && row.parent !== undefined ? this.#table.get(row.parent) : row;
    const options = [row.kind === "active" ? "rw" : "ro", "rbind"];
    return [{ type: "bind", source: this.#path(shown.dir), options }];
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
    if (row.kind === "view" && row.parent !== undefined) return { sizeBytes: 0, inodes: 0 };
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

  upperDir(): undefined {
    return undefined;
  }

  lowerDirs(): readonly string[] {
    return [];
  }

  dirty(): readonly string[] {
    return this.#table.dirty();
  }

  markDurable(names: readonly string[]): void {
    this.#table.markDurable(names);
  }

  async cleanup(): Promise<readonly string[]> {
    for (const row of this.#table.all()) if (row.kind === "view") this.#table.remove(row.name);
    const lost = this.#table.dropLost((row) => !existsSync(this.#path(row.dir)));
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
