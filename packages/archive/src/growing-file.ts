import { closeSync, openSync, read } from "node:fs";
import { BuildError } from "@kiln/base";
import { isErrno } from "@kiln/sys";

const READ_BYTES = 1 << 18;
/** A reader looks again after this long even when nobody wakes it. */
const POLL_MS = 1000;

const TICK = 0;
const STATE = 1;
const RUNNING = 0;
const COMPLETE = 1;

/** Memory through which writer and reader of a {@link GrowingFile} speak: a counter, a state, a length. */
export type GrowingFileMemory = SharedArrayBuffer;

/** A file that is read, perhaps by another thread, while it is being written. This is the writer's end. */
export class GrowingFile {
  readonly path: string;
  readonly memory: GrowingFileMemory = new SharedArrayBuffer(16);
  readonly #words = new Int32Array(this.memory, 0, 2);
  readonly #length = new BigInt64Array(this.memory, 8, 1);

  constructor(path: string) {
    this.path = path;
  }

  /** Says that the file holds this many bytes. */
  grow(bytes: number): void {
    Atomics.store(this.#length, 0, BigInt(bytes));
    this.#wake();
  }

  /** Says that nothing follows: the file is complete, or was given up. Only the first call counts. */
  end(complete: boolean): void {
    Atomics.compareExchange(this.#words, STATE, RUNNING, complete ? COMPLETE : 2);
    this.#wake();
  }

  #wake(): void {
    Atomics.add(this.#words, TICK, 1);
    Atomics.notify(this.#words, TICK);
  }
}

/**
 * Reads a growing file to its end, which is when the writer says so. `finalPath` is where it will have been
 * moved to by then.
 *
 * @throws `aborted` when the writer gave up, the reason of `signal`
 */
export async function* readGrowing(
  file: { readonly path: string; readonly memory: GrowingFileMemory },
  finalPath: string,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array> {
  const words = new Int32Array(file.memory, 0, 2);
  const length = new BigInt64Array(file.memory, 8, 1);
  const fd = openEither(file.path, finalPath);
  try {
    for (let offset = 0; ; ) {
      signal.throwIfAborted();
      const tick = Atomics.load(words, TICK);
      const state = Atomics.load(words, STATE);
      const available = Number(Atomics.load(length, 0)) - offset;
      if (available > 0) {
        const chunk = await readAt(fd, offset, Math.min(available, READ_BYTES));
        offset += chunk.length;
        yield chunk;
      } else if (state === COMPLETE) {
        return;
      } else if (state !== RUNNING) {
        throw new BuildError("aborted", "the file that is read was given up by its writer");
      } else {
        await Atomics.waitAsync(words, TICK, tick, POLL_MS).value;
      }
    }
  } finally {
    closeSync(fd);
  }
}

function openEither(path: string, finalPath: string): number {
  try {
    return openSync(path, "r");
  } catch (error) {
    if (!isErrno(error, "ENOENT")) throw error;
    return openSync(finalPath, "r");
  }
}

function readAt(fd: number, offset: number, length: number): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    read(fd, Buffer.allocUnsafe(length), 0, length, offset, (error, bytesRead, buffer) => {
      if (error) reject(error);
      else if (bytesRead === 0) reject(new BuildError("data_loss", "file is shorter than its writer said"));
      else resolve(buffer.subarray(0, bytesRead));
    });
  });
}
