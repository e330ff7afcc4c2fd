import { mkdirSync, rmdirSync } from "node:fs";
import { type Mount, mountAll, unmount } from "@kiln/sys";

/** A place where some mounts show; release it once. */
export interface PooledMount {
  readonly path: string;
  release(): void;
}

interface Entry {
  readonly path: string;
  readonly mounts: readonly Mount[];
  users: number;
}

/**
 * Mounts file systems, each only once at a time: an overlay with the same upper directory mounted twice would
 * be two file systems that corrupt each other.
 */
export class MountPool {
  readonly #dir: string;
  readonly #entries = new Map<string, Entry>();
  #count = 0;

  /** `dir` is made; mount points are made in it. */
  constructor(dir: string) {
    this.#dir = dir;
    mkdirSync(dir, { recursive: true, mode: 0o711 });
  }

  acquire(mounts: readonly Mount[]): PooledMount {
    const [only] = mounts;
    if (mounts.length === 1 && only && isPlainBind(only))
      return { path: only.source, release: () => undefined };
    const key = JSON.stringify(mounts);
    const entry = this.#entries.get(key) ?? this.#mount(key, mounts);
    entry.users++;
    let held = true;
    return {
      path: entry.path,
      release: () => {
        if (!held) return;
        held = false;
        if (--entry.users === 0) this.#unmount(key, entry);
      },
    };
  }

  #mount(key: string, mounts: readonly Mount[]): Entry {
    const path = `${this.#dir}/${this.#count++}`;
    mkdirSync(path, { mode: 0o700 });
    try {
      mountAll(mounts, path);
    } catch (error) {
      rmdirSync(path);
      throw error;
    }
    const entry: Entry = { path, mounts, users: 0 };
    this.#entries.set(key, entry);
    return entry;
  }

  #unmount(key: string, entry: Entry): void {
    this.#entries.delete(key);
    while (unmount(entry.path, { detach: true })) {
      // Those below.
    }
    rmdirSync(entry.path);
  }
}

/** A bind mount that shows exactly its source. */
function isPlainBind(mount: Mount): boolean {
  if (mount.target !== undefined || (mount.type !== "bind" && mount.type !== "rbind")) return false;
  return mount.options.every((option) => option === "rbind" || option === "bind" || option === "rw");
}
