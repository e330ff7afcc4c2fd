/** What a build would be sent of a directory, as one hash. */
import { createHash } from "node:crypto";
import { isGoDir, isGoRegular, isGoSymlink, walkFiltered } from "@kiln/session/fsutil";
import { comparePaths } from "@kiln/sys";
import type { HashedTree } from "./file-view.ts";

/** Which part of a tree counts. */
export interface TreeFilter {
  readonly include: readonly string[];
  readonly exclude: readonly string[];
  readonly followPaths: readonly string[];
}

const OWNER_EXECUTES = 0o100;

/**
 * The files that the filter leaves, each with what counts of it: type, contents, whether it may be executed, and
 * where a link leads. Times, owners, other permissions and directories don't count, as in git; hard links are
 * files of their own.
 */
export function filesOf(tree: HashedTree, filter: TreeFilter): Map<string, string> {
  const files = new Map<string, string>();
  for (const stat of walkFiltered(tree, filter)) {
    const { path, mode, linkname } = stat;
    if (isGoDir(mode)) continue;
    if (isGoSymlink(mode)) files.set(path, `link ${linkname}`);
    else if (isGoRegular(mode)) {
      const kind = (mode & OWNER_EXECUTES) === 0 ? "file" : "program";
      files.set(path, `${kind} ${tree.contentHash(path)}`);
    } else files.set(path, `special ${mode}`);
  }
  return files;
}

/** One hash of such a list, in hexadecimal. */
export function hashOfFiles(files: ReadonlyMap<string, string>): string {
  const hash = createHash("sha256");
  for (const path of [...files.keys()].sort(comparePaths))
    hash.update(JSON.stringify([path, files.get(path)])).update("\n");
  return hash.digest("hex");
}
