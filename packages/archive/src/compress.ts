import { availableParallelism } from "node:os";
import { promisify } from "node:util";
import { constants, crc32, createZstdCompress, deflateRaw } from "node:zlib";
import { BuildError } from "@kiln/base";
import { type EstargzResult, estargz } from "./estargz.ts";
import type { Chunks, CompressionKind } from "./types.ts";

/** How to compress; `level` absent means the kind's default (gzip and eStargz 6, zstd 3). */
export interface CompressOptions {
  readonly kind: CompressionKind;
  readonly level?: number;
  /** Told before the last bytes come, when `kind` is `estargz`. */
  readonly onEstargz?: (result: EstargzResult) => void;
}

const deflate = promisify(
  deflateRaw as (
    data: Uint8Array,
    opts: import("node:zlib").ZlibOptions,
    done: (error: Error | null, result: Buffer) => void,
  ) => void,
);

/** Uncompressed bytes per block of gzip; part of the format of our blobs: their digests depend on it. */
const BLOCK_BYTES = 1 << 20;
const WINDOW_BYTES = 32 << 10;
const ZSTD_CHUNK_BYTES = 1 << 18;

/**
 * Throws for a level that a compression doesn't have.
 *
 * @throws `invalid_argument`
 */
export function checkCompression(opts: CompressOptions): void {
  const [least, most] = opts.kind === "zstd" ? [0, 22] : [-1, 9];
  if (opts.level !== undefined && !(opts.level >= least && opts.level <= most)) {
    throw new BuildError(
      "invalid_argument",
      `compression level ${opts.level} of ${opts.kind} is out of range`,
    );
  }
}

/**
 * Compresses a stream. The result depends on the bytes, kind and level only, not on how the source is cut or
 * on the number of threads. The blocks of gzip are deflated in parallel on Node's thread pool and make one
 * ordinary member.
 */
export function compress(source: Chunks, opts: CompressOptions): AsyncIterable<Uint8Array> {
  checkCompression(opts);
  switch (opts.kind) {
    case "gzip":
      return gzip(source, opts.level ?? 6);
    case "zstd":
      return zstd(source, zstdLevel(opts.level));
    case "estargz":
      return estargz(source, opts.level ?? 6, opts.onEstargz ?? (() => undefined));
    case "uncompressed":
      return plain(source);
  }
}

/**
 * BuildKit's compressor knows four levels, to which it maps the official ones; so does this, lest a level that
 * is quick there takes minutes here.
 */
function zstdLevel(level: number | undefined): number {
  if (level === undefined || level === 0) return 3;
  if (level < 3) return 1;
  if (level < 6) return 3;
  return level < 10 ? 7 : 11;
}

async function* plain(source: Chunks): AsyncGenerator<Uint8Array> {
  yield* source;
}

/** Cuts a stream into blocks of the same size, the last one shorter. */
async function* blocks(source: Chunks): AsyncGenerator<Buffer> {
  let block = Buffer.allocUnsafe(BLOCK_BYTES);
  let filled = 0;
  for await (const chunk of source) {
    for (let at = 0; at < chunk.length; ) {
      const take = Math.min(BLOCK_BYTES - filled, chunk.length - at);
      block.set(chunk.subarray(at, at + take), filled);
      filled += take;
      at += take;
      if (filled < BLOCK_BYTES) continue;
      yield block;
      block = Buffer.allocUnsafe(BLOCK_BYTES);
      filled = 0;
    }
  }
  if (filled > 0) yield block.subarray(0, filled);
}

/** OS 255 (unknown) and no time, as Go writes it; byte 8 says how hard was tried. */
function gzipHeader(level: number): Buffer {
  return Buffer.from([0x1f, 0x8b, 8, 0, 0, 0, 0, 0, level === 9 ? 2 : level === 1 ? 4 : 0, 255]);
}

async function* gzip(source: Chunks, level: number): AsyncGenerator<Uint8Array> {
  yield gzipHeader(level);
  const inFlight: Promise<Buffer>[] = [];
  const width = availableParallelism() + 1;
  let window: Buffer | undefined;
  let crc = 0;
  let size = 0;
  try {
    for await (const block of blocks(source)) {
      crc = crc32(block, crc);
      size += block.length;
      inFlight.push(deflateBlock(block, level, window));
      window = block.subarray(Math.max(0, block.length - WINDOW_BYTES));
      if (inFlight.length >= width) yield await (inFlight.shift() as Promise<Buffer>);
    }
    while (inFlight.length > 0) yield await (inFlight.shift() as Promise<Buffer>);
  } finally {
    await Promise.allSettled(inFlight);
  }
  const end = Buffer.alloc(10);
  // An empty last block, then what gzip ends with.
  end[0] = 3;
  end.writeUInt32LE(crc, 2);
  end.writeUInt32LE(size % 2 ** 32, 6);
  yield end;
}

/** Ends on a byte boundary without ending the member, so that blocks can be put behind each other. */
async function deflateBlock(block: Buffer, level: number, window: Buffer | undefined): Promise<Buffer> {
  const promise = deflate(block, {
    level,
    finishFlush: constants.Z_SYNC_FLUSH,
    ...(window && level !== 0 ? { dictionary: window } : {}),
  });
  promise.catch(() => undefined);
  return promise;
}

async function* zstd(source: Chunks, level: number): AsyncGenerator<Uint8Array> {
  const stream = createZstdCompress({
    chunkSize: ZSTD_CHUNK_BYTES,
    params: {
      [constants.ZSTD_c_compressionLevel]: level,
      [constants.ZSTD_c_checksumFlag]: 1,
    },
  });
  const output: Buffer[] = [];
  stream.on("data", (chunk: Buffer) => output.push(chunk));
  const ended = new Promise<void>((resolve, reject) => {
    stream.once("end", resolve);
    stream.once("error", reject);
  });
  ended.catch(() => undefined);
  try {
    for await (const block of blocks(source)) {
      await new Promise<void>((resolve, reject) => {
        stream.write(block, (error) => (error ? reject(error) : resolve()));
      });
      yield* output.splice(0);
    }
    stream.end();
    await ended;
    yield* output.splice(0);
  } finally {
    stream.destroy();
  }
}
