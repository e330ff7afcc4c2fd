import { availableParallelism } from "node:os";
import { promisify } from "node:util";
import { constants, crc32, deflateRaw, type ZlibOptions, type ZstdOptions, zstdCompress } from "node:zlib";
import { BuildError } from "@kiln/base";
import { type EstargzResult, estargz } from "./estargz.ts";
import { isIncompressible } from "./incompressible.ts";
import type { Chunks, CompressionKind } from "./types.ts";

/** How to compress; `level` absent means the kind's default (gzip and eStargz 6, zstd 3). */
export interface CompressOptions {
  readonly kind: CompressionKind;
  readonly level?: number;
  /** Told before the last bytes come, when `kind` is `estargz`. */
  readonly onEstargz?: (result: EstargzResult) => void;
}

type Compressor<Options> = (data: Uint8Array, opts: Options) => Promise<Buffer>;

const deflate = promisify(
  deflateRaw as (
    data: Uint8Array,
    opts: ZlibOptions,
    done: (error: Error | null, result: Buffer) => void,
  ) => void,
) as Compressor<ZlibOptions>;
const compressZstd = promisify(
  zstdCompress as (
    data: Uint8Array,
    opts: ZstdOptions,
    done: (error: Error | null, result: Buffer) => void,
  ) => void,
) as Compressor<ZstdOptions>;

/** Uncompressed bytes per block of gzip; part of the format of our blobs: their digests depend on it. */
const BLOCK_BYTES = 1 << 20;
/** Uncompressed bytes per frame of zstd; part of the format, too. */
const FRAME_BYTES = 4 << 20;
const WINDOW_BYTES = 32 << 10;
/** What a thread fills before the event loop is asked for more room. */
const OUTPUT_BYTES = 1 << 19;
/** Longest stored block of deflate. */
const MAX_STORED_BYTES = 0xffff;
const STORED_HEADER_BYTES = 5;
/** From this level on, smaller matters more than faster. */
const THOROUGH_LEVEL = 9;

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
 * on the number of threads; what is yielded is good until the next is asked for. Blocks are compressed in parallel on Node's thread pool: those of gzip make one
 * ordinary member, those of zstd are frames.
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

/** Buffers of one size that are used again, so that a long stream doesn't fill the memory with them. */
class BlockPool {
  readonly #sizeBytes: number;
  readonly #free: Buffer[] = [];

  constructor(sizeBytes: number) {
    this.#sizeBytes = sizeBytes;
  }

  take(): Buffer {
    return this.#free.pop() ?? Buffer.allocUnsafeSlow(this.#sizeBytes);
  }

  give(block: Buffer): void {
    this.#free.push(block);
  }
}

/** Cuts a stream into blocks of the same size, the last one shorter. Who gets a block gives its buffer back. */
async function* blocks(
  source: Chunks,
  sizeBytes: number,
  pool: BlockPool,
): AsyncGenerator<{ readonly bytes: Buffer; readonly buffer: Buffer }> {
  let buffer: Buffer | undefined;
  let filled = 0;
  for await (const chunk of source) {
    for (let at = 0; at < chunk.length; ) {
      buffer ??= pool.take();
      const take = Math.min(sizeBytes - filled, chunk.length - at);
      buffer.set(take === chunk.length ? chunk : chunk.subarray(at, at + take), filled);
      filled += take;
      at += take;
      if (filled < sizeBytes) continue;
      yield { bytes: buffer, buffer };
      buffer = undefined;
      filled = 0;
    }
  }
  if (buffer && filled > 0) yield { bytes: buffer.subarray(0, filled), buffer };
}

/** What became of a block: bytes, or pieces of the block itself. */
type Packed = Promise<Uint8Array> | readonly Uint8Array[];

/**
 * Results of tasks in the order of the tasks, of which as many run at a time as there are processors, and one
 * more. `begin` is called for one block after the other and starts its task. What is yielded is good until the
 * next is asked for.
 */
async function* inParallel(
  source: Chunks,
  sizeBytes: number,
  begin: (block: Buffer) => Packed,
): AsyncGenerator<Uint8Array> {
  const inFlight: { readonly packed: Packed; readonly buffer: Buffer }[] = [];
  const width = availableParallelism() + 1;
  const pool = new BlockPool(sizeBytes);
  async function* first(): AsyncGenerator<Uint8Array> {
    const { packed, buffer } = inFlight[0] as (typeof inFlight)[number];
    if (packed instanceof Promise) yield await packed;
    else yield* packed;
    inFlight.shift();
    pool.give(buffer);
  }
  try {
    for await (const { bytes, buffer } of blocks(source, sizeBytes, pool)) {
      const packed = begin(bytes);
      if (packed instanceof Promise) packed.catch(() => undefined);
      inFlight.push({ packed, buffer });
      if (inFlight.length >= width) yield* first();
    }
    while (inFlight.length > 0) yield* first();
  } finally {
    await Promise.allSettled(inFlight.map(({ packed }) => packed));
  }
}

/** OS 255 (unknown) and no time, as Go writes it; byte 8 says how hard was tried. */
function gzipHeader(level: number): Buffer {
  return Buffer.from([0x1f, 0x8b, 8, 0, 0, 0, 0, 0, level === 9 ? 2 : level === 1 ? 4 : 0, 255]);
}

async function* gzip(source: Chunks, level: number): AsyncGenerator<Uint8Array> {
  yield gzipHeader(level);
  let window: Buffer | undefined;
  let crc = 0;
  let size = 0;
  yield* inParallel(source, BLOCK_BYTES, (block) => {
    crc = crc32(block, crc);
    size += block.length;
    const stored = level < THOROUGH_LEVEL && isIncompressible(block);
    const done = stored ? storedBlocks(block) : deflateBlock(block, level, window);
    window = Buffer.from(block.subarray(Math.max(0, block.length - WINDOW_BYTES)));
    return done;
  });
  const end = Buffer.alloc(10);
  // An empty last block, then what gzip ends with.
  end[0] = 3;
  end.writeUInt32LE(crc, 2);
  end.writeUInt32LE(size % 2 ** 32, 6);
  yield end;
}

/** Ends on a byte boundary without ending the member, so that blocks can be put behind each other. */
function deflateBlock(block: Buffer, level: number, window: Buffer | undefined): Promise<Buffer> {
  return deflate(block, {
    level,
    chunkSize: OUTPUT_BYTES,
    finishFlush: constants.Z_SYNC_FLUSH,
    ...(window && level !== 0 ? { dictionary: window } : {}),
  });
}

/** A block as it is, in deflate's stored blocks, none of them the last. */
function storedBlocks(block: Buffer): Uint8Array[] {
  const parts: Uint8Array[] = [];
  for (let at = 0; at < block.length; at += MAX_STORED_BYTES) {
    const data = block.subarray(at, at + MAX_STORED_BYTES);
    const header = Buffer.alloc(STORED_HEADER_BYTES);
    header.writeUInt16LE(data.length, 1);
    header.writeUInt16LE(~data.length & 0xffff, 3);
    parts.push(header, data);
  }
  return parts;
}

/** Frames, one behind the other, that don't know of each other; together they are one zstd file. */
async function* zstd(source: Chunks, level: number): AsyncGenerator<Uint8Array> {
  const params = {
    [constants.ZSTD_c_compressionLevel]: level,
    [constants.ZSTD_c_checksumFlag]: 1,
  };
  let isEmpty = true;
  const frame = (block: Buffer): Promise<Buffer> => compressZstd(block, { chunkSize: OUTPUT_BYTES, params });
  yield* inParallel(source, FRAME_BYTES, (block) => {
    isEmpty = false;
    return frame(block);
  });
  if (isEmpty) yield await frame(Buffer.alloc(0));
}
