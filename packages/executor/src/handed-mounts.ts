import { closeSync, statSync } from "node:fs";
import { dirname } from "node:path";
import type { Mount } from "@kiln/sys";
import { copyMounts } from "./libc.ts";
import type { HandedMount } from "./protocol.ts";

/** Mounts on their way to the zygote; dispose of them when it has answered. */
export class HandedMounts implements Disposable {
  readonly #copies: number[] = [];

  /** The same mounts, with copies of those bind mounts whose source is a mount of this process. */
  add(mounts: readonly Mount[]): HandedMount[] {
    return mounts.map((mount) => {
      if ((mount.type !== "bind" && mount.type !== "rbind") || !isMountPoint(mount.source)) return mount;
      const copyFd = copyMounts(mount.source);
      this.#copies.push(copyFd);
      return { ...mount, copyFd };
    });
  }

  [Symbol.dispose](): void {
    for (const fd of this.#copies.splice(0)) closeSync(fd);
  }
}

/** True for the root of a mounted file system. A directory bound to another of its own file system isn't seen. */
function isMountPoint(path: string): boolean {
  const stat = statSync(path, { throwIfNoEntry: false });
  return stat !== undefined && stat.dev !== statSync(dirname(path)).dev;
}
