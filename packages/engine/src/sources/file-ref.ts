import { createHash } from "node:crypto";
import { close, constants, write } from "node:fs";
import { promisify } from "node:util";
import type { Digest } from "@kiln/oci";
import type { ImmutableRef, MutableRef, RefContext, RefManager, RefOptions } from "@kiln/store";
import { chmodFd, chownFd, localMount, RootedFs, utimesFd } from "@kiln/sys";
import type { OpContext } from "../op-context.ts";

const writeFd = promisify(write);
const closeFd = promisify(close);
const DEFAULT_PERM = 0o600;

/** What travels to the store with work on behalf of an op. */
export function refContext(ctx: OpContext): RefContext {
  return { signal: ctx.signal, session: ctx.sessions };
}

/** A single file to be made. */
export interface NewFile {
  /** One safe path segment. */
  readonly name: string;
  /** Permission bits; 0 means 0600. */
  readonly perm: number;
  readonly uid: number;
  readonly gid: number;
  /** Milliseconds since the epoch. */
  readonly mtimeMs: number;
}

/**
 * Makes a tree and hands it over when `fill` has filled the directory given to it; nothing is left behind
 * when that fails.
 */
export async function createTree<T>(
  refs: RefManager,
  opts: RefOptions,
  ctx: OpContext,
  fill: (dir: string) => Promise<T>,
): Promise<{ readonly ref: ImmutableRef; readonly value: T }> {
  const context = refContext(ctx);
  const mutable = await refs.newMutable(undefined, { ...opts, ctx: context });
  try {
    const value = await inMutable(mutable, context, fill);
    return { ref: await mutable.commit(), value };
  } catch (error) {
    // kept records are for trees that were finished
    mutable.setCachePolicy("default");
    await mutable.release();
    throw error;
  }
}

/** Shows a writable tree in a directory while `work` runs. */
export async function inMutable<T>(
  mutable: MutableRef,
  context: RefContext,
  work: (dir: string) => Promise<T>,
): Promise<T> {
  await using mountable = await mutable.mount(false, context);
  using local = localMount(mountable.mounts);
  return await work(local.path);
}

/** Shows a tree for reading while `work` runs. */
export async function inTree<T>(
  ref: ImmutableRef,
  context: RefContext,
  work: (dir: string) => Promise<T>,
): Promise<T> {
  await using mountable = await ref.mount(true, context);
  using local = localMount(mountable.mounts, { forReading: true });
  return await work(local.path);
}

/** Writes one file into an empty tree. @returns sha256 and size of what was written. */
export async function writeFileInto(
  dir: string,
  file: NewFile,
  source: AsyncIterable<Uint8Array>,
): Promise<{ readonly digest: Digest; readonly sizeBytes: number }> {
  using root = new RootedFs(dir);
  const { O_WRONLY, O_CREAT, O_TRUNC, O_NOFOLLOW } = constants;
  const fd = root.open(file.name, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW, DEFAULT_PERM);
  try {
    const hash = createHash("sha256");
    let sizeBytes = 0;
    for await (const chunk of source) {
      hash.update(chunk);
      for (let at = 0; at < chunk.length; ) {
        at += (await writeFd(fd, chunk, at, chunk.length - at)).bytesWritten;
      }
      sizeBytes += chunk.length;
    }
    if (file.uid !== 0 || file.gid !== 0) chownFd(fd, file.uid, file.gid);
    chmodFd(fd, (file.perm === 0 ? DEFAULT_PERM : file.perm) & 0o777);
    const mtimeNs = BigInt(Math.trunc(file.mtimeMs)) * 1_000_000n;
    utimesFd(fd, mtimeNs, mtimeNs);
    return { digest: `sha256:${hash.digest("hex")}`, sizeBytes };
  } finally {
    await closeFd(fd);
  }
}
