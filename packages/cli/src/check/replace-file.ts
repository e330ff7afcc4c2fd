import { randomBytes } from "node:crypto";
import {
  accessSync,
  chmodSync,
  chownSync,
  closeSync,
  constants,
  fstatSync,
  fsyncSync,
  lstatSync,
  openSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  type Stats,
  writeSync,
} from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import { BuildError, codeOfNodeError, errorMessage } from "@kiln/base";

/** A file that is read to be replaced. */
export interface OpenedFile {
  readonly path: string;
  readonly data: Uint8Array;
  readonly stats: Stats;
}

/** Largest file that is read. */
const MAX_BYTES = 16 << 20;

/** Reads a regular file, through symbolic links; never waits for a pipe. @throws BuildError that names it. */
export function readRegularFile(path: string): Uint8Array {
  try {
    const fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
    try {
      const stats = fstatSync(fd);
      if (!stats.isFile()) throw new BuildError("invalid_argument", `${path} is no regular file`);
      if (stats.size > MAX_BYTES) {
        throw new BuildError("resource_exhausted", `${path} is larger than ${MAX_BYTES} bytes`);
      }
      return readFileSync(fd);
    } finally {
      closeSync(fd);
    }
  } catch (error) {
    if (error instanceof BuildError) throw error;
    throw new BuildError(codeOfNodeError(error), `failed to read ${path}: ${errorMessage(error)}`, {
      cause: error,
    });
  }
}

/**
 * Reads a file that is going to be replaced.
 *
 * @throws BuildError for what can't be replaced without a surprise: symbolic links, files with several names, files
 *   that may not be written, and what is no file.
 */
export function openToReplace(path: string): OpenedFile {
  const refuse = (why: string, hint?: string): never => {
    throw new BuildError(
      "failed_precondition",
      `${path} isn't fixed: ${why}`,
      hint === undefined ? {} : { hint },
    );
  };
  const stats = statOf(path);
  if (stats.isSymbolicLink()) {
    refuse("it is a symbolic link", `name the file itself: ${resolve(dirname(path), readlinkSync(path))}`);
  }
  if (!stats.isFile()) refuse("it is no regular file");
  if (stats.nlink > 1) refuse(`it has ${stats.nlink} names (hard links), which a new file would part`);
  try {
    accessSync(path, constants.W_OK);
  } catch (error) {
    refuse(errorMessage(error));
  }
  const data = readRegularFile(path);
  return { path, data, stats };
}

function statOf(path: string): Stats {
  try {
    return lstatSync(path);
  } catch (error) {
    throw new BuildError(codeOfNodeError(error), `failed to read ${path}: ${errorMessage(error)}`, {
      cause: error,
    });
  }
}

/**
 * Puts new content in a file's place in one step: whoever looks sees the old or the new file. Mode and owner stay.
 *
 * @throws BuildError `aborted` when the file has changed since it was read; nothing is changed then.
 */
export function replaceFile({ path, stats }: OpenedFile, data: Uint8Array): void {
  const temporary = join(dirname(path), `.${basename(path)}.${randomBytes(6).toString("hex")}`);
  const fd = openSync(temporary, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL, 0o600);
  try {
    try {
      for (let at = 0; at < data.length; ) at += writeSync(fd, data, at);
      fsyncSync(fd);
    } finally {
      closeSync(fd);
    }
    const own = lstatSync(temporary);
    if (own.uid !== stats.uid || own.gid !== stats.gid) chownSync(temporary, stats.uid, stats.gid);
    chmodSync(temporary, stats.mode & 0o7777);
    const now = statOf(path);
    if (now.ino !== stats.ino || now.mtimeMs !== stats.mtimeMs || now.size !== stats.size) {
      throw new BuildError("aborted", `${path} isn't fixed: it has changed meanwhile`);
    }
    renameSync(temporary, path);
  } catch (error) {
    rmSync(temporary, { force: true });
    if (error instanceof BuildError) throw error;
    throw new BuildError(codeOfNodeError(error), `failed to write ${path}: ${errorMessage(error)}`, {
      cause: error,
    });
  }
}
