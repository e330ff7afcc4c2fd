import { createReadStream, lstatSync } from "node:fs";
import { applyLayer, decompress, TarReader } from "@kiln/archive";
import { isBuildError } from "@kiln/base";
import { fsPath, rootPath } from "@kiln/sys";
import type { PlainCopy } from "./file-action.ts";
import { makeDirs } from "./rooted-dirs.ts";

/** Bytes looked at to tell whether a file is an archive. */
const PROBE_BYTES = 1 << 20;

/**
 * Unpacks `src` into the directory `dest` when it is a tar archive, plain or compressed.
 *
 * @returns false (and nothing is done) for anything else, which is then copied like any file.
 */
export async function unpackArchive(action: PlainCopy, src: string, dest: string): Promise<boolean> {
  const file = rootPath(action.source, src);
  if (!(await isArchive(file))) return false;
  const target = rootPath(action.root, dest);
  makeDirs(target, { mode: 0o755, owner: action.owner, timeNs: action.timeNs });
  const { owner } = action;
  await applyLayer(createReadStream(fsPath(file)), target, {
    whiteouts: "keep",
    ...(owner === undefined ? {} : { owner }),
  });
  return true;
}

/** True for a regular file that begins with an entry of a tar archive. */
async function isArchive(file: string): Promise<boolean> {
  const stat = lstatSync(fsPath(file), { throwIfNoEntry: false });
  if (stat === undefined || !stat.isFile()) return false;
  const head = createReadStream(fsPath(file), { end: PROBE_BYTES });
  try {
    let found = false;
    const nothing = (): void => undefined;
    const entry = (): void => {
      found = true;
    };
    const reader = new TarReader({ entry, data: nothing, hole: nothing, end: nothing });
    for await (const chunk of decompress(head)) {
      reader.write(chunk);
      if (found) return true;
    }
    return false;
  } catch (error) {
    // a program for the compression is missing: say so rather than copy the archive as it is
    if (isBuildError(error, "unimplemented")) throw error;
    return false;
  } finally {
    head.destroy();
  }
}
