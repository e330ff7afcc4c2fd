import { createHash, type Hash } from "node:crypto";
import { createReadStream, existsSync, mkdirSync, readdirSync, renameSync, rmSync, statSync } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import { join } from "node:path";
import type { GrowingFile } from "@kiln/archive";
import { BuildError, type Clock, systemClock, wrapError } from "@kiln/base";
import { newId } from "@kiln/formats";
import { type Descriptor, type Digest, digestHex, parseDigest } from "@kiln/oci";
import type { BlobExpectation, BlobInfo, BlobWriter, ByteRange, ContentStore } from "./content.ts";
import type { Database } from "./database.ts";

const SCHEMA = [
  `CREATE TABLE blobs (digest TEXT PRIMARY KEY, size INTEGER NOT NULL, created_at INTEGER NOT NULL, labels TEXT NOT NULL) STRICT;`,
];

const READ_BYTES = 1 << 18;
/** Small writes are gathered up to this. */
const WRITE_BYTES = 1 << 19;
const MAX_READ_ALL_BYTES = 8 << 20;
const OCTET_STREAM = "application/octet-stream";

interface Entry {
  sizeBytes: number;
  createdAt: number;
  labels: Map<string, string>;
}

/** Options of {@link FileContentStore}. */
export interface ContentStoreOptions {
  readonly clock?: Clock;
}

/**
 * Blobs as files below `root/blobs/sha256`, what is known about them in the database. Opening it removes
 * unfinished writes, forgets blobs whose file is gone or has another size, and adopts files that a crash
 * left without a row.
 */
export class FileContentStore implements ContentStore {
  readonly root: string;
  readonly ingestDir: string;
  readonly #blobDir: string;
  readonly #db: Database;
  readonly #clock: Clock;
  readonly #entries = new Map<string, Entry>();

  constructor(root: string, db: Database, opts: ContentStoreOptions = {}) {
    this.root = root;
    this.#db = db;
    this.#clock = opts.clock ?? systemClock;
    this.#blobDir = join(root, "blobs", "sha256");
    this.ingestDir = join(root, "ingest");
    db.migrate("content", SCHEMA);
    rmSync(this.ingestDir, { recursive: true, force: true });
    mkdirSync(this.#blobDir, { recursive: true, mode: 0o700 });
    mkdirSync(this.ingestDir, { mode: 0o700 });
    this.#load();
  }

  #load(): void {
    const files = new Set(readdirSync(this.#blobDir));
    this.#db.transaction(() => {
      for (const row of this.#db.all("SELECT * FROM blobs")) {
        const digest = String(row.digest);
        const hex = digest.slice("sha256:".length);
        const sizeBytes = Number(row.size);
        if (!files.delete(hex)) {
          this.#db.run("DELETE FROM blobs WHERE digest = ?", digest);
          continue;
        }
        if (statSync(join(this.#blobDir, hex)).size !== sizeBytes) {
          this.#db.run("DELETE FROM blobs WHERE digest = ?", digest);
          rmSync(join(this.#blobDir, hex), { force: true });
          continue;
        }
        const labels = new Map(Object.entries(JSON.parse(String(row.labels)) as Record<string, string>));
        this.#entries.set(digest, { sizeBytes, createdAt: Number(row.created_at), labels });
      }
      for (const hex of files) {
        if (!/^[a-f0-9]{64}$/.test(hex)) rmSync(join(this.#blobDir, hex), { recursive: true, force: true });
        else this.#remember(`sha256:${hex}`, statSync(join(this.#blobDir, hex)).size, {});
      }
    });
  }

  #remember(digest: string, sizeBytes: number, labels: Readonly<Record<string, string>>): void {
    const known = this.#entries.get(digest);
    const entry = known ?? { sizeBytes, createdAt: this.#clock.now(), labels: new Map<string, string>() };
    entry.createdAt = this.#clock.now();
    for (const [key, value] of Object.entries(labels)) entry.labels.set(key, value);
    this.#db.run(
      `INSERT INTO blobs VALUES (?, ?, ?, ?)
       ON CONFLICT (digest) DO UPDATE SET created_at = excluded.created_at, labels = excluded.labels`,
      digest,
      sizeBytes,
      entry.createdAt,
      JSON.stringify(Object.fromEntries(entry.labels)),
    );
    this.#entries.set(digest, entry);
  }

  has(digest: string): boolean {
    return this.#entries.has(digest);
  }

  info(digest: string): BlobInfo {
    const entry = this.#entry(digest);
    return { digest: digest as Digest, ...entry, labels: new Map(entry.labels) };
  }

  #entry(digest: string): Entry {
    const entry = this.#entries.get(digest);
    if (!entry) throw new BuildError("not_found", `content ${digest}: not found`);
    return entry;
  }

  path(digest: string): string {
    const parsed = parseDigest(digest);
    if (!parsed.startsWith("sha256:")) {
      throw new BuildError("invalid_argument", `digest ${digest} is not sha256`);
    }
    return join(this.#blobDir, digestHex(parsed));
  }

  async writer(expected: BlobExpectation = {}): Promise<BlobWriter> {
    const path = join(this.ingestDir, newId());
    const file = await open(path, "wx", 0o600).catch((error: unknown) => {
      throw writeError(error, expected.digest);
    });
    return new FileBlobWriter(path, file, {
      expected,
      publish: (digest, sizeBytes, labels) => this.#publish(path, { digest, sizeBytes }, labels),
    });
  }

  /** The bytes are on disk; a rename or a row that a power failure undoes is repaired by the next start. */
  async #publish(
    path: string,
    blob: { readonly digest: Digest; readonly sizeBytes: number },
    labels: Readonly<Record<string, string>>,
  ): Promise<void> {
    const to = this.path(blob.digest);
    renameSync(path, to);
    this.#remember(blob.digest, blob.sizeBytes, labels);
  }

  async write(
    source: AsyncIterable<Uint8Array> | Uint8Array,
    expected: BlobExpectation & { readonly signal?: AbortSignal } = {},
  ): Promise<Descriptor> {
    const known = expected.digest === undefined ? undefined : this.#entries.get(expected.digest);
    if (known && expected.digest) {
      this.#remember(expected.digest, known.sizeBytes, expected.labels ?? {});
      return { mediaType: OCTET_STREAM, digest: expected.digest, size: known.sizeBytes };
    }
    await using writer = await this.writer(expected);
    for await (const chunk of source instanceof Uint8Array ? [source] : source) {
      expected.signal?.throwIfAborted();
      await writer.write(chunk);
    }
    expected.signal?.throwIfAborted();
    return await writer.commit();
  }

  async adopt(file: string, blob: { readonly digest: Digest; readonly sizeBytes: number }): Promise<void> {
    const { size } = statSync(file);
    if (size !== blob.sizeBytes) {
      throw new BuildError(
        "failed_precondition",
        `${blob.digest} is ${size} bytes long, not ${blob.sizeBytes}`,
      );
    }
    await this.#publish(file, blob, {});
  }

  async *read(digest: string, range: ByteRange = { offset: 0 }): AsyncGenerator<Uint8Array> {
    const { sizeBytes } = this.#entry(digest);
    const { offset, length } = range;
    if (length === 0) return;
    const chunks = createReadStream(this.path(digest), {
      start: offset,
      ...(length === undefined ? {} : { end: offset + length - 1 }),
      highWaterMark: READ_BYTES,
    }) as AsyncIterable<Buffer>;
    const isWhole = offset === 0 && (length === undefined || length >= sizeBytes);
    if (isWhole) yield* this.#verified(digest, chunks);
    else yield* chunks;
  }

  async *#verified(digest: string, chunks: AsyncIterable<Buffer>): AsyncGenerator<Uint8Array> {
    const hash = createHash("sha256");
    let last: Buffer | undefined;
    for await (const chunk of chunks) {
      hash.update(chunk);
      if (last) yield last;
      last = chunk;
    }
    await this.#check(digest, hash);
    if (last) yield last;
  }

  async readAll(digest: string, maxBytes = MAX_READ_ALL_BYTES): Promise<Uint8Array> {
    const { sizeBytes } = this.#entry(digest);
    if (sizeBytes > maxBytes) {
      throw new BuildError("resource_exhausted", `content ${digest} is larger than ${maxBytes} bytes`);
    }
    const parts: Uint8Array[] = [];
    for await (const chunk of this.read(digest)) parts.push(chunk);
    return Buffer.concat(parts);
  }

  async verify(digest: string): Promise<void> {
    for await (const _chunk of this.read(digest)) {
      // Reading checks it.
    }
  }

  async #check(digest: string, hash: Hash): Promise<void> {
    const actual = `sha256:${hash.digest("hex")}`;
    if (actual === digest) return;
    await this.delete(digest);
    throw new BuildError("data_loss", `content ${digest} was damaged on disk: it hashes to ${actual}`);
  }

  setLabels(digest: string, labels: Readonly<Record<string, string | undefined>>): void {
    const entry = this.#entry(digest);
    for (const [key, value] of Object.entries(labels)) {
      if (value === undefined) entry.labels.delete(key);
      else entry.labels.set(key, value);
    }
    const text = JSON.stringify(Object.fromEntries(entry.labels));
    this.#db.run("UPDATE blobs SET labels = ? WHERE digest = ?", text, digest);
  }

  *walk(): Generator<BlobInfo> {
    for (const digest of [...this.#entries.keys()]) {
      if (this.#entries.has(digest)) yield this.info(digest);
    }
  }

  async delete(digest: string): Promise<void> {
    if (!this.#entries.delete(digest)) return;
    this.#db.run("DELETE FROM blobs WHERE digest = ?", digest);
    rmSync(this.path(digest), { force: true });
  }
}

interface WriterContext {
  readonly expected: BlobExpectation;
  readonly publish: (
    digest: Digest,
    sizeBytes: number,
    labels: Readonly<Record<string, string>>,
  ) => Promise<void>;
}

class FileBlobWriter implements BlobWriter {
  readonly #path: string;
  readonly #file: FileHandle;
  readonly #ctx: WriterContext;
  readonly #hash = createHash("sha256");
  /** Gathered, but not written yet; used again and again. */
  #gathered: Buffer | undefined;
  #gatheredBytes = 0;
  #writtenBytes = 0;
  #offset = 0;
  #open = true;
  readonly #growing: GrowingFile | undefined;

  constructor(path: string, file: FileHandle, ctx: WriterContext) {
    this.#path = path;
    this.#file = file;
    this.#ctx = ctx;
    this.#growing = ctx.expected.growing?.(path);
  }

  get offset(): number {
    return this.#offset;
  }

  async write(chunk: Uint8Array): Promise<void> {
    if (!this.#open) throw new BuildError("failed_precondition", "blob writer is closed");
    this.#offset += chunk.length;
    const { sizeBytes, maxBytes } = this.#ctx.expected;
    if (sizeBytes !== undefined && this.#offset > sizeBytes) throw sizeMismatch(sizeBytes, this.#offset);
    if (maxBytes !== undefined && this.#offset > maxBytes) {
      throw new BuildError("resource_exhausted", `content is larger than ${maxBytes} bytes`);
    }
    this.#hash.update(chunk);
    for (let at = 0; at < chunk.length; ) {
      this.#gathered ??= Buffer.allocUnsafeSlow(Math.max(1, Math.min(WRITE_BYTES, sizeBytes ?? WRITE_BYTES)));
      const length = Math.min(chunk.length - at, this.#gathered.length - this.#gatheredBytes);
      this.#gathered.set(chunk.subarray(at, at + length), this.#gatheredBytes);
      this.#gatheredBytes += length;
      at += length;
      if (this.#gatheredBytes === this.#gathered.length) await this.#flush();
    }
  }

  async #flush(): Promise<void> {
    const length = this.#gatheredBytes;
    if (length === 0) return;
    try {
      await this.#file.writeFile((this.#gathered as Buffer).subarray(0, length));
    } catch (error) {
      throw writeError(error, this.#ctx.expected.digest);
    }
    this.#gatheredBytes = 0;
    this.#writtenBytes += length;
    this.#growing?.grow(this.#writtenBytes);
  }

  async commit(expected: BlobExpectation = {}): Promise<Descriptor> {
    if (!this.#open) throw new BuildError("failed_precondition", "blob writer is closed");
    const want = { ...this.#ctx.expected, ...expected };
    const digest: Digest = `sha256:${this.#hash.digest("hex")}`;
    try {
      if (want.sizeBytes !== undefined && want.sizeBytes !== this.#offset) {
        throw sizeMismatch(want.sizeBytes, this.#offset);
      }
      if (want.digest !== undefined && want.digest !== digest) {
        throw new BuildError("data_loss", `unexpected digest: got ${digest}, expected ${want.digest}`);
      }
      await this.#flush();
      this.#growing?.end(true);
      await this.#file.sync().catch((error: unknown) => {
        throw writeError(error, digest);
      });
      this.#open = false;
      await this.#file.close();
      await this.#ctx.publish(digest, this.#offset, want.labels ?? {});
    } finally {
      await this[Symbol.asyncDispose]();
    }
    return { mediaType: OCTET_STREAM, digest, size: this.#offset };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#growing?.end(false);
    if (this.#open) {
      this.#open = false;
      await this.#file.close();
    }
    if (existsSync(this.#path)) rmSync(this.#path, { force: true });
  }
}

function writeError(error: unknown, digest: string | undefined): unknown {
  return wrapError(
    error,
    digest === undefined ? "failed to write content" : `failed to write content ${digest}`,
  );
}

function sizeMismatch(wanted: number, got: number): BuildError {
  return new BuildError("failed_precondition", `unexpected size: got ${got}, expected ${wanted} bytes`);
}
