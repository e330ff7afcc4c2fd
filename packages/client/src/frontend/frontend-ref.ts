import { create } from "@bufbuild/protobuf";
import type { Stat } from "@kiln/api/fsutil";
import { LLBBridge, type Ref, RefSchema } from "@kiln/api/gateway";
import { BuildError } from "@kiln/base";
import type { FrontendRef } from "@kiln/dockerfile";
import { definitionFromMessage, type State, stateFromDefinition } from "@kiln/llb";
import type { GatewayCalls } from "./gateway-calls.ts";

/** Bits of Go's `os.FileMode` that say what a file is. */
const MODE_DIRECTORY = 0x8000_0000;
const MODE_SYMLINK = 0x0800_0000;

/** A file or directory of a result. */
export interface FileInfo {
  /** Its name, without folders. */
  readonly path: string;
  /** Permission bits, with Go's bits (`os.FileMode`) for what it is. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly size: number;
  /** Nanoseconds since the epoch. */
  readonly modTimeNs: bigint;
  /** Target of a symbolic link; else empty. */
  readonly linkname: string;
  readonly isDirectory: boolean;
  readonly isSymlink: boolean;
}

/** Part of a file, in bytes. */
export interface ByteRange {
  readonly offset?: number;
  readonly length?: number;
}

/** A file system that the daemon holds for this frontend, until the build ends. It is built on first use. */
export class GatewayRef implements FrontendRef {
  readonly id: string;
  readonly #calls: GatewayCalls;
  readonly #message: Ref;

  constructor(calls: GatewayCalls, message: Ref) {
    this.#calls = calls;
    this.#message = message;
    this.id = message.id;
  }

  /** As it stands in results. */
  get message(): Ref {
    return this.#message;
  }

  /** Builds it now. @throws BuildError of the build. */
  async evaluate(): Promise<void> {
    if (!this.#calls.caps.has("gateway.evaluate")) {
      await this.statFile(".");
      return;
    }
    await this.#calls.unary(LLBBridge.method.evaluate, { Ref: this.id });
  }

  /** A file, or a part of it. @throws BuildError of the build, or for a file that can't be read. */
  async readFile(path: string, range?: ByteRange): Promise<Uint8Array> {
    const response = await this.#calls.unary(LLBBridge.method.readFile, {
      Ref: this.id,
      FilePath: path,
      ...rangeMessage(range),
    });
    return response.Data;
  }

  /** The entries of a directory, in order; `pattern` keeps those whose names match. */
  async readDir(path: string, pattern = ""): Promise<FileInfo[]> {
    this.#calls.require("readdir");
    const response = await this.#calls.unary(LLBBridge.method.readDir, {
      Ref: this.id,
      DirPath: path,
      IncludePattern: pattern,
    });
    return response.entries.map(fileInfo);
  }

  /** What is at a path. @throws BuildError of the build, or when there is nothing. */
  async statFile(path: string): Promise<FileInfo> {
    this.#calls.require("statfile");
    const { stat } = await this.#calls.unary(LLBBridge.method.statFile, { Ref: this.id, Path: path });
    if (stat === undefined) throw new BuildError("internal", `the daemon says nothing about ${path}`);
    return fileInfo(stat);
  }

  /** The graph that it is made by, to build on. @throws BuildError when the daemon doesn't tell. */
  toState(): State {
    this.#calls.require("reference.output");
    if (this.#message.def === undefined) {
      throw new BuildError("internal", "gateway did not return reference with definition");
    }
    return stateFromDefinition(definitionFromMessage(this.#message.def));
  }
}

/** The wire form of a ref; none is the empty file system. */
export function refMessage(ref: FrontendRef | undefined): Ref {
  if (ref === undefined) return create(RefSchema, {});
  if (ref instanceof GatewayRef) return ref.message;
  throw new BuildError("invalid_argument", "a result holds a ref that isn't of this client");
}

/** The field of a request for a part of a file. */
export function rangeMessage(range: ByteRange | undefined): {
  Range?: { Offset: bigint; Length: bigint };
} {
  if (range === undefined) return {};
  const length = range.length === undefined ? (1n << 62n) - 1n : BigInt(range.length);
  return { Range: { Offset: BigInt(range.offset ?? 0), Length: length } };
}

/** What the wire says about a file. */
export function fileInfo(stat: Stat): FileInfo {
  return {
    path: stat.path,
    mode: stat.mode,
    uid: stat.uid,
    gid: stat.gid,
    size: Number(stat.size),
    modTimeNs: stat.modTime,
    linkname: stat.linkname,
    isDirectory: (stat.mode & MODE_DIRECTORY) !== 0,
    isSymlink: (stat.mode & MODE_SYMLINK) !== 0,
  };
}
