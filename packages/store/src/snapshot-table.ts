import { readFileSync } from "node:fs";
import { BuildError, type Clock } from "@kiln/base";
import type { Database, Row } from "./database.ts";
import type { SnapshotInfo, SnapshotKind, SnapshotUsage } from "./snapshotter.ts";

const SCHEMA = [
  `CREATE TABLE snapshots (
     dir INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, kind TEXT NOT NULL,
     parent TEXT, created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL,
     size INTEGER, inodes INTEGER, boot TEXT) STRICT;
   CREATE INDEX snapshots_by_parent ON snapshots (parent);`,
];

/** One snapshot as the tables know it. `dir` is the number of its directory. */
export interface SnapshotRow extends SnapshotInfo {
  readonly dir: number;
  readonly usage: SnapshotUsage | undefined;
}

/**
 * Rows of the snapshots of one snapshotter. A row remembers the boot of the machine in which its files were
 * last written until they are known to be on disk: after a power failure such a snapshot can't be trusted.
 */
export class SnapshotTable {
  readonly #db: Database;
  readonly #clock: Clock;
  readonly #boot: string;

  constructor(db: Database, clock: Clock) {
    this.#db = db;
    this.#clock = clock;
    this.#boot = bootId();
    db.migrate("snapshots", SCHEMA);
  }

  find(name: string): SnapshotRow | undefined {
    const row = this.#db.get("SELECT * FROM snapshots WHERE name = ?", name);
    return row && rowOf(row);
  }

  /** @throws `not_found` */
  get(name: string): SnapshotRow {
    const row = this.find(name);
    if (!row) throw new BuildError("not_found", `snapshot ${name}: not found`);
    return row;
  }

  all(): SnapshotRow[] {
    return this.#db.all("SELECT * FROM snapshots ORDER BY dir").map(rowOf);
  }

  /** @throws `already_exists`, `not_found` and `invalid_argument` for the parent */
  insert(name: string, kind: SnapshotKind, parent: string | undefined): SnapshotRow {
    return this.#db.transaction(() => {
      if (this.find(name)) throw new BuildError("already_exists", `snapshot ${name}: already exists`);
      if (parent !== undefined && this.get(parent).kind !== "committed") {
        throw new BuildError("invalid_argument", `parent snapshot ${parent} is not committed`);
      }
      const now = this.#clock.now();
      this.#db.run(
        "INSERT INTO snapshots (name, kind, parent, created_at, updated_at, boot) VALUES (?, ?, ?, ?, ?, ?)",
        name,
        kind,
        parent ?? null,
        now,
        now,
        this.#boot,
      );
      return this.get(name);
    });
  }

  /**
   * Makes an active snapshot a committed one; `parent` gives a staged one its parent.
   *
   * @throws `not_found`, `already_exists`, `failed_precondition` when `key` isn't active
   */
  commit(name: string, key: string, parent?: string): void {
    this.#db.transaction(() => {
      const row = this.get(key);
      if (parent !== undefined && this.get(parent).kind !== "committed") {
        throw new BuildError("invalid_argument", `parent snapshot ${parent} is not committed`);
      }
      if (row.kind !== "active") {
        throw new BuildError("failed_precondition", `snapshot ${key} is not active`);
      }
      if (name !== key && this.find(name)) {
        throw new BuildError("already_exists", `snapshot ${name}: already exists`);
      }
      this.#db.run(
        `UPDATE snapshots SET name = ?, kind = 'committed', parent = ?, updated_at = ?, size = NULL,
         inodes = NULL, boot = ? WHERE dir = ?`,
        name,
        parent ?? row.parent ?? null,
        this.#clock.now(),
        this.#boot,
        row.dir,
      );
    });
  }

  /** @throws `not_found`, `failed_precondition` when another has it as its parent */
  remove(name: string): SnapshotRow {
    return this.#db.transaction(() => {
      const row = this.get(name);
      const child = this.#db.get("SELECT name FROM snapshots WHERE parent = ? LIMIT 1", name);
      if (child) {
        throw new BuildError(
          "failed_precondition",
          `cannot remove snapshot ${name}: ${String(child.name)} is on top`,
        );
      }
      this.#db.run("DELETE FROM snapshots WHERE dir = ?", row.dir);
      return row;
    });
  }

  setUsage(name: string, usage: SnapshotUsage): void {
    this.#db.run(
      "UPDATE snapshots SET size = ?, inodes = ? WHERE name = ?",
      usage.sizeBytes,
      usage.inodes,
      name,
    );
  }

  /** Says that somebody is about to write to an active snapshot. */
  markDirty(name: string): void {
    this.#db.run(
      "UPDATE snapshots SET boot = ? WHERE name = ? AND (boot IS NULL OR boot <> ?)",
      this.#boot,
      name,
      this.#boot,
    );
  }

  /** Committed and idle snapshots whose files aren't known to be on disk. */
  dirty(): readonly string[] {
    return this.#db
      .all("SELECT name FROM snapshots WHERE boot IS NOT NULL ORDER BY dir")
      .map((row) => String(row.name));
  }

  /** Says that the files of these snapshots are on disk. */
  markDurable(names: readonly string[]): void {
    this.#db.transaction(() => {
      for (const name of names) this.#db.run("UPDATE snapshots SET boot = NULL WHERE name = ?", name);
    });
  }

  /**
   * Removes rows that `isGone` says have lost their directory, those that were being written when the
   * machine stopped, and everything on top of either. Returns the names.
   */
  dropLost(isGone: (row: SnapshotRow) => boolean): string[] {
    return this.#db.transaction(() => {
      const lost = new Set<string>();
      const rows = this.#db.all("SELECT * FROM snapshots ORDER BY dir");
      for (const row of rows) {
        const torn = row.boot !== null && row.boot !== this.#boot;
        if (torn || isGone(rowOf(row))) lost.add(String(row.name));
      }
      // A directory may have been made before its parent's, so the order of rows says nothing.
      const names = new Set(rows.map((row) => String(row.name)));
      for (let before = -1; before !== lost.size; ) {
        before = lost.size;
        for (const { name, parent } of rows.map(rowOf)) {
          if (parent !== undefined && (lost.has(parent) || !names.has(parent))) lost.add(name);
        }
      }
      for (const name of lost) this.#db.run("DELETE FROM snapshots WHERE name = ?", name);
      return [...lost];
    });
  }
}

function rowOf(row: Row): SnapshotRow {
  return {
    dir: Number(row.dir),
    name: String(row.name),
    kind: String(row.kind) as SnapshotKind,
    parent: row.parent === null ? undefined : String(row.parent),
    createdAt: Number(row.created_at),
    updatedAt: Number(row.updated_at),
    usage: row.size === null ? undefined : { sizeBytes: Number(row.size), inodes: Number(row.inodes) },
  };
}

/** Changes with every start of the machine. */
function bootId(): string {
  return readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim();
}
