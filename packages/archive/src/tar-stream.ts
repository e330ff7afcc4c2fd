import { encodeTarHeader, tarPadding, tarTrailer } from "./tar-encoder.ts";
import { TarReader, type TarReaderOptions } from "./tar-reader.ts";
import type { TarHeader } from "./types.ts";

/** What a new entry must say; the rest is zero, a file is 0644 and a directory 0755. */
export type NewEntry = Partial<TarHeader> & { readonly name: string };

/**
 * Writes a tar file entry by entry to a sink; the promise of each call settles when the sink has taken the
 * bytes.
 */
export class TarWriter {
  readonly #sink: (chunk: Uint8Array) => Promise<void> | void;

  constructor(sink: (chunk: Uint8Array) => Promise<void> | void) {
    this.#sink = sink;
  }

  /** An entry with its content: bytes, or a stream of exactly `header.size` bytes. */
  async entry(header: NewEntry, content?: Uint8Array | string | AsyncIterable<Uint8Array>): Promise<void> {
    const bytes = typeof content === "string" ? Buffer.from(content) : content;
    const whole = bytes instanceof Uint8Array ? bytes : undefined;
    const type = header.type ?? "file";
    const size = header.size ?? whole?.length ?? 0;
    const mode = type === "dir" ? 0o755 : 0o644;
    await this.#sink(encodeTarHeader({ mode, uid: 0, gid: 0, mtimeNs: 0n, ...header, type, size }));
    let written = 0;
    for await (const chunk of whole ? [whole] : ((bytes ?? []) as AsyncIterable<Uint8Array>)) {
      written += chunk.length;
      if (written > size) break;
      await this.#sink(chunk);
    }
    if (written !== size) throw new Error(`content of ${header.name} is not ${size} bytes long`);
    const padding = tarPadding(size);
    if (padding.length > 0) await this.#sink(padding);
  }

  /** The end of the archive. */
  async finish(): Promise<void> {
    await this.#sink(tarTrailer());
  }
}

/** One entry of an archive, its content in memory. */
export interface TarEntry {
  readonly header: TarHeader;
  readonly content: Buffer;
}

/** Entries of a small archive. `maxEntryBytes` (16 MiB) bounds what one may hold. */
export async function* tarEntries(
  source: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
  opts: TarReaderOptions & { readonly maxEntryBytes?: number } = {},
): AsyncGenerator<TarEntry> {
  const limit = opts.maxEntryBytes ?? 16 << 20;
  const done: TarEntry[] = [];
  let header: TarHeader | undefined;
  let parts: Buffer[] = [];
  let size = 0;
  const take = (chunk: Buffer): void => {
    size += chunk.length;
    if (size > limit) throw new Error(`tar entry is larger than ${limit} bytes`);
    parts.push(chunk);
  };
  const reader = new TarReader(
    {
      entry: (next) => {
        header = next;
      },
      data: (chunk) => take(Buffer.from(chunk)),
      hole: (length) => {
        if (length > limit) throw new Error(`tar entry is larger than ${limit} bytes`);
        take(Buffer.alloc(length));
      },
      end: () => {
        if (header) done.push({ header, content: Buffer.concat(parts) });
        parts = [];
        size = 0;
      },
    },
    opts,
  );
  for await (const chunk of source) {
    reader.write(chunk);
    yield* done.splice(0);
  }
  reader.finish();
  yield* done.splice(0);
}
