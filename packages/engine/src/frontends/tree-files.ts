import { lstatSync, readdirSync } from "node:fs";
import { posix } from "node:path";
import { BuildError, wrapError } from "@kiln/base";
import { matchPath } from "@kiln/patterns";
import { type Stat, statEntry } from "@kiln/session/fsutil";
import { decodePath, fsPath, lstat, rootPath } from "@kiln/sys";
import { pathError } from "../ops/file/path-error.ts";
import { readRegularFile } from "../regular-file.ts";

/** Largest file that one answer may hold: gRPC's bound on messages. */
const MAX_READ_BYTES = 16 << 20;
/** Entries of one directory listing. */
const MAX_ENTRIES = 1_000_000;

/** Part of a file, in bytes. */
export interface FileRange {
  readonly offset: number;
  readonly length: number;
}

/**
 * Reads a file of a mounted tree. Never blocks on a FIFO or a device in its place.
 *
 * @throws BuildError in Go's words, with the path that was asked for.
 */
export function readTreeFile(root: string, path: string, range?: FileRange): Uint8Array {
  if (range !== undefined && (range.offset < 0 || range.length < 0)) {
    throw new BuildError("invalid_argument", `invalid range for ${path}`);
  }
  const maxBytes = range === undefined ? MAX_READ_BYTES : Number.MAX_SAFE_INTEGER;
  const data = withoutLoops(() => readRegularFile(root, path, maxBytes, range));
  if (data.length > MAX_READ_BYTES + 1) {
    throw new BuildError(
      "resource_exhausted",
      `${path} exceeds maximum allowed size of ${MAX_READ_BYTES} bytes`,
    );
  }
  return data;
}

/** Entries of a directory of a mounted tree, in order; `pattern` keeps those whose names match. */
export function readTreeDir(root: string, path: string, pattern: string): Stat[] {
  const dir = resolved(root, path);
  let names: string[];
  try {
    names = readdirSync(fsPath(dir), "buffer").map(decodePath).sort();
  } catch (error) {
    throw pathError(error, [root]);
  }
  if (names.length > MAX_ENTRIES) {
    throw new BuildError("resource_exhausted", `${path} has more than ${MAX_ENTRIES} entries`);
  }
  const wanted = pattern === "" ? names : names.filter((name) => matches(pattern, name));
  return wanted.map((name) => statEntry(`${dir}/${name}`, name, lstat(`${dir}/${name}`)));
}

function matches(pattern: string, name: string): boolean {
  try {
    return matchPath(posix.normalize(pattern), name);
  } catch (error) {
    throw wrapError(error, `invalid includepatterns: [${pattern}]`);
  }
}

/** Resolves a path inside the tree. @throws BuildError for a circle of links, in BuildKit's words. */
function resolved(root: string, path: string): string {
  return withoutLoops(() => rootPath(root, path));
}

function withoutLoops<T>(resolve: () => T): T {
  try {
    return resolve();
  } catch (error) {
    if (!(error instanceof Error && "code" in error && error.code === "ELOOP")) throw error;
    throw new BuildError("invalid_argument", "too many links", { cause: error });
  }
}

/** The entry at a path of a mounted tree; links are followed inside the tree. */
export function statTreeFile(root: string, path: string): Stat {
  const file = resolved(root, path);
  if (lstatSync(fsPath(file), { throwIfNoEntry: false }) === undefined) {
    throw new BuildError("not_found", `lstat ${path}: no such file or directory`);
  }
  return statEntry(file, posix.basename(file), lstat(file));
}
