import { BuildError } from "@kiln/base";
import { decodePath } from "@kiln/sys";
import {
  cString,
  dialectsOf,
  formatOf,
  isZero,
  type MutableHeader,
  mergePax,
  number,
  parseBlock,
  parsePax,
  paxInteger,
  sparseVersion,
} from "./tar-block.ts";
import { BLOCK, FIELD, invalidHeader, paddingOf } from "./tar-format.ts";
import { addSparseEntry, checkSparseMap, parseSparsePairs, type SparseEntry } from "./tar-sparse.ts";
import type { ArchiveLimits, TarFormat, TarHeader, TarType } from "./types.ts";

/** What a {@link TarReader} tells as it goes. Each entry: `entry`, then `data` and `hole` in order, then `end`. */
export interface TarHandler {
  entry(header: TarHeader): void;
  data(chunk: Uint8Array): void;
  /** Zeros of a sparse file. */
  hole(length: number): void;
  end(): void;
}

/** How to read. */
export interface TarReaderOptions {
  readonly limits?: Partial<ArchiveLimits>;
  /** Report PAX global headers too. */
  readonly globals?: boolean;
  /** Leave `LIBARCHIVE.xattr.*` among the PAX records instead of taking them as attributes. */
  readonly rawLibarchive?: boolean;
}

/** Bounds that hold when nobody sets others. */
export const DEFAULT_LIMITS: ArchiveLimits = {
  maxEntries: 10_000_000,
  maxTotalBytes: 2 ** 40,
  maxHeaderBytes: 1 << 20,
  maxRatio: 10_000,
};

/** Types that have no content, whatever their size field says. */
const HEADER_ONLY = new Set<TarType>(["link", "symlink", "char", "block", "dir", "fifo"]);

/** What the reader waits for. */
type State =
  | { readonly kind: "header" }
  | {
      readonly kind: "special";
      readonly flag: string;
      readonly parts: Uint8Array[];
      left: number;
      pad: number;
    }
  | { readonly kind: "sparseBlocks" }
  | { readonly kind: "sparseText" }
  | { readonly kind: "data" }
  | { readonly kind: "skip"; left: number }
  | { readonly kind: "done" };

/**
 * Reads a tar file that is pushed into it piece by piece: ustar, PAX, GNU and star headers, long names,
 * sparse files of all four kinds, binary attributes. Where archives are ambiguous it decides as Go's
 * `archive/tar` does, so that it sees in a layer what containerd sees.
 *
 * Everything after the end marker is ignored. Errors are `invalid_argument` (not a tar file) and
 * `resource_exhausted` (over a limit); the reader is of no use afterwards.
 */
export class TarReader {
  readonly #handler: TarHandler;
  readonly #limits: ArchiveLimits;
  readonly #opts: TarReaderOptions;
  #state: State = { kind: "header" };
  #block = Buffer.alloc(BLOCK);
  #filled = 0;
  #zeroBlocks = 0;
  #entries = 0;
  #total = 0;
  #pax: Map<string, Buffer> | undefined;
  #formats: Set<TarFormat> = new Set(["ustar", "pax", "gnu"]);
  #longName = "";
  #longLink = "";
  #current: MutableHeader | undefined;
  #stored = 0;
  #pad = 0;
  #sparse: SparseEntry[] | undefined;
  #sparseText = "";
  #sparseAt = 0;
  #logical = 0;

  constructor(handler: TarHandler, opts: TarReaderOptions = {}) {
    this.#handler = handler;
    this.#opts = opts;
    this.#limits = { ...DEFAULT_LIMITS, ...opts.limits };
  }

  /** Takes the next bytes. Chunks given to the handler are only good until it returns. */
  write(chunk: Uint8Array): void {
    let at = 0;
    while (at < chunk.length) {
      switch (this.#state.kind) {
        case "done":
          return;
        case "skip":
          at += this.#skip(this.#state, chunk.length - at);
          break;
        case "special":
          at += this.#special(this.#state, chunk.subarray(at));
          break;
        case "data":
          at += this.#data(chunk.subarray(at));
          break;
        default:
          at += this.#fillBlock(chunk.subarray(at));
      }
    }
  }

  /** Says that nothing follows. @throws `invalid_argument` when the archive stops in the middle */
  finish(): void {
    const state = this.#state.kind;
    const clean = state === "done" || state === "skip" || (state === "header" && this.#filled === 0);
    if (!clean || this.#pax || this.#longName || this.#longLink) {
      throw new BuildError("invalid_argument", "unexpected EOF");
    }
  }

  #count(bytes: number): void {
    this.#total += bytes;
    if (this.#total > this.#limits.maxTotalBytes) {
      throw new BuildError(
        "resource_exhausted",
        `archive holds more than ${this.#limits.maxTotalBytes} bytes`,
      );
    }
  }

  #skip(state: { left: number }, available: number): number {
    const take = Math.min(state.left, available);
    state.left -= take;
    if (state.left === 0) this.#state = { kind: "header" };
    return take;
  }

  #fillBlock(chunk: Uint8Array): number {
    const take = Math.min(BLOCK - this.#filled, chunk.length);
    this.#block.set(chunk.subarray(0, take), this.#filled);
    this.#filled += take;
    if (this.#filled < BLOCK) return take;
    this.#filled = 0;
    if (this.#state.kind === "header") this.#header();
    else if (this.#state.kind === "sparseBlocks") this.#sparseBlock();
    else this.#sparseTextBlock();
    return take;
  }

  #header(): void {
    const block = this.#block;
    if (isZero(block)) {
      if (++this.#zeroBlocks === 2) this.#state = { kind: "done" };
      return;
    }
    if (this.#zeroBlocks > 0) throw invalidHeader("data after a zero block");
    const format = formatOf(block);
    const flag = String.fromCharCode(block[FIELD.typeflag[0]] as number);
    const size = number(block, FIELD.size);
    if (size < 0) throw invalidHeader("negative size");
    if (flag === "x" || flag === "L" || flag === "K") {
      this.#narrow(flag === "x" ? "pax" : "gnu");
      this.#startSpecial(flag, size);
      return;
    }
    if (flag === "g") {
      this.#narrow("pax");
      this.#startSpecial(flag, size);
      return;
    }
    this.#startEntry(parseBlock(block, format), format, flag);
  }

  #narrow(format: TarFormat): void {
    for (const other of this.#formats) if (other !== format) this.#formats.delete(other);
  }

  #startSpecial(flag: string, size: number): void {
    if (size > this.#limits.maxHeaderBytes) {
      throw new BuildError("resource_exhausted", "archive/tar: header field too long");
    }
    this.#count(size);
    this.#state = { kind: "special", flag, parts: [], left: size, pad: paddingOf(size) };
    if (size === 0) this.#endSpecial(this.#state);
  }

  #special(state: State & { kind: "special" }, chunk: Uint8Array): number {
    const take = Math.min(state.left, chunk.length);
    state.parts.push(Buffer.from(chunk.subarray(0, take)));
    state.left -= take;
    if (state.left === 0) this.#endSpecial(state);
    return take;
  }

  #endSpecial(state: State & { kind: "special" }): void {
    const data = Buffer.concat(state.parts);
    this.#state = state.pad > 0 ? { kind: "skip", left: state.pad } : { kind: "header" };
    if (state.flag === "L") this.#longName = cString(data);
    else if (state.flag === "K") this.#longLink = cString(data);
    else if (state.flag === "x") this.#pax = parsePax(data);
    else {
      const name = cString(this.#block.subarray(0, 100));
      if (this.#opts.globals) this.#global(name, parsePax(data));
      else parsePax(data);
      this.#resetEntry();
    }
  }

  #global(name: string, records: ReadonlyMap<string, Buffer>): void {
    const pax = new Map([...records].map(([key, value]) => [key, decodePath(value)]));
    const header = { name, type: "global", mode: 0, uid: 0, gid: 0, size: 0, mtimeNs: 0n } as const;
    this.#handler.entry({ ...header, pax, format: "pax" });
    this.#handler.end();
  }

  #startEntry(raw: MutableHeader, format: string, flag: string): void {
    if (++this.#entries > this.#limits.maxEntries) {
      throw new BuildError("resource_exhausted", `archive has more than ${this.#limits.maxEntries} entries`);
    }
    const own = dialectsOf(this.#block, format);
    for (const other of this.#formats) if (!own.includes(other)) this.#formats.delete(other);
    const header = this.#pax ? mergePax(raw, this.#pax, this.#opts.rawLibarchive === true) : raw;
    if (this.#longName !== "") header.name = this.#longName;
    if (this.#longLink !== "") header.linkname = this.#longLink;
    if (flag === "\0" && header.name.endsWith("/")) header.type = "dir";
    if (header.name.includes("\0") || header.linkname?.includes("\0")) throw invalidHeader("NUL in a name");
    if (header.size < 0) throw invalidHeader("negative size");
    this.#current = header;
    this.#stored = HEADER_ONLY.has(header.type) ? 0 : header.size;
    if (HEADER_ONLY.has(header.type)) header.size = 0;
    this.#pad = paddingOf(this.#stored);
    this.#count(this.#stored + BLOCK);
    this.#startContent(header, flag);
  }

  #startContent(header: MutableHeader, flag: string): void {
    if (flag === "S") {
      if (formatOf(this.#block) !== "gnu") throw invalidHeader("sparse entry");
      header.size = number(this.#block, FIELD.gnuRealSize);
      this.#sparse = [];
      this.#readSparseEntries(FIELD.gnuSparse[0], 4);
      if ((this.#block[FIELD.gnuIsExtended[0]] as number) > 0) this.#state = { kind: "sparseBlocks" };
      else this.#emit();
      return;
    }
    const version = this.#pax && sparseVersion(this.#pax);
    if (version === undefined || !this.#pax) {
      this.#emit();
      return;
    }
    const name = this.#pax.get("GNU.sparse.name");
    if (name && name.length > 0) header.name = decodePath(name);
    const size = this.#pax.get("GNU.sparse.size") ?? this.#pax.get("GNU.sparse.realsize");
    if (size) header.size = paxInteger(size.toString("latin1"));
    if (version === "1.0") {
      this.#sparseText = "";
      this.#state = { kind: "sparseText" };
      return;
    }
    this.#sparse = parseSparsePairs(
      (this.#pax.get("GNU.sparse.map") ?? Buffer.alloc(0)).toString("latin1"),
      ",",
    );
    this.#emit();
  }

  #readSparseEntries(from: number, count: number): void {
    for (let i = 0; i < count; i++) {
      const at = from + i * 24;
      if (this.#block[at] === 0) break;
      const offset = number(this.#block, [at, 12]);
      addSparseEntry(this.#sparse as SparseEntry[], { offset, length: number(this.#block, [at + 12, 12]) });
    }
  }

  #sparseBlock(): void {
    this.#count(BLOCK);
    this.#readSparseEntries(0, 21);
    if ((this.#sparse as SparseEntry[]).length * 24 > this.#limits.maxHeaderBytes) {
      throw invalidHeader("sparse map too long");
    }
    if (this.#block[504] === 0) this.#emit();
  }

  /** The map of PAX format 1.0 stands before the content: a count, then offset and length, one a line. */
  #sparseTextBlock(): void {
    this.#stored -= BLOCK;
    if (this.#stored < 0) throw invalidHeader("sparse map");
    this.#sparseText += this.#block.toString("latin1");
    if (this.#sparseText.length > this.#limits.maxHeaderBytes) throw invalidHeader("sparse map too long");
    const lines = this.#sparseText.split("\n");
    const count = lines.length > 1 ? paxInteger(lines[0] as string) : undefined;
    if (count === undefined || lines.length - 1 < 1 + 2 * count) return;
    this.#sparse = parseSparsePairs(lines.slice(1, 1 + 2 * count).join("\n"), "\n");
    this.#emit();
  }

  #emit(): void {
    const header = this.#current as MutableHeader;
    const format = this.#finalFormat();
    if (this.#sparse) {
      checkSparseMap(this.#sparse, header.size, this.#stored);
      this.#count(header.size);
    }
    this.#logical = 0;
    this.#sparseAt = 0;
    this.#handler.entry(format === undefined ? header : { ...header, format });
    this.#state = { kind: "data" };
    if (this.#stored === 0) this.#endEntry();
  }

  #finalFormat(): TarFormat | undefined {
    if (this.#formats.has("ustar")) return "ustar";
    return [...this.#formats][0];
  }

  #data(chunk: Uint8Array): number {
    const take = Math.min(this.#stored, chunk.length);
    const part = chunk.subarray(0, take);
    if (this.#sparse) this.#sparseData(part);
    else this.#handler.data(part);
    this.#stored -= take;
    if (this.#stored === 0) this.#endEntry();
    return take;
  }

  #sparseData(part: Uint8Array): void {
    const map = this.#sparse as SparseEntry[];
    let at = 0;
    while (at < part.length) {
      const entry = map[this.#sparseAt];
      if (!entry) throw invalidHeader("sparse content too long");
      if (this.#logical < entry.offset) this.#hole(entry.offset - this.#logical);
      const take = Math.min(entry.offset + entry.length - this.#logical, part.length - at);
      this.#handler.data(part.subarray(at, at + take));
      this.#logical += take;
      at += take;
      if (this.#logical === entry.offset + entry.length) this.#sparseAt++;
    }
  }

  #hole(length: number): void {
    this.#handler.hole(length);
    this.#logical += length;
  }

  #endEntry(): void {
    const header = this.#current as MutableHeader;
    if (this.#sparse && this.#logical < header.size) this.#hole(header.size - this.#logical);
    this.#handler.end();
    this.#state = this.#pad > 0 ? { kind: "skip", left: this.#pad } : { kind: "header" };
    this.#resetEntry();
  }

  #resetEntry(): void {
    this.#pax = undefined;
    this.#longName = "";
    this.#longLink = "";
    this.#current = undefined;
    this.#sparse = undefined;
    this.#formats = new Set(["ustar", "pax", "gnu"]);
  }
}
