import type { Mount } from "@kiln/sys";

/** `active` can be written, `committed` is a parent for others, `view` is read-only and can't be committed. */
export type SnapshotKind = "active" | "committed" | "view";

/** What a snapshotter knows about one snapshot. */
export interface SnapshotInfo {
  readonly name: string;
  readonly kind: SnapshotKind;
  readonly parent: string | undefined;
  /** Milliseconds since the epoch. */
  readonly createdAt: number;
  readonly updatedAt: number;
}

/** Space that one snapshot takes, without its parents. A hard-linked file counts once. */
export interface SnapshotUsage {
  readonly sizeBytes: number;
  readonly inodes: number;
}

/** A directory that is filled outside any snapshot, then adopted as a committed one. */
export interface StagedSnapshot {
  readonly id: string;
  /** Where the layer's files go. */
  readonly dir: string;
}

/**
 * Keeps file trees as a chain of changes.
 *
 * Life cycle: `prepare(key, parent)` makes an active snapshot, its `mounts` are used and unmounted by the
 * caller, `commit(name, key)` turns it into the committed snapshot `name` (the key is gone then), which may
 * be the parent of others. `remove` refuses a snapshot that is a parent (`failed_precondition`). Names are
 * unique over all kinds. Every method rejects with `not_found` for an unknown key and `already_exists` for a
 * taken one.
 *
 * What is on disk and what the database says agree after each call, also after a crash: `cleanup` (called
 * once at start) removes directories that no row names and rows whose directory is gone.
 *
 * ```ts
 * await s.prepare("work", "base");
 * using dir = localMount(s.mounts("work"));
 * writeFileSync(join(dir.path, "hello"), "x");
 * dir[Symbol.dispose]();
 * await s.commit("next", "work");
 * ```
 */
export interface Snapshotter {
  /** `overlayfs` or `native`, as in `buildkitd.toml`. */
  readonly name: string;
  /** True when mounts of it are hard-linkable between snapshots (one file system) and merges may use links. */
  readonly mergeable: boolean;
  /** Prefix of the attributes in overlay upper directories. */
  readonly xattrPrefix: "trusted." | "user.";
  prepare(key: string, parent?: string): Promise<readonly Mount[]>;
  view(key: string, parent?: string): Promise<readonly Mount[]>;
  commit(name: string, key: string): Promise<void>;
  /** Of a committed snapshot: read-only ones, good for as long as it exists. */
  mounts(key: string): readonly Mount[];
  stat(key: string): SnapshotInfo;
  exists(key: string): boolean;
  usage(key: string): Promise<SnapshotUsage>;
  remove(key: string): Promise<void>;
  walk(): Iterable<SnapshotInfo>;
  /**
   * The directory that holds only this snapshot's own changes, with overlay whiteouts; undefined for a
   * snapshotter that keeps whole trees.
   */
  upperDir(key: string): string | undefined;
  /** Directories of the ancestors' changes, nearest first; empty for a snapshotter that keeps whole trees. */
  lowerDirs(key: string): readonly string[];
  /** A directory for a layer that is unpacked before its parents are; undefined when that can't be done. */
  stage?(): Promise<StagedSnapshot>;
  commitStaged?(name: string, staged: StagedSnapshot, parent?: string): Promise<void>;
  /** Snapshots whose files may not be on disk yet, and how to say that they are (after a `syncfs`). */
  dirty(): readonly string[];
  markDurable(names: readonly string[]): void;
  /** Removes what a crash left. Returns the names of committed snapshots that had to go. */
  cleanup(): Promise<readonly string[]>;
}
