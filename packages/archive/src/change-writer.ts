import { closeSync, openSync, readSync } from "node:fs";
import { posix } from "node:path";
import { BuildError } from "@kiln/base";
import { AT, type FileStat, fsPath, getXattr, readlinkAt, S, statAt } from "@kiln/sys";
import { encodeTarHeader, tarPadding, tarTrailer } from "./tar-encoder.ts";
import type { TarHeader, TarType } from "./types.ts";

/** What happened to a path; `unmodified` is told for hard-linked files only. */
export type ChangeKind = "add" | "modify" | "delete" | "unmodified";

/** One difference between two trees. `path` begins with a slash; `stat` is absent for a deletion. */
export interface Change {
  readonly kind: ChangeKind;
  readonly path: string;
  readonly stat?: FileStat;
}

const CHUNK_BYTES = 1 << 20;

/**
 * Writes changes as an OCI layer, the bytes being those of containerd's `ChangeWriter`: PAX headers with
 * whole seconds, no names of users, `security.capability` as the only attribute, the directories above a
 * change before it, whiteouts with zero times.
 */
export class ChangeWriter {
  readonly #source: string;
  readonly #epochNs: bigint | undefined;
  /** Inode → the name under which it was written. */
  readonly #written = new Map<bigint, string>();
  /** Inode → unmodified names of it that must become links when it is written. */
  readonly #pending = new Map<bigint, string[]>();
  readonly #dirs = new Set<string>();
  readonly #out = Buffer.allocUnsafeSlow(CHUNK_BYTES);
  #filled = 0;

  /** `source`: the tree that holds the changed files. */
  constructor(source: string, sourceDateEpoch: number | undefined) {
    this.#source = source;
    this.#epochNs = sourceDateEpoch === undefined ? undefined : BigInt(sourceDateEpoch) * 1_000_000_000n;
  }

  /** Writes one change; yields the archive's bytes as they gather. What is yielded is good until the next is asked for. */
  *write(change: Change): Generator<Buffer> {
    if (change.kind === "delete") yield* this.#whiteout(change.path);
    else if (change.stat) yield* this.#entry(change.kind, change.path, change.stat);
  }

  /** The end of the archive. */
  *finish(): Generator<Buffer> {
    yield* this.#put(tarTrailer());
    if (this.#filled > 0) yield this.#out.subarray(0, this.#filled);
    this.#filled = 0;
  }

  *#whiteout(path: string): Generator<Buffer> {
    const name = posix.join(posix.dirname(path), `.wh.${posix.basename(path)}`).slice(1);
    const header: TarHeader = { name, type: "file", mode: 0, uid: 0, gid: 0, size: 0, mtimeNs: 0n };
    yield* this.#parents(name, "file");
    yield* this.#put(encodeTarHeader(header));
  }

  *#entry(kind: ChangeKind, path: string, stat: FileStat): Generator<Buffer> {
    const type = typeOf(stat);
    if (type === undefined) return;
    const file = this.#source + path;
    const name = type === "dir" ? `${path.slice(1)}/` : path.slice(1);
    let header = this.#header(name, type, stat);
    if (type === "symlink") header = { ...header, linkname: readlinkAt(AT.FDCWD, file) };
    let extraNames: readonly string[] = [];
    if (type !== "dir" && stat.nlink > 1) {
      const first = this.#written.get(stat.ino);
      if (first !== undefined) header = { ...header, type: "link", linkname: first, size: 0 };
      else if (kind === "unmodified") {
        this.#pending.set(stat.ino, [...(this.#pending.get(stat.ino) ?? []), name]);
        return;
      } else {
        this.#written.set(stat.ino, name);
        extraNames = this.#pending.get(stat.ino) ?? [];
        this.#pending.delete(stat.ino);
      }
    } else if (kind === "unmodified") return;
    const capability = getXattr(file, "security.capability");
    if (capability && capability.length > 0) {
      header = { ...header, xattrs: new Map([["security.capability", capability]]) };
    }
    yield* this.#parents(name, header.type);
    yield* this.#put(encodeTarHeader(header));
    if (header.type === "file" && header.size > 0) yield* this.#content(file, header.size);
    for (const extra of extraNames) {
      yield* this.#parents(extra, "link");
      yield* this.#put(encodeTarHeader({ ...header, name: extra, type: "link", linkname: name, size: 0 }));
    }
  }

  #header(name: string, type: TarType, stat: FileStat): TarHeader {
    let mtimeNs = stat.mtimeNs;
    if (this.#epochNs !== undefined && mtimeNs > this.#epochNs) mtimeNs = this.#epochNs;
    const second = 1_000_000_000n;
    const isDevice = type === "char" || type === "block";
    return {
      name,
      type,
      mode: stat.mode & 0o7777,
      uid: stat.uid,
      gid: stat.gid,
      size: type === "file" ? stat.size : 0,
      mtimeNs: mtimeNs - (((mtimeNs % second) + second) % second),
      devmajor: isDevice ? stat.rdevMajor : 0,
      devminor: isDevice ? stat.rdevMinor : 0,
      format: "pax",
    };
  }

  /** Writes the directory above a name when it hasn't been, and so on upwards. */
  *#parents(name: string, type: TarType): Generator<Buffer> {
    const plain = name.replace(/\/+$/, "");
    const parent = posix.dirname(plain);
    if (parent !== "." && parent !== "/" && !this.#dirs.has(parent)) {
      this.#dirs.add(parent);
      const stat = statAt(AT.FDCWD, `${this.#source}/${parent}`, 0);
      yield* this.#entry("modify", `/${parent}`, stat);
    }
    if (type === "dir") this.#dirs.add(plain);
  }

  *#content(path: string, size: number): Generator<Buffer> {
    const fd = openSync(fsPath(path), "r");
    try {
      for (let left = size; left > 0; ) {
        const room = Math.min(left, CHUNK_BYTES - this.#filled);
        const length = readSync(fd, this.#out, this.#filled, room, null);
        if (length === 0) {
          throw new BuildError(
            "failed_precondition",
            `file ${JSON.stringify(path)} shrank while it was read`,
          );
        }
        left -= length;
        yield* this.#gain(length);
      }
    } finally {
      closeSync(fd);
    }
    yield* this.#put(tarPadding(size));
  }

  *#put(part: Buffer): Generator<Buffer> {
    for (let at = 0; at < part.length; ) {
      const length = part.copy(this.#out, this.#filled, at);
      at += length;
      yield* this.#gain(length);
    }
  }

  /** So many bytes have been added to what is gathered, which is handed out when there is no more room. */
  *#gain(length: number): Generator<Buffer> {
    this.#filled += length;
    if (this.#filled < CHUNK_BYTES) return;
    this.#filled = 0;
    yield this.#out;
  }
}

/** Kind of entry that a file becomes; undefined for a socket, which no archive holds. */
export function typeOf(stat: { readonly mode: number }): TarType | undefined {
  switch (stat.mode & S.IFMT) {
    case S.IFREG:
      return "file";
    case S.IFDIR:
      return "dir";
    case S.IFLNK:
      return "symlink";
    case S.IFCHR:
      return "char";
    case S.IFBLK:
      return "block";
    case S.IFIFO:
      return "fifo";
    default:
      return undefined;
  }
}
