import { createHash } from "node:crypto";
import { closeSync, createReadStream, fsyncSync, openSync, rmSync, writeSync } from "node:fs";
import { BuildError } from "@kiln/base";
import { annotationKeys, type Digest } from "@kiln/oci";
import { applyLayer } from "./apply.ts";
import { type CompressOptions, compress } from "./compress.ts";
import { decompress } from "./decompress.ts";
import { diffLayer } from "./diff.ts";
import type { EstargzResult } from "./estargz.ts";
import { type GrowingFileMemory, readGrowing } from "./growing-file.ts";
import { rewriteTimestamps } from "./rewrite.ts";
import type { ApplyOptions, ApplyResult, Chunks, DiffOptions, LayerBlob } from "./types.ts";

const READ_BYTES = 1 << 18;

/** Options without what can't be sent to a thread. */
type Plain<T> = Omit<T, "signal">;

/** Work on one layer that a thread can do. */
export type LayerJob =
  | {
      readonly kind: "apply";
      readonly file: string;
      readonly dir: string;
      readonly opts: Plain<ApplyOptions>;
      /** Refuse (after unpacking) a layer with another digest; `layer` is its name in the message. */
      readonly diffId?: Digest;
      readonly layer?: string;
      /** Where the file is still being written, before it becomes `file`. */
      readonly growing?: { readonly path: string; readonly memory: GrowingFileMemory };
    }
  | {
      readonly kind: "diff";
      readonly opts: Plain<DiffOptions>;
      readonly output: string;
      readonly compression: CompressOptions;
    }
  | {
      readonly kind: "convert";
      readonly file: string;
      readonly output: string;
      readonly compression: CompressOptions;
      /** Seconds; later times in the layer become this. */
      readonly sourceDateEpoch?: number;
    }
  | { readonly kind: "hash"; readonly file: string; readonly decompress: boolean };

/** Digest and length of a file, or of what it holds compressed. */
export interface HashResult {
  readonly digest: Digest;
  readonly sizeBytes: number;
}

/** What each kind of job answers. */
export interface LayerJobResults {
  readonly apply: ApplyResult;
  readonly diff: LayerBlob;
  readonly convert: LayerBlob;
  readonly hash: HashResult;
}

/** What a job may be told from outside. */
export interface LayerJobContext {
  readonly signal: AbortSignal;
  /** Bytes of the input read, or of the layer written, so far. */
  readonly onProgress?: (bytes: number) => void;
}

/** Does one job in this thread. A file that it fails to finish is removed. */
export async function runLayerJob(
  job: LayerJob,
  ctx: LayerJobContext,
): Promise<ApplyResult | LayerBlob | HashResult> {
  try {
    return await doJob(job, ctx);
  } catch (error) {
    throw isFullDisk(error) ? fullDisk(job, error) : error;
  }
}

function isFullDisk(error: unknown): boolean {
  return error instanceof Error && "code" in error && (error.code === "ENOSPC" || error.code === "EDQUOT");
}

/** Node's own message doesn't say what was being written. */
function fullDisk(job: LayerJob, cause: unknown): BuildError {
  const what =
    job.kind === "apply" ? `failed to extract layer ${job.layer ?? job.file}` : "failed to write layer";
  const where = job.kind === "apply" ? job.dir : job.kind === "hash" ? job.file : job.output;
  return new BuildError("resource_exhausted", `${what}: write ${where}: no space left on device`, { cause });
}

async function doJob(job: LayerJob, ctx: LayerJobContext): Promise<ApplyResult | LayerBlob | HashResult> {
  switch (job.kind) {
    case "apply":
      return await apply(job, ctx);
    case "diff":
      return await writeBlob(observed(diffLayer({ ...job.opts, signal: ctx.signal }), ctx), job);
    case "convert":
      return await convert(job, ctx);
    case "hash":
      return await hash(job, ctx);
  }
}

async function apply(job: LayerJob & { kind: "apply" }, ctx: LayerJobContext): Promise<ApplyResult> {
  const source = job.growing ? readGrowing(job.growing, job.file, ctx.signal) : readFile(job.file);
  const result = await applyLayer(observed(source, ctx), job.dir, {
    ...job.opts,
    signal: ctx.signal,
  });
  if (job.diffId !== undefined && job.diffId !== result.diffId) {
    throw new BuildError(
      "data_loss",
      `failed to verify layer ${job.layer ?? job.file}: expected diffID ${job.diffId}, got ${result.diffId}`,
    );
  }
  return result;
}

async function convert(job: LayerJob & { kind: "convert" }, ctx: LayerJobContext): Promise<LayerBlob> {
  const tar = decompress(observed(readFile(job.file), ctx), { signal: ctx.signal });
  const epoch = job.sourceDateEpoch;
  return await writeBlob(epoch === undefined ? tar : rewriteTimestamps(tar, epoch), job);
}

async function hash(job: LayerJob & { kind: "hash" }, ctx: LayerJobContext): Promise<HashResult> {
  const sum = createHash("sha256");
  let sizeBytes = 0;
  const source = observed(readFile(job.file), ctx);
  for await (const chunk of job.decompress ? decompress(source, { signal: ctx.signal }) : source) {
    sum.update(chunk);
    sizeBytes += chunk.length;
  }
  return { digest: `sha256:${sum.digest("hex")}`, sizeBytes };
}

function readFile(path: string): AsyncIterable<Uint8Array> {
  return createReadStream(path, { highWaterMark: READ_BYTES }) as AsyncIterable<Buffer>;
}

async function* observed(source: Chunks, ctx: LayerJobContext): AsyncGenerator<Uint8Array> {
  let bytes = 0;
  for await (const chunk of source) {
    ctx.signal.throwIfAborted();
    yield chunk;
    bytes += chunk.length;
    ctx.onProgress?.(bytes);
    await new Promise(setImmediate);
  }
}

/** One pass: digest of the tar, compression, digest of the blob, file; synced at the end. */
async function writeBlob(
  tar: AsyncIterable<Uint8Array>,
  to: { readonly output: string; readonly compression: CompressOptions },
): Promise<LayerBlob> {
  const diff = createHash("sha256");
  // Without compression both digests are the same.
  const blob = to.compression.kind === "uncompressed" ? diff : createHash("sha256");
  let tarBytes = 0;
  let sizeBytes = 0;
  async function* tapped(): AsyncGenerator<Uint8Array> {
    for await (const chunk of tar) {
      diff.update(chunk);
      tarBytes += chunk.length;
      yield chunk;
    }
  }
  let stargz: EstargzResult | undefined;
  const compressed = compress(tapped(), {
    ...to.compression,
    onEstargz: (result) => {
      stargz = result;
    },
  });
  const fd = openSync(to.output, "wx", 0o600);
  try {
    for await (const chunk of compressed) {
      if (blob !== diff) blob.update(chunk);
      for (let at = 0; at < chunk.length; ) at += writeSync(fd, chunk, at);
      sizeBytes += chunk.length;
    }
    fsyncSync(fd);
  } catch (error) {
    rmSync(to.output, { force: true });
    throw error;
  } finally {
    closeSync(fd);
  }
  if (stargz) return estargzBlob(`sha256:${blob.digest("hex")}`, sizeBytes, stargz);
  const diffId: Digest = `sha256:${diff.digest("hex")}`;
  return { digest: blob === diff ? diffId : `sha256:${blob.digest("hex")}`, sizeBytes, diffId, tarBytes };
}

function estargzBlob(digest: Digest, sizeBytes: number, result: EstargzResult): LayerBlob {
  const { diffId, tarBytes, tocDigest } = result;
  const annotations = {
    [annotationKeys.stargzTocDigest]: tocDigest,
    [annotationKeys.stargzUncompressedSize]: String(tarBytes),
    [annotationKeys.uncompressed]: diffId,
  };
  return { digest, sizeBytes, diffId, tarBytes, annotations };
}
