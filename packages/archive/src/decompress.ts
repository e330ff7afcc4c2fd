import { spawn } from "node:child_process";
import { once } from "node:events";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { createGunzip, createZstdDecompress, type Gunzip, type ZstdDecompress } from "node:zlib";
import { BuildError, codeOfNodeError, errorMessage } from "@kiln/base";
import { DEFAULT_LIMITS } from "./tar-reader.ts";
import type { ArchiveLimits, DetectedCompression } from "./types.ts";

const CHUNK_BYTES = 1 << 18;
/** From here on the ratio between what comes out and what went in is looked at. */
const RATIO_FROM_BYTES = 2 ** 30;
/** Longest magic that {@link detectCompression} looks for. */
export const MAGIC_BYTES = 10;

/** Compression of a file by its first bytes ({@link MAGIC_BYTES} are enough), as BuildKit and containerd detect it. */
export function detectCompression(head: Uint8Array): DetectedCompression {
  const starts = (...magic: number[]): boolean => magic.every((byte, i) => head[i] === byte);
  if (starts(0x1f, 0x8b, 0x08)) return "gzip";
  if (starts(0x28, 0xb5, 0x2f, 0xfd)) return "zstd";
  // A zstd stream may begin with a skippable frame.
  if (
    head.length >= 4 &&
    ((head[0] as number) & 0xf0) === 0x50 &&
    starts(head[0] as number, 0x2a, 0x4d, 0x18)
  ) {
    return "zstd";
  }
  if (starts(0x42, 0x5a, 0x68)) return "bzip2";
  if (starts(0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00)) return "xz";
  return "uncompressed";
}

/** How to decompress. */
export interface DecompressOptions {
  /** Absent: by magic. */
  readonly kind?: DetectedCompression;
  readonly limits?: Partial<ArchiveLimits>;
  readonly signal?: AbortSignal;
}

/**
 * Decompresses a stream; runs on Node's thread pool, so that the caller works meanwhile. `bzip2` and `xz` are
 * decompressed by the programs of those names.
 *
 * @throws `resource_exhausted` for a bomb, `invalid_argument` for broken data, `unimplemented` when the
 *   program isn't there
 */
export async function* decompress(
  source: AsyncIterable<Uint8Array>,
  opts: DecompressOptions = {},
): AsyncGenerator<Uint8Array> {
  const limits = { ...DEFAULT_LIMITS, ...opts.limits };
  const { head, rest } = await peek(source);
  const kind = opts.kind ?? detectCompression(head);
  const meter = { in: 0, out: 0 };
  const counted = count(rest, meter);
  for await (const chunk of decoded(counted, kind, opts.signal)) {
    opts.signal?.throwIfAborted();
    meter.out += chunk.length;
    if (meter.out > limits.maxTotalBytes) {
      throw new BuildError(
        "resource_exhausted",
        `decompressed data is larger than ${limits.maxTotalBytes} bytes`,
      );
    }
    if (meter.out > RATIO_FROM_BYTES && meter.out > meter.in * limits.maxRatio) {
      throw new BuildError(
        "resource_exhausted",
        `compressed data expands more than ${limits.maxRatio} times`,
      );
    }
    yield chunk;
  }
}

async function peek(
  source: AsyncIterable<Uint8Array>,
): Promise<{ readonly head: Uint8Array; readonly rest: AsyncIterable<Uint8Array> }> {
  const iterator = source[Symbol.asyncIterator]();
  const first: Uint8Array[] = [];
  let length = 0;
  while (length < MAGIC_BYTES) {
    const next = await iterator.next();
    if (next.done) break;
    first.push(next.value);
    length += next.value.length;
  }
  async function* rest(): AsyncGenerator<Uint8Array> {
    try {
      yield* first;
      for (;;) {
        const next = await iterator.next();
        if (next.done) return;
        yield next.value;
      }
    } finally {
      await iterator.return?.();
    }
  }
  return { head: Buffer.concat(first).subarray(0, MAGIC_BYTES), rest: rest() };
}

async function* count(source: AsyncIterable<Uint8Array>, meter: { in: number }): AsyncGenerator<Uint8Array> {
  for await (const chunk of source) {
    meter.in += chunk.length;
    yield chunk;
  }
}

function decoded(
  source: AsyncIterable<Uint8Array>,
  kind: DetectedCompression,
  signal: AbortSignal | undefined,
): AsyncIterable<Uint8Array> {
  switch (kind) {
    case "uncompressed":
      return source;
    case "gzip":
      return throughZlib(source, createGunzip({ chunkSize: CHUNK_BYTES }));
    case "zstd":
      return throughZlib(source, createZstdDecompress({ chunkSize: CHUNK_BYTES }));
    case "bzip2":
    case "xz":
      return throughProgram(source, kind, signal);
  }
}

async function* throughZlib(
  source: AsyncIterable<Uint8Array>,
  stream: Gunzip | ZstdDecompress,
): AsyncGenerator<Uint8Array> {
  const input = Readable.from(source, { objectMode: false, highWaterMark: CHUNK_BYTES });
  let sourceError: unknown;
  input.once("error", (error) => {
    sourceError = error;
    stream.destroy(error);
  });
  input.pipe(stream);
  try {
    for await (const chunk of stream) yield chunk as Buffer;
  } catch (error) {
    if (sourceError !== undefined) throw sourceError;
    throw new BuildError("invalid_argument", `broken compressed data: ${errorMessage(error)}`, {
      cause: error,
    });
  } finally {
    input.destroy();
    stream.destroy();
  }
}

async function* throughProgram(
  source: AsyncIterable<Uint8Array>,
  program: "bzip2" | "xz",
  signal: AbortSignal | undefined,
): AsyncGenerator<Uint8Array> {
  const args = program === "xz" ? ["-d", "-c", "--memlimit-decompress=256MiB"] : ["-d", "-c"];
  const child = spawn(program, args, { stdio: ["pipe", "pipe", "pipe"], ...(signal ? { signal } : {}) });
  let complaint = "";
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    if (complaint.length < 1024) complaint += text;
  });
  const started = once(child, "spawn");
  const closed = once(child, "close");
  closed.catch(() => undefined);
  try {
    await started;
  } catch (error) {
    if (codeOfNodeError(error) !== "not_found") throw error;
    throw new BuildError(
      "unimplemented",
      `${program} data can't be decompressed: ${program} is not installed`,
      {
        cause: error,
        hint: `install ${program} on the machine that builds`,
      },
    );
  }
  // EPIPE when the program has had enough; its exit code says whether that was right.
  const fed = pipeline(Readable.from(source, { objectMode: false }), child.stdin).catch(
    (error: unknown) => error,
  );
  try {
    yield* child.stdout as AsyncIterable<Buffer>;
    const [code] = (await closed) as [number | null];
    if (code !== 0) {
      throw new BuildError(
        "invalid_argument",
        `broken ${program} data: ${complaint.trim() || `exit code ${code}`}`,
      );
    }
    const failure = await fed;
    if (failure instanceof Error && !("code" in failure && failure.code === "EPIPE")) throw failure;
  } finally {
    child.kill("SIGKILL");
  }
}
