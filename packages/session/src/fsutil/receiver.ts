import { closeSync } from "node:fs";
import { join } from "node:path";
import { BuildError, errorMessage, wrapError } from "@kiln/base";
import { isErrno } from "@kiln/sys";
import { DiskWriter, writeAll } from "./disk-writer.ts";
import { isGoDir, isGoRegular } from "./mode.ts";
import { compareWirePaths } from "./order.ts";
import { Pace } from "./pace.ts";
import { Queue } from "./queue.ts";
import type { PacketStream } from "./sender.ts";
import { cloneStat, type Stat } from "./stat.ts";
import { DiskTree, walkTree } from "./tree.ts";
import { TreeValidator } from "./validator.ts";
import { encodeStat, type Packet } from "./wire.ts";

/** How entries are compared with what is there: by their metadata, or not at all (all is fetched anew). */
export type Differ = "metadata" | "none";

export type ChangeKind = "add" | "modify" | "delete";

/** Computes what identifies a file; fed with its contents. */
export interface ContentHasher {
  update(data: Uint8Array): void;
  digest(): string;
}

/** One change to the destination, told after it was made. */
export interface Change {
  readonly kind: ChangeKind;
  readonly path: string;
  /** The entry as it was sent, undefined for a removal. */
  readonly stat: Stat | undefined;
  /** What the hasher gave, when there is one and the change is no removal. */
  readonly digest: string | undefined;
}

/** What a receiver may be told. */
export interface ReceiveOptions {
  readonly differ?: Differ | undefined;
  /** Adds to what is there: nothing is compared or removed. */
  readonly merge?: boolean | undefined;
  /** Files appear, and replace older ones, only once they are complete. */
  readonly whole?: boolean | undefined;
  /** May change an entry before it is written (and compared); false leaves it out. */
  readonly filter?: ((path: string, stat: Stat) => boolean) | undefined;
  /**
   * Metadata-only mode: all entries go to the file `.fsutil-metadata`, and only those for which this says true
   * are fetched, with the directories above.
   */
  readonly metadataOnly?: ((path: string, stat: Stat) => boolean) | undefined;
  readonly hasher?: ((stat: Stat) => ContentHasher) | undefined;
  readonly onChange?: ((change: Change) => void) | undefined;
  /** Bytes received so far; `done` with the last call. */
  readonly onProgress?: ((sizeBytes: number, done: boolean) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** File at the top that holds all entries in metadata-only mode: each a length (uint32 LE) and a `Stat`. */
export const metadataFileName = ".fsutil-metadata";

/** Files whose contents are asked for at a time; each holds a descriptor. */
const maxOpenFiles = 256;
/** Entries in one transfer. */
const maxEntries = 10_000_000;

/**
 * Receives a tree into the directory `dest`: writes what is new or different, removes what is no longer sent.
 * Refuses whatever would leave `dest`. The sender gets to know what fails.
 */
export async function receiveTree(
  stream: PacketStream,
  dest: string,
  opts: ReceiveOptions = {},
): Promise<void> {
  const receiver = new Receiver(stream, dest, opts);
  try {
    await receiver.run();
  } catch (error) {
    if (!receiver.failedBySender) {
      await stream.send({ type: "error", message: errorMessage(error) }).catch(() => undefined);
    }
    throw error;
  } finally {
    receiver.dispose();
  }
}

interface Fetch {
  readonly id: number;
  readonly path: string;
  /** As sent. */
  readonly stat: Stat;
  /** As written. */
  readonly written: Stat;
  readonly kind: ChangeKind;
  fd: number | undefined;
  hasher: ContentHasher | undefined;
}

class Receiver {
  failedBySender = false;
  readonly #stream: PacketStream;
  readonly #opts: ReceiveOptions;
  readonly #dest: string;
  readonly #writer: DiskWriter;
  readonly #existing: Iterator<Stat> | undefined;
  readonly #validator = new TreeValidator();
  readonly #fetching = new Map<number, Fetch>();
  readonly #waiting = new Queue<Fetch>();
  readonly #metadata: Uint8Array[] = [];
  readonly #parents: { readonly stat: Stat; sent: boolean }[] = [];
  readonly #pace = new Pace();
  readonly #rewritten = new Set<string>();
  #current: Stat | undefined;
  #removed: string | undefined;
  #nextId = 0;
  #allSent = false;
  #finSent = false;
  #receivedBytes = 0;

  constructor(stream: PacketStream, dest: string, opts: ReceiveOptions) {
    this.#stream = stream;
    this.#opts = opts;
    this.#dest = dest;
    this.#writer = new DiskWriter(dest, { whole: opts.whole ?? false });
    this.#existing = opts.merge ? undefined : walkTree(new DiskTree(dest));
  }

  dispose(): void {
    for (const { fd } of [...this.#fetching.values(), ...this.#waiting.drain()])
      if (fd !== undefined) closeSync(fd);
    this.#fetching.clear();
    this.#writer[Symbol.dispose]();
  }

  async run(): Promise<void> {
    this.#advance();
    for (;;) {
      const packet = await this.#stream.receive();
      this.#opts.signal?.throwIfAborted();
      if (packet === undefined)
        throw new BuildError("unavailable", "the sender left before the transfer was done");
      this.#receivedBytes += packet.wireBytes ?? 0;
      this.#opts.onProgress?.(this.#receivedBytes, false);
      if (packet.type === "fin") break;
      await this.#onPacket(packet);
      for (let fetch = this.#next(); fetch !== undefined; fetch = this.#next()) {
        await this.#stream.send({ type: "request", id: fetch.id });
      }
      await this.#finishWhenDone();
      if (this.#pace.due) await this.#pace.rest();
    }
    if (!this.#finSent) throw new BuildError("invalid_argument", "the sender ended the transfer early");
    this.#opts.onProgress?.(this.#receivedBytes, true);
  }

  /** A promise only when there is something to wait for: most packets have nothing. */
  #onPacket(packet: Packet): Promise<void> | undefined {
    switch (packet.type) {
      case "stat":
        return packet.stat === undefined ? this.#onAllSent() : this.#onStat(packet.stat);
      case "data":
        this.#onData(packet.id, packet.data);
        return undefined;
      case "error":
        this.failedBySender = true;
        throw new BuildError("unknown", `error from sender: ${packet.message}`);
      case "request":
      case "fin":
        throw new BuildError("invalid_argument", `unexpected ${packet.type} packet from the sender`);
    }
  }

  #onStat(stat: Stat): Promise<void> | undefined {
    if (this.#allSent) throw new BuildError("invalid_argument", "an entry after the last one");
    const id = this.#nextId++;
    if (id >= maxEntries) throw new BuildError("resource_exhausted", `more than ${maxEntries} entries`);
    this.#validator.check(stat);
    if (this.#opts.metadataOnly) return this.#onMetadata(id, stat, this.#opts.metadataOnly);
    return this.#merge(id, stat);
  }

  async #onMetadata(id: number, stat: Stat, wanted: (path: string, stat: Stat) => boolean): Promise<void> {
    if (stat.path === metadataFileName) return;
    const bytes = encodeStat(stat);
    const length = new Uint8Array(4);
    new DataView(length.buffer).setUint32(0, bytes.length, true);
    this.#metadata.push(length, bytes);
    const slash = stat.path.lastIndexOf("/");
    const dir = slash < 0 ? "" : stat.path.slice(0, slash);
    while (this.#parents.length > 0 && this.#parents.at(-1)?.stat.path !== dir) this.#parents.pop();
    const keep = wanted(stat.path, stat);
    if (keep) {
      for (const parent of this.#parents) {
        if (!parent.sent) await this.#merge(-1, parent.stat);
        parent.sent = true;
      }
      await this.#merge(id, stat);
    }
    if (isGoDir(stat.mode)) this.#parents.push({ stat, sent: keep });
  }

  /** Compares an entry with the existing tree, which is walked in step. */
  #merge(id: number, stat: Stat): Promise<void> | undefined {
    if (this.#current !== undefined && compareWirePaths(this.#current.path, stat.path) < 0) {
      return this.#removeBefore(stat.path).then(() => this.#settle(id, stat));
    }
    this.#settle(id, stat);
    return undefined;
  }

  async #removeBefore(path: string | undefined): Promise<void> {
    while (this.#current !== undefined) {
      const old = this.#current;
      if (path !== undefined && compareWirePaths(old.path, path) >= 0) return;
      this.#advance();
      await this.#remove(old);
    }
  }

  /** The existing tree has come to this path, or is past it. */
  #settle(id: number, stat: Stat): void {
    const written = cloneStat(stat);
    const keep = this.#opts.filter?.(stat.path, written) ?? true;
    const old = this.#current;
    if (old === undefined || old.path !== stat.path) {
      this.#removed = undefined;
      if (keep) this.#put(id, { stat, written, kind: "add" });
      return;
    }
    this.#advance();
    if (keep && this.#isSame(old, written)) {
      if (isGoDir(stat.mode)) this.#writer.keepDir(stat.path, written);
      this.#removed = undefined;
      return;
    }
    this.#removed = isGoDir(old.mode) && !isGoDir(stat.mode) ? `${old.path}/` : undefined;
    if (keep) this.#put(id, { stat, written, kind: "modify" });
  }

  #isSame(old: Stat, written: Stat): boolean {
    // A link to a file that was written anew still leads to the old contents.
    if (isGoRegular(written.mode) && this.#rewritten.has(written.linkname)) return false;
    return sameEntry(old, written, this.#opts.differ ?? "metadata");
  }

  #advance(): void {
    const next = this.#existing?.next();
    this.#current = next === undefined || next.done ? undefined : next.value;
  }

  async #remove(old: Stat): Promise<void> {
    if (this.#removed !== undefined && old.path.startsWith(this.#removed)) return;
    this.#removed = isGoDir(old.mode) ? `${old.path}/` : undefined;
    if (this.#opts.filter?.(old.path, emptyStat()) === false) return;
    await this.#writer.remove(old.path, this.#pace);
    this.#opts.onChange?.({ kind: "delete", path: old.path, stat: undefined, digest: undefined });
  }

  #put(id: number, entry: { stat: Stat; written: Stat; kind: ChangeKind }): void {
    const { stat, written, kind } = entry;
    const { path } = stat;
    const fd = this.#writing(path, () => this.#writer.put(path, written, { isNew: kind === "add" }));
    const hasher = this.#opts.hasher?.(stat);
    if (fd === undefined) {
      this.#opts.onChange?.({ kind, path, stat, digest: hasher?.digest() });
      return;
    }
    this.#rewritten.add(path);
    const fetch: Fetch = { id, path, stat, written, kind, fd, hasher };
    if (this.#fetching.size + this.#waiting.length >= maxOpenFiles) {
      closeSync(fd);
      fetch.fd = undefined;
    }
    this.#waiting.push(fetch);
  }

  /** The next file to ask for, if there is room. */
  #next(): Fetch | undefined {
    if (this.#fetching.size >= maxOpenFiles) return undefined;
    const fetch = this.#waiting.take();
    if (fetch === undefined) return undefined;
    this.#fetching.set(fetch.id, fetch);
    fetch.fd ??= this.#writer.reopen(fetch.path);
    return fetch;
  }

  #onData(id: number, data: Uint8Array): void {
    const fetch = this.#fetching.get(id);
    if (fetch?.fd === undefined) throw new BuildError("invalid_argument", `invalid file request ${id}`);
    if (data.length > 0) {
      const { fd } = fetch;
      this.#writing(fetch.path, () => writeAll(fd, data));
      fetch.hasher?.update(data);
      return;
    }
    this.#fetching.delete(id);
    this.#writer.finishFile(fetch.path, fetch.fd, fetch.written);
    this.#opts.onChange?.({
      kind: fetch.kind,
      path: fetch.path,
      stat: fetch.stat,
      digest: fetch.hasher?.digest(),
    });
  }

  /** A full disk is told of with the file's path: Node's own message has none. */
  #writing<T>(path: string, write: () => T): T {
    try {
      return write();
    } catch (error) {
      throw isErrno(error, "ENOSPC", "EDQUOT", "EIO", "EFBIG")
        ? wrapError(error, `failed to write ${join(this.#dest, path)}`)
        : error;
    }
  }

  #onAllSent(): Promise<void> {
    if (this.#allSent) throw new BuildError("invalid_argument", "the end of the entries came twice");
    this.#allSent = true;
    return this.#removeBefore(undefined);
  }

  async #finishWhenDone(): Promise<void> {
    if (!this.#allSent || this.#finSent || this.#fetching.size > 0 || this.#waiting.length > 0) return;
    this.#finSent = true;
    await this.#writer.finishDirs(this.#pace);
    if (this.#opts.metadataOnly) this.#writer.writeTopFile(metadataFileName, this.#metadata);
    await this.#stream.send({ type: "fin" });
  }
}

function emptyStat(): Stat {
  return {
    path: "",
    mode: 0,
    uid: 0,
    gid: 0,
    size: 0n,
    modTime: 0n,
    linkname: "",
    devmajor: 0n,
    devminor: 0n,
    xattrs: {},
  };
}

/** True when nothing has to be written. Source: fsutil's DiffMetadata. */
export function sameEntry(a: Stat, b: Stat, differ: Differ): boolean {
  if (differ === "none") return false;
  if (!isGoDir(a.mode) && (a.size !== b.size || a.modTime !== b.modTime)) return false;
  return (
    a.mode === b.mode &&
    a.uid === b.uid &&
    a.gid === b.gid &&
    a.devmajor === b.devmajor &&
    a.devminor === b.devminor &&
    a.linkname === b.linkname
  );
}
