import { mkdirSync, readdirSync, rmdirSync } from "node:fs";
import { join } from "node:path";
import { type Mount, mountAll, mountPoints, unmountAll, unmountAsync } from "@kiln/sys";
import type { Mountable } from "./ref.ts";

interface Shared {
  readonly path: string;
  users: number;
}

/**
 * Writable overlays must not be mounted twice at a time: their users share one mount and get binds of it.
 * Everything else is given out as it is.
 */
export class SharedMounts {
  readonly #root: string;
  readonly #shared = new Map<string, Shared>();

  /** Mounts that an earlier process left below `root` are unmounted. */
  constructor(root: string) {
    this.#root = root;
    mkdirSync(root, { recursive: true, mode: 0o700 });
    for (const path of mountPoints().reverse()) if (path.startsWith(`${root}/`)) unmountAll(path);
    for (const name of readdirSync(root)) rmdirSync(join(root, name));
  }

  /** True while somebody has the mount `key`. */
  inUse(key: string): boolean {
    return this.#shared.has(key);
  }

  /** The mount `key` for one who only reads, while somebody else writes to it. */
  openReadonly(key: string): Mountable | undefined {
    const known = this.#shared.get(key);
    return known && this.#use(key, known, "ro");
  }

  /** `mounts` under the name `key`. */
  open(key: string, mounts: () => readonly Mount[]): Mountable {
    const known = this.#shared.get(key);
    if (known) return this.#use(key, known, "rw");
    const list = mounts();
    if (!list.some((mount) => mount.options.some((option) => option.startsWith("upperdir=")))) {
      const release = async (): Promise<void> => undefined;
      return { mounts: list, release, [Symbol.asyncDispose]: release };
    }
    const path = join(this.#root, key);
    mkdirSync(path, { recursive: true, mode: 0o700 });
    mountAll(list, path);
    const shared: Shared = { path, users: 0 };
    this.#shared.set(key, shared);
    return this.#use(key, shared, "rw");
  }

  #use(key: string, shared: Shared, access: "ro" | "rw"): Mountable {
    shared.users++;
    let held = true;
    const release = async (): Promise<void> => {
      if (!held) return;
      held = false;
      if (--shared.users > 0) return;
      this.#shared.delete(key);
      await unmountAsync(shared.path);
      if (!this.#shared.has(key)) rmdirSync(shared.path);
    };
    const mounts: Mount[] = [{ type: "bind", source: shared.path, options: [access, "rbind"] }];
    return { mounts, release, [Symbol.asyncDispose]: release };
  }
}
