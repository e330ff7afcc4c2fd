/**
 * eStargz (stargz-snapshotter's docs/estargz.md): a gzipped tar in which every piece of a file's content
 * begins a gzip member of its own, followed by a table of contents as a tar entry, and a footer that says
 * where that is. Any gzip reader sees an ordinary layer.
 *
 * The tar's own bytes are kept as they are; the table comes after its end marker, so it counts for the
 * diffID but isn't unpacked.
 */
import { createHash, type Hash } from "node:crypto";
import { availableParallelism } from "node:os";
import { posix } from "node:path";
import { promisify } from "node:util";
import { crc32, deflateRaw, type ZlibOptions } from "node:zlib";
import { BuildError } from "@kiln/base";
import { goJson } from "@kiln/formats";
import type { Digest } from "@kiln/oci";
import { encodeTarHeader, tarPadding, tarTrailer } from "./tar-encoder.ts";
import { secondsOf } from "./tar-format.ts";
import { TarReader } from "./tar-reader.ts";
import type { Chunks, TarHeader, TarType } from "./types.ts";

const TOC_NAME = "stargz.index.json";
const PIECE_BYTES = 4 << 20;

const deflate = promisify(
  deflateRaw as (
    data: Uint8Array,
    opts: ZlibOptions,
    done: (error: Error | null, result: Buffer) => void,
  ) => void,
);

/** What is known of an eStargz layer when it has been written. */
export interface EstargzResult {
  /** The tar with the bytes of its table of contents. */
  readonly diffId: Digest;
  readonly tarBytes: number;
  readonly tocDigest: Digest;
}

/** A stretch of a file's content that can be had by itself. */
interface Piece {
  readonly fields: Record<string, unknown>;
  readonly hash: Hash;
  left: number;
}

interface TocEntry {
  readonly fields: Record<string, unknown>;
  /** Member in which the piece begins, when it is one. */
  readonly member: number | undefined;
}

const TOC_TYPES: ReadonlyMap<TarType, string> = new Map([
  ["file", "reg"],
  ["dir", "dir"],
  ["symlink", "symlink"],
  ["link", "hardlink"],
  ["char", "char"],
  ["block", "block"],
  ["fifo", "fifo"],
]);

/**
 * Compresses a tar as eStargz; `onEnd` is told what came out of it before the last bytes are given.
 *
 * @throws `invalid_argument` for a tar that can't be one: broken, sparse, or with a table of contents
 */
export async function* estargz(
  tar: Chunks,
  level: number,
  onEnd: (result: EstargzResult) => void,
): AsyncGenerator<Uint8Array> {
  const splitter = new Splitter();
  const reader = new TarReader(splitter);
  const offsets: number[] = [];
  let offset = 0;
  const inFlight: Promise<Buffer>[] = [];
  const width = availableParallelism() + 1;
  const land = async (): Promise<Buffer> => {
    const member = await (inFlight.shift() as Promise<Buffer>);
    offsets.push(offset);
    offset += member.length;
    return member;
  };
  try {
    for await (const chunk of tar) {
      splitter.begin(chunk);
      reader.write(chunk);
      splitter.finishChunk();
      for (const member of splitter.takeClosed()) {
        inFlight.push(gzipMember(member, level));
        if (inFlight.length >= width) yield await land();
      }
    }
    reader.finish();
    inFlight.push(gzipMember(splitter.last(), level));
    while (inFlight.length > 0) yield await land();
  } finally {
    await Promise.allSettled(inFlight);
  }
  const json = Buffer.from(splitter.toc(offsets));
  const entry = encodeTarHeader({
    name: TOC_NAME,
    type: "file",
    mode: 0,
    uid: 0,
    gid: 0,
    size: json.length,
    mtimeNs: 0n,
  });
  const toc = Buffer.concat([entry, json, tarPadding(json.length), tarTrailer()]);
  splitter.hash.update(toc);
  onEnd({
    diffId: `sha256:${splitter.hash.digest("hex")}`,
    tarBytes: splitter.tarBytes + toc.length,
    tocDigest: `sha256:${createHash("sha256").update(json).digest("hex")}`,
  });
  yield await gzipMember(toc, level);
  yield footer(offset);
}

/** Finds in a tar's bytes where pieces of content begin, and keeps account of them. */
class Splitter {
  readonly hash = createHash("sha256");
  tarBytes = 0;
  #entries: TocEntry[] = [];
  #closed: Buffer[] = [];
  #members = 0;
  #open: Uint8Array[] = [];
  #chunk: Uint8Array = new Uint8Array();
  #taken = 0;
  #header: TarHeader | undefined;
  #first: Record<string, unknown> = {};
  #piece: Piece | undefined;
  #content: Hash | undefined;
  #written = 0;
  readonly #userNames = new Map<number, string>();
  readonly #groupNames = new Map<number, string>();

  begin(chunk: Uint8Array): void {
    this.#chunk = chunk;
    this.#taken = 0;
    this.hash.update(chunk);
    this.tarBytes += chunk.length;
  }

  finishChunk(): void {
    this.#takeUntil(this.#chunk.length);
  }

  /** Moves the chunk's bytes up to `end` into the open member. */
  #takeUntil(end: number): void {
    if (end > this.#taken) this.#open.push(Buffer.from(this.#chunk.subarray(this.#taken, end)));
    this.#taken = end;
  }

  takeClosed(): Buffer[] {
    return this.#closed.splice(0);
  }

  last(): Buffer {
    return Buffer.concat(this.#open.splice(0));
  }

  entry(header: TarHeader): void {
    if (posix.normalize(`/${header.name}`) === `/${TOC_NAME}`) {
      throw new BuildError(
        "invalid_argument",
        "existing TOC JSON is not allowed; decompress layer before append",
      );
    }
    const type = TOC_TYPES.get(header.type);
    if (type === undefined)
      throw new BuildError("invalid_argument", `unsupported input tar entry of ${header.name}`);
    this.#header = header;
    this.#first = this.#fields(header, type);
    this.#content = header.type === "file" ? createHash("sha256") : undefined;
    this.#written = 0;
    if (header.size === 0) this.#entries.push({ fields: this.#first, member: undefined });
  }

  #fields(header: TarHeader, type: string): Record<string, unknown> {
    const isLink = header.type === "link" || header.type === "symlink";
    const isDevice = header.type === "char" || header.type === "block";
    return {
      name: header.name,
      type,
      size: header.size || undefined,
      modtime: timeText(header.mtimeNs),
      linkName: (isLink && header.linkname) || undefined,
      mode: header.mode || undefined,
      uid: header.uid || undefined,
      gid: header.gid || undefined,
      userName: changed(this.#userNames, header.uid, header.uname ?? ""),
      groupName: changed(this.#groupNames, header.gid, header.gname ?? ""),
      devMajor: (isDevice && header.devmajor) || undefined,
      devMinor: (isDevice && header.devminor) || undefined,
      xattrs: header.xattrs?.size ? header.xattrs : undefined,
    };
  }

  data(part: Uint8Array): void {
    for (let at = 0; at < part.length; ) {
      const piece = this.#piece ?? this.#startPiece(part, at);
      const take = Math.min(piece.left, part.length - at);
      const bytes = part.subarray(at, at + take);
      piece.hash.update(bytes);
      this.#content?.update(bytes);
      piece.left -= take;
      this.#written += take;
      at += take;
      if (piece.left === 0) this.#endPiece(piece);
    }
  }

  #startPiece(part: Uint8Array, at: number): Piece {
    this.#takeUntil(part.byteOffset - this.#chunk.byteOffset + at);
    this.#closed.push(this.last());
    this.#members++;
    const header = this.#header as TarHeader;
    const left = Math.min(PIECE_BYTES, header.size - this.#written);
    const fields = this.#written === 0 ? this.#first : { name: header.name, type: "chunk" };
    const whole = left === PIECE_BYTES ? left : undefined;
    Object.assign(fields, { chunkOffset: this.#written || undefined, chunkSize: whole });
    this.#entries.push({ fields, member: this.#members });
    this.#piece = { fields, hash: createHash("sha256"), left };
    return this.#piece;
  }

  #endPiece(piece: Piece): void {
    piece.fields.chunkDigest = `sha256:${piece.hash.digest("hex")}`;
    this.#piece = undefined;
  }

  hole(): void {
    throw new BuildError("invalid_argument", `sparse file ${this.#header?.name} can't be put into eStargz`);
  }

  end(): void {
    if (this.#content) this.#first.digest = `sha256:${this.#content.digest("hex")}`;
    this.#content = undefined;
  }

  /** The table of contents as Go's `json.MarshalIndent` writes it. */
  toc(offsets: readonly number[]): string {
    const entries = this.#entries.map(({ fields, member }) => {
      const offset = member === undefined ? 0 : (offsets[member] ?? 0);
      return inOrder({ ...fields, offset: offset || undefined });
    });
    return goJson({ version: 1, entries: entries.length === 0 ? null : entries }, { indent: "\t" });
  }
}

const FIELD_ORDER = [
  "name",
  "type",
  "size",
  "modtime",
  "linkName",
  "mode",
  "uid",
  "gid",
  "userName",
  "groupName",
  "offset",
  "devMajor",
  "devMinor",
  "xattrs",
  "digest",
  "chunkOffset",
  "chunkSize",
  "chunkDigest",
] as const;

function inOrder(fields: Readonly<Record<string, unknown>>): Record<string, unknown> {
  return Object.fromEntries(FIELD_ORDER.map((key) => [key, fields[key]]));
}

function changed(known: Map<number, string>, id: number, name: string): string | undefined {
  if (name === "" || known.get(id) === name) return undefined;
  known.set(id, name);
  return name;
}

function timeText(timeNs: bigint): string | undefined {
  if (secondsOf(timeNs) === 0) return undefined;
  return new Date(secondsOf(timeNs + 500_000_000n) * 1000).toISOString().replace(".000Z", "Z");
}

async function gzipMember(data: Buffer, level: number): Promise<Buffer> {
  const end = Buffer.alloc(8);
  end.writeUInt32LE(crc32(data), 0);
  end.writeUInt32LE(data.length % 2 ** 32, 4);
  const header = Buffer.from([0x1f, 0x8b, 8, 0, 0, 0, 0, 0, level === 9 ? 2 : level === 1 ? 4 : 0, 255]);
  const promise = deflate(data, { level });
  promise.catch(() => undefined);
  return Buffer.concat([header, await promise, end]);
}

/** An empty gzip member of 51 bytes whose extra field says where the table of contents begins. */
function footer(tocOffset: number): Buffer {
  const text = `${tocOffset.toString(16).padStart(16, "0")}STARGZ`;
  const header = Buffer.from([0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 255]);
  const extra = Buffer.concat([Buffer.from([26, 0, 0x53, 0x47, 22, 0]), Buffer.from(text, "latin1")]);
  return Buffer.concat([header, extra, Buffer.from([1, 0, 0, 0xff, 0xff]), Buffer.alloc(8)]);
}
