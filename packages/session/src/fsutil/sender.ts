import { closeSync, fstatSync, readSync } from "node:fs";
import { BuildError, errorMessage, isBuildError } from "@kiln/base";
import { isErrno } from "@kiln/sys";
import { isGoRegular } from "./mode.ts";
import { Pace } from "./pace.ts";
import { Queue } from "./queue.ts";
import type { TreeSource } from "./source.ts";
import type { Packet } from "./wire.ts";

/** A call that carries packets; both ends of gRPC fit. */
export interface PacketStream {
  receive(): Promise<Packet | undefined>;
  send(packet: Packet): Promise<void>;
}

/** What a sender may be told. */
export interface SendOptions {
  /** Bytes sent so far; `done` with the last call. */
  readonly onProgress?: ((sizeBytes: number, done: boolean) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** Contents go in packets of this size. BuildKit's sender takes 32 KiB; receivers take any. */
const dataChunkBytes = 128 << 10;

/**
 * Sends all entries, and the contents that the receiver asks for, until it says that it
 * is done. What fails here is told to the receiver too.
 */
export async function sendTree(
  stream: PacketStream,
  source: TreeSource,
  opts: SendOptions = {},
): Promise<void> {
  await new Sender(stream, source, opts).run();
}

class Sender {
  readonly #stream: PacketStream;
  readonly #source: TreeSource;
  readonly #opts: SendOptions;
  readonly #files = new Map<number, string>();
  readonly #requests = new Queue<{ readonly id: number; readonly path: string }>();
  readonly #pace = new Pace();
  #wake: (() => void) | undefined;
  #stopped = false;
  #sentBytes = 0;

  constructor(stream: PacketStream, source: TreeSource, opts: SendOptions) {
    this.#stream = stream;
    this.#source = source;
    this.#opts = opts;
  }

  async run(): Promise<void> {
    // Both use the source, which the caller may close once this returns.
    const sending = [this.#sendStats(), this.#sendFiles()];
    try {
      await Promise.all([...sending, this.#readRequests()]);
    } finally {
      this.stop();
      await Promise.allSettled(sending);
    }
    this.#opts.onProgress?.(this.#sentBytes, true);
  }

  stop(): void {
    this.#stopped = true;
    this.#wake?.();
  }

  async #sendStats(): Promise<void> {
    let id = 0;
    try {
      for (const stat of this.#source.steps?.() ?? this.#source.stats()) {
        if (this.#stopped) return;
        if (stat === undefined) {
          if (this.#pace.due) await this.#pace.rest();
          continue;
        }
        if (isGoRegular(stat.mode)) this.#files.set(id, stat.path);
        id++;
        await this.#send({ type: "stat", stat });
      }
    } catch (error) {
      await this.#stream.send({ type: "error", message: errorMessage(error) }).catch(() => undefined);
      throw error;
    }
    await this.#stream.send({ type: "stat", stat: undefined });
  }

  async #send(packet: Packet): Promise<void> {
    if (this.#stopped) throw new BuildError("canceled", "the transfer has ended");
    this.#opts.signal?.throwIfAborted();
    await this.#stream.send(packet);
    this.#sentBytes += packet.wireBytes ?? 0;
    this.#opts.onProgress?.(this.#sentBytes, false);
    if (this.#pace.due) await this.#pace.rest();
  }

  async #readRequests(): Promise<void> {
    for (;;) {
      const packet = await this.#stream.receive();
      if (packet === undefined)
        throw new BuildError("unavailable", "the receiver left before the transfer was done");
      switch (packet.type) {
        case "request":
          this.#queue(packet.id);
          break;
        case "error":
          throw new BuildError("unknown", `error from receiver: ${packet.message}`);
        case "fin":
          await this.#stream.send({ type: "fin" });
          this.stop();
          return;
        case "stat":
        case "data":
          throw new BuildError("invalid_argument", `unexpected ${packet.type} packet from the receiver`);
      }
    }
  }

  #queue(id: number): void {
    const path = this.#files.get(id);
    if (path === undefined) throw new BuildError("invalid_argument", `invalid file id ${id}`);
    this.#files.delete(id);
    this.#requests.push({ id, path });
    this.#wake?.();
  }

  async #sendFiles(): Promise<void> {
    const buffer = Buffer.allocUnsafe(dataChunkBytes);
    while (!this.#stopped) {
      const request = this.#requests.take();
      if (request === undefined) {
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
        this.#wake = undefined;
        continue;
      }
      await this.#sendFile(request.id, request.path, buffer);
    }
  }

  async #sendFile(id: number, path: string, buffer: Buffer): Promise<void> {
    const fd = this.#tryOpen(path);
    if (fd !== undefined) {
      try {
        for (;;) {
          const n = readSync(fd, buffer, 0, buffer.length, null);
          if (n === 0) break;
          await this.#send({ type: "data", id, data: buffer.subarray(0, n) });
        }
      } finally {
        closeSync(fd);
      }
    }
    await this.#stream.send({ type: "data", id, data: new Uint8Array(0) });
  }

  /** A file that has vanished or can't be read is sent empty, as the protocol wants it. */
  #tryOpen(path: string): number | undefined {
    let fd: number;
    try {
      fd = this.#source.open(path);
    } catch (error) {
      if (isErrno(error, "ENOENT", "ENOTDIR", "EACCES", "EPERM", "ELOOP", "ENXIO")) return undefined;
      if (isBuildError(error, "not_found")) return undefined;
      throw error;
    }
    if (fstatSync(fd).isFile()) return fd;
    closeSync(fd);
    return undefined;
  }
}
