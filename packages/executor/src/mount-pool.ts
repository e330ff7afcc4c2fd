import { closeSync, mkdirSync, rmdirSync } from "node:fs";
import { BuildError } from "@kiln/base";
import { mountOne, remountReadonly, unmount } from "@kiln/sys";
import { attachMounts, takeDescriptor } from "./libc.ts";
import type { HandedMount } from "./protocol.ts";

/** A place where some mounts show; release it once. */
export interface PooledMount {
  readonly path: string;
  release(): void;
}

interface Entry {
  readonly path: string;
  readonly mounts: readonly HandedMount[];
  users: number;
}

/**
 * Mounts file systems, each only once at a time: an overlay with the same upper directory mounted twice would
 * be two file systems that corrupt each other.
 */
export class MountPool {
  readonly #dir: string;
  readonly #daemon: number;
  readonly #entries = new Map<string, Entry>();
  #count = 0;

  /** `dir` is made; mount points are made in it. `daemon` is a pidfd, for mounts that it hands over. */
  constructor(dir: string, daemon: number) {
    this.#dir = dir;
    this.#daemon = daemon;
    mkdirSync(dir, { recursive: true, mode: 0o711 });
  }

  acquire(mounts: readonly HandedMount[]): PooledMount {
    const [only] = mounts;
    if (mounts.length === 1 && only && isPlainBind(only))
      return { path: only.source, release: () => undefined };
    const key = JSON.stringify(
      mounts.map(({ type, source, options, target }) => [type, source, options, target]),
    );
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

  #mount(key: string, mounts: readonly HandedMount[]): Entry {
    const path = `${this.#dir}/${this.#count++}`;
    mkdirSync(path, { mode: 0o700 });
    try {
      for (const mount of mounts) this.#mountAt(mount, path);
    } catch (error) {
      unmountFully(path);
      rmdirSync(path);
      throw error;
    }
    const entry: Entry = { path, mounts, users: 0 };
    this.#entries.set(key, entry);
    return entry;
  }

  #mountAt(mount: HandedMount, path: string): void {
    if (mount.target !== undefined) {
      throw new BuildError("unimplemented", `mount of ${mount.source} at ${mount.target} isn't supported`);
    }
    if (mount.copyFd === undefined) {
      mountOne(mount, path);
      return;
    }
    const fd = takeDescriptor(this.#daemon, mount.copyFd);
    try {
      attachMounts(fd, path);
    } finally {
      closeSync(fd);
    }
    if (mount.options.includes("ro")) remountReadonly(path);
  }

  #unmount(key: string, entry: Entry): void {
    this.#entries.delete(key);
    unmountFully(entry.path);
    rmdirSync(entry.path);
  }
}

function unmountFully(path: string): void {
  while (unmount(path, { detach: true })) {
    // Those below.
  }
}

/** A bind mount that shows exactly its source. */
function isPlainBind(mount: HandedMount): boolean {
  if (mount.target !== undefined || mount.copyFd !== undefined) return false;
  if (mount.type !== "bind" && mount.type !== "rbind") return false;
  return mount.options.every((option) => option === "rbind" || option === "bind" || option === "rw");
}
