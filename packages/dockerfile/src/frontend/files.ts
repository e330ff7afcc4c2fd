import { isBuildError } from "@kiln/base";
import { Problem } from "../base/problem.ts";
import type { FrontendRef } from "./backend.ts";

/** Largest Dockerfile or ignore file: one message of the gateway. */
const MAX_FILE_BYTES = 16 << 20;

/** A file that's too large to be read. */
export class FileTooLarge extends Problem {}

/** Reads a file of limited size. Throws what the ref throws, or {@link FileTooLarge}. */
export async function readSmallFile(ref: FrontendRef, path: string): Promise<Uint8Array> {
  const tooLarge = (): FileTooLarge =>
    new FileTooLarge(`${path} exceeds maximum allowed size of ${MAX_FILE_BYTES} bytes`);
  let size = 0;
  try {
    size = (await ref.statFile(path)).size;
  } catch (error) {
    // The read says better what is wrong.
    if (!isBuildError(error)) throw error;
  }
  if (size > MAX_FILE_BYTES) throw tooLarge();
  const bytes = await ref.readFile(path, { length: MAX_FILE_BYTES + 1 });
  if (bytes.length > MAX_FILE_BYTES) throw tooLarge();
  return bytes;
}

/** {@link readSmallFile}; undefined when the file can't be read. One that's too large still throws. */
export async function readOptionalFile(ref: FrontendRef, path: string): Promise<Uint8Array | undefined> {
  try {
    return await readSmallFile(ref, path);
  } catch (error) {
    if (isBuildError(error) && error.code !== "canceled") return undefined;
    throw error;
  }
}
