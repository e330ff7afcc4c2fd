import { FileSync } from "@kiln/api/filesync";
import { BuildError } from "@kiln/base";
import { pathOf } from "@kiln/grpc/client";
import type { CallContext, Router } from "@kiln/grpc/server";
import {
  type FileTree,
  type FilterOptions,
  packetCodec,
  sendTree,
  sourceOfDir,
  sourceOfTree,
  type TreeSource,
} from "../fsutil/index.ts";
import { listFromLines, sessionHeaders } from "../headers.ts";
import type { Attachable } from "./attachable.ts";

/** A directory that the daemon may read. */
export interface SharedDir {
  /** Path on this machine, a tree of one's own, or anything that gives a source for the daemon's filter. */
  readonly dir: string | FileTree | ((filter: FilterOptions) => TreeSource);
  /** Only contents matter, not extended attributes or several names of a file; see `DiskTree`. */
  readonly plain?: boolean;
  /** May change what is sent; {@link asRoot} is what build contexts want. */
  readonly map?: FilterOptions["map"];
}

/** Makes all entries belong to root, as every client does for build contexts. */
export const asRoot: NonNullable<FilterOptions["map"]> = (_path, stat) => {
  stat.uid = 0;
  stat.gid = 0;
  return "keep";
};

/** Bytes that a directory's transfer has sent. */
export type SyncProgress = (name: string, sizeBytes: number, done: boolean) => void;

/** Serves directories by name to the daemon. */
export class FileSyncProvider implements Attachable {
  readonly #lookup: (name: string) => SharedDir | undefined;
  readonly #onProgress: SyncProgress | undefined;

  constructor(
    dirs: ReadonlyMap<string, SharedDir> | ((name: string) => SharedDir | undefined),
    opts: { readonly onProgress?: SyncProgress } = {},
  ) {
    this.#lookup = typeof dirs === "function" ? dirs : (name) => dirs.get(name);
    this.#onProgress = opts.onProgress;
  }

  addTo(router: Router): void {
    router.add(FileSync, {});
    router.addRaw(pathOf(FileSync.method.diffCopy), async (call, ctx) => {
      const name = listOf(ctx, sessionHeaders.dirName)[0] ?? "";
      await sendTree(call.as(packetCodec), this.#source(name, ctx), {
        signal: ctx.signal,
        onProgress: (sizeBytes, done) => this.#onProgress?.(name, sizeBytes, done),
      });
    });
  }

  #source(name: string, ctx: CallContext): TreeSource {
    const shared = this.#lookup(name);
    if (!shared) throw new BuildError("not_found", `no access allowed to dir ${JSON.stringify(name)}`);
    const filter: FilterOptions = {
      include: listOf(ctx, sessionHeaders.includePatterns),
      exclude: listOf(ctx, sessionHeaders.excludePatterns),
      followPaths: listOf(ctx, sessionHeaders.followPaths),
      map: shared.map,
    };
    if (typeof shared.dir === "function") return shared.dir(filter);
    return typeof shared.dir === "string"
      ? sourceOfDir(shared.dir, filter, { plain: shared.plain === true })
      : sourceOfTree(shared.dir, filter);
  }
}

function listOf(ctx: CallContext, key: string): string[] {
  return listFromLines(ctx.metadata.getAll(key), ctx.metadata.get(`${key}-encoded`));
}
