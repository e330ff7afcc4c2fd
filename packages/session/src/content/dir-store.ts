import { createHash, type Hash } from "node:crypto";
import { createReadStream } from "node:fs";
import { type FileHandle, mkdir, open, readdir, rename, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { BuildError, wrapError } from "@kiln/base";
import type { BlobIngest, BlobIngestStatus, BlobStore, StoredBlob } from "./blob-store.ts";

/**
 * A folder with `blobs/<algorithm>/<hex>`, as in an OCI layout. Unfinished writes lie in `ingest`. Labels are not
 * kept.
 */
export class DirBlobStore implements BlobStore {
  readonly root: string;
  readonly #writable: boolean;
  readonly #open = new Set<string>();

  constructor(root: string, opts: { readonly writable?: boolean } = {}) {
    this.root = root;
    this.#writable = opts.writable ?? false;
  }

  async info(digest: string): Promise<StoredBlob> {
    try {
      const st = await stat(this.#path(digest));
      return { digest, sizeBytes: st.size, createdAt: st.birthtime, updatedAt: st.mtime, labels: {} };
    } catch (error) {
      throw notFound(error, `content ${digest}`);
    }
  }

  async *list(): AsyncIterable<StoredBlob> {
    for (const name of await names(join(this.root, "blobs", "sha256"))) {
      if (/^[0-9a-f]{64}$/.test(name)) yield await this.info(`sha256:${name}`);
    }
  }

  async *read(
    digest: string,
    range: { readonly offset: number; readonly sizeBytes: number },
  ): AsyncIterable<Uint8Array> {
    if (range.sizeBytes === 0) return;
    const stream = createReadStream(this.#path(digest), {
      start: range.offset,
      end: range.offset + range.sizeBytes - 1,
      highWaterMark: 1 << 20,
    });
    try {
      for await (const chunk of stream) yield chunk as Buffer;
    } catch (error) {
      throw notFound(error, `content ${digest}`);
    }
  }

  async ingest(ref: string, expected: { readonly digest?: string }): Promise<BlobIngest> {
    if (!this.#writable) throw new BuildError("failed_precondition", "read-only content store");
    if (expected.digest !== undefined && expected.digest !== "" && (await this.#has(expected.digest))) {
      throw new BuildError("already_exists", `content ${expected.digest}: already exists`);
    }
    const file = this.#ingestPath(ref);
    if (this.#open.has(file)) throw new BuildError("unavailable", `ref ${ref} locked: unavailable`);
    this.#open.add(file);
    try {
      await mkdir(join(this.root, "ingest"), { recursive: true });
      return await FileIngest.open(file, ref, {
        finish: (digest) => this.#finish(file, digest),
        release: () => this.#open.delete(file),
      });
    } catch (error) {
      this.#open.delete(file);
      throw error;
    }
  }

  async ingests(): Promise<readonly BlobIngestStatus[]> {
    const out: BlobIngestStatus[] = [];
    for (const name of await names(join(this.root, "ingest"))) {
      const st = await stat(join(this.root, "ingest", name));
      out.push({ ref: name, offset: st.size, startedAt: st.birthtime, updatedAt: st.mtime });
    }
    return out;
  }

  async abort(ref: string): Promise<void> {
    await rm(this.#ingestPath(ref), { force: true });
  }

  async delete(digest: string): Promise<void> {
    if (!this.#writable) throw new BuildError("failed_precondition", "read-only content store");
    try {
      await rm(this.#path(digest));
    } catch (error) {
      throw notFound(error, `content ${digest}`);
    }
  }

  async #finish(file: string, digest: string): Promise<void> {
    if (await this.#has(digest)) {
      await rm(file, { force: true });
      throw new BuildError("already_exists", `content ${digest}: already exists`);
    }
    const target = this.#path(digest);
    await mkdir(join(target, ".."), { recursive: true });
    await rename(file, target);
  }

  async #has(digest: string): Promise<boolean> {
    try {
      await stat(this.#path(digest));
      return true;
    } catch {
      return false;
    }
  }

  #ingestPath(ref: string): string {
    return join(this.root, "ingest", createHash("sha256").update(ref).digest("hex"));
  }

  #path(digest: string): string {
    const match = /^(sha256|sha384|sha512):([0-9a-f]{64,128})$/.exec(digest);
    if (!match) throw new BuildError("invalid_argument", `${JSON.stringify(digest)} failed validation`);
    return join(this.root, "blobs", match[1] as string, match[2] as string);
  }
}

interface IngestOwner {
  finish(digest: string): Promise<void>;
  release(): void;
}

class FileIngest implements BlobIngest {
  readonly ref: string;
  readonly startedAt: Date;
  updatedAt: Date;
  offset = 0;
  readonly #file: FileHandle;
  readonly #path: string;
  readonly #owner: IngestOwner;
  #hash: Hash = createHash("sha256");
  #closed = false;

  private constructor(ref: string, at: { file: FileHandle; path: string }, owner: IngestOwner) {
    this.ref = ref;
    this.#file = at.file;
    this.#path = at.path;
    this.#owner = owner;
    this.startedAt = new Date();
    this.updatedAt = this.startedAt;
  }

  /** Opens what was written under this ref before, hashing it again. */
  static async open(path: string, ref: string, owner: IngestOwner): Promise<FileIngest> {
    const file = await open(path, "a+", 0o644);
    const ingest = new FileIngest(ref, { file, path }, owner);
    for await (const chunk of file.createReadStream({ start: 0, autoClose: false })) {
      ingest.#hash.update(chunk as Buffer);
      ingest.offset += (chunk as Buffer).length;
    }
    return ingest;
  }

  digest(): string {
    return `sha256:${this.#hash.copy().digest("hex")}`;
  }

  async write(data: Uint8Array): Promise<void> {
    try {
      for (let at = 0; at < data.length; ) {
        at += (await this.#file.write(data, at, data.length - at)).bytesWritten;
      }
    } catch (error) {
      throw wrapError(error, `failed to write ${this.#path}`);
    }
    this.#hash.update(data);
    this.offset += data.length;
    this.updatedAt = new Date();
  }

  async truncate(sizeBytes: number): Promise<void> {
    if (sizeBytes !== 0) throw new BuildError("unimplemented", "truncating to anything but 0");
    await this.#file.truncate(0);
    this.#hash = createHash("sha256");
    this.offset = 0;
  }

  async commit(expected: { readonly sizeBytes?: number; readonly digest?: string }): Promise<void> {
    if (expected.sizeBytes !== undefined && expected.sizeBytes !== this.offset) {
      throw new BuildError(
        "failed_precondition",
        `unexpected commit size ${this.offset}, expected ${expected.sizeBytes}: failed precondition`,
      );
    }
    const digest = this.digest();
    if (expected.digest !== undefined && expected.digest !== digest) {
      throw new BuildError(
        "failed_precondition",
        `unexpected commit digest ${digest}, expected ${expected.digest}: failed precondition`,
      );
    }
    await this.#file.sync();
    await this.close();
    await this.#owner.finish(digest);
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#owner.release();
    await this.#file.close();
  }
}

async function names(dir: string): Promise<string[]> {
  try {
    return (await readdir(dir)).sort();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return [];
    throw error;
  }
}

function notFound(error: unknown, what: string): unknown {
  const code = error instanceof Error && "code" in error ? error.code : undefined;
  return code === "ENOENT" ? new BuildError("not_found", `${what}: not found`, { cause: error }) : error;
}
