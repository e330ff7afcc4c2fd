import { encodeTarHeader, tarPadding, tarTrailer } from "./tar-encoder.ts";
import { type TarHandler, TarReader, type TarReaderOptions } from "./tar-reader.ts";
import type { TarHeader } from "./types.ts";

const ZEROS = Buffer.alloc(1 << 16);

/**
 * Writes a tar file anew with every header passed through `change`, as a loop of Go's tar reader and writer
 * would. What follows the end of the archive is dropped.
 *
 * @throws `invalid_argument` for a broken archive
 */
export async function* rewriteTar(
  source: AsyncIterable<Uint8Array>,
  change: (header: TarHeader) => TarHeader,
  opts: Pick<TarReaderOptions, "limits"> = {},
): AsyncGenerator<Uint8Array> {
  let parts: Uint8Array[] = [];
  let size = 0;
  const handler: TarHandler = {
    entry: (header) => {
      const next = change(header);
      size = next.type === "file" ? next.size : 0;
      parts.push(encodeTarHeader(plainNames(next)));
    },
    data: (chunk) => parts.push(Buffer.from(chunk)),
    hole: (length) => {
      for (let left = length; left > 0; left -= ZEROS.length) {
        parts.push(ZEROS.subarray(0, Math.min(left, ZEROS.length)));
      }
    },
    end: () => parts.push(tarPadding(size)),
  };
  const reader = new TarReader(handler, { ...opts, globals: true, rawLibarchive: true });
  for await (const chunk of source) {
    reader.write(chunk);
    if (parts.length === 0) continue;
    yield Buffer.concat(parts);
    parts = [];
  }
  reader.finish();
  yield tarTrailer();
}

/** Only a sparse file's content is written out, so its map must not be. */
function plainNames(header: TarHeader): TarHeader {
  if (header.typeflag === undefined && !header.pax) return header;
  const pax = new Map([...(header.pax ?? [])].filter(([key]) => !key.startsWith("GNU.sparse.")));
  return { ...header, pax };
}

/**
 * A layer's tar with no time after `epochSeconds`; BuildKit's `rewrite-timestamp`. Only modification,
 * access and change times of headers are looked at.
 */
export function rewriteTimestamps(
  source: AsyncIterable<Uint8Array>,
  epochSeconds: number,
): AsyncGenerator<Uint8Array> {
  const epochNs = BigInt(epochSeconds) * 1_000_000_000n;
  const clamp = (timeNs: bigint): bigint => (timeNs > epochNs ? epochNs : timeNs);
  return rewriteTar(source, (header) => ({
    ...header,
    mtimeNs: clamp(header.mtimeNs),
    ...(header.atimeNs === undefined ? {} : { atimeNs: clamp(header.atimeNs) }),
    ...(header.ctimeNs === undefined ? {} : { ctimeNs: clamp(header.ctimeNs) }),
  }));
}
