import { closeSync, constants, openSync, rmSync } from "node:fs";
import { Socket } from "node:net";
import { join } from "node:path";
import type { Readable, Writable } from "node:stream";
import { ReadStream } from "node:tty";
import { errorMessage } from "@kiln/base";
import type { ProcessIo, TerminalSize } from "./executor.ts";
import { mkfifo, openPty, setWindowSize } from "./libc.ts";
import type { StdioPaths } from "./protocol.ts";
import { errnoOf } from "./root-dir.ts";

/** How long output may still trickle after the process has ended, from others that hold its streams. */
const LINGER_MS = 1000;

/** The daemon's ends of a process's streams. No byte of them passes through the zygote. */
export interface Stdio {
  readonly paths: StdioPaths;
  /** Starts copying; call when the process has its ends open. */
  attach(): void;
  /** Tells the terminal its size; nothing without one. */
  resize(size: TerminalSize): void;
  /** Waits for the rest of the output once the process has ended. */
  drained(): Promise<void>;
  /** Closes everything and removes the pipes. */
  close(): void;
}

/** Makes the streams of a process: a terminal, or pipes named in `dir`. */
export function openStdio(dir: string, name: string, tty: boolean, io: ProcessIo): Stdio {
  return tty ? new TerminalStdio(io) : new PipeStdio(dir, name, io);
}

/** Copies until the source ends, with back-pressure; `sink` isn't ended. */
function copy(source: Readable, sink: Writable | undefined): Promise<void> {
  return new Promise((resolve) => {
    source.once("close", () => resolve());
    source.on("error", () => source.destroy());
    source.once("end", () => source.destroy());
    if (!sink) {
      source.resume();
      return;
    }
    sink.once("error", (error) => {
      source.unpipe(sink);
      source.resume();
      process.emitWarning(`output of a step is lost: ${errorMessage(error)}`);
    });
    source.pipe(sink, { end: false });
  });
}

/** Waits for `done`, at most as long as bytes keep coming, or a slow `sink` is waited for, plus {@link LINGER_MS}. */
async function settle(
  done: Promise<unknown>,
  sources: readonly Readable[],
  sinks: readonly (Writable | undefined)[],
): Promise<void> {
  let last = Date.now();
  const touch = (): void => {
    last = Date.now();
  };
  for (const source of sources) source.on("data", touch);
  const { promise: late, resolve } = Promise.withResolvers<void>();
  const timer = setInterval(() => {
    if (sinks.some((sink) => sink?.writableNeedDrain)) touch();
    if (Date.now() - last > LINGER_MS) resolve();
  }, LINGER_MS / 4);
  try {
    await Promise.race([done, late]);
  } finally {
    clearInterval(timer);
    for (const source of sources) source.off("data", touch);
  }
}

class PipeStdio implements Stdio {
  readonly paths: StdioPaths;
  readonly #io: ProcessIo;
  readonly #files: string[] = [];
  readonly #outputs: { readonly fd: number; readonly sink: Writable }[] = [];
  readonly #sources: Socket[] = [];
  readonly #done: Promise<void>[] = [];
  /** Keeps the input pipe open at both ends until the process has its own. */
  #stdinHold: number | undefined;
  #stdin: Socket | undefined;
  #stdinPath: string | undefined;

  constructor(dir: string, name: string, io: ProcessIo) {
    this.#io = io;
    try {
      this.#stdinPath = io.stdin && this.#makePipe(join(dir, `${name}.stdin`));
      if (this.#stdinPath !== undefined) {
        this.#stdinHold = openSync(this.#stdinPath, constants.O_RDWR | constants.O_NONBLOCK);
      }
      const stdout = this.#makeOutput(join(dir, `${name}.stdout`), io.stdout);
      const stderr = this.#makeOutput(join(dir, `${name}.stderr`), io.stderr);
      this.paths = { kind: "pipes", stdin: this.#stdinPath, stdout, stderr };
    } catch (error) {
      this.close();
      throw error;
    }
  }

  #makePipe(path: string): string {
    mkfifo(path, 0o600);
    this.#files.push(path);
    return path;
  }

  #makeOutput(path: string, sink: Writable | undefined): string | undefined {
    if (!sink) return undefined;
    this.#makePipe(path);
    this.#outputs.push({ fd: openSync(path, constants.O_RDONLY | constants.O_NONBLOCK), sink });
    return path;
  }

  attach(): void {
    for (const { fd, sink } of this.#outputs.splice(0)) {
      const source = new Socket({ fd, readable: true, writable: false });
      this.#sources.push(source);
      this.#done.push(copy(source, sink));
    }
    if (this.#stdinPath !== undefined && this.#stdinHold !== undefined) this.#attachInput(this.#stdinPath);
    this.#removeFiles();
  }

  #attachInput(path: string): void {
    const fd = openSync(path, constants.O_WRONLY | constants.O_NONBLOCK);
    const sink = new Socket({ fd, readable: false, writable: true });
    this.#stdin = sink;
    sink.on("error", () => {
      this.#io.stdin?.unpipe(sink);
      sink.destroy();
      // Nobody reads it: whoever writes shall not wait for ever.
      this.#io.stdin?.resume();
    });
    this.#releaseHold();
    this.#io.stdin?.once("error", () => sink.end());
    this.#io.stdin?.pipe(sink);
  }

  #releaseHold(): void {
    if (this.#stdinHold !== undefined) closeSync(this.#stdinHold);
    this.#stdinHold = undefined;
  }

  #removeFiles(): void {
    for (const file of this.#files.splice(0)) rmSync(file, { force: true });
  }

  resize(): void {
    // Pipes have no size.
  }

  async drained(): Promise<void> {
    await settle(Promise.all(this.#done), this.#sources, [this.#io.stdout, this.#io.stderr]);
  }

  close(): void {
    for (const { fd } of this.#outputs.splice(0)) closeSync(fd);
    for (const source of this.#sources) source.destroy();
    if (this.#stdin) {
      this.#io.stdin?.unpipe(this.#stdin);
      this.#stdin.destroy();
    }
    this.#releaseHold();
    this.#removeFiles();
  }
}

class TerminalStdio implements Stdio {
  readonly paths: StdioPaths;
  readonly #io: ProcessIo;
  readonly #master: number;
  #terminal: ReadStream | undefined;
  #done: Promise<void> = Promise.resolve();

  constructor(io: ProcessIo) {
    const { master, slavePath } = openPty();
    this.#io = io;
    this.#master = master;
    this.paths = { kind: "tty", path: slavePath };
  }

  attach(): void {
    const terminal = new ReadStream(this.#master);
    this.#terminal = terminal;
    terminal.on("error", (error) => {
      // The other side has closed it: this is how a terminal ends.
      if (errnoOf(error) === "EIO") terminal.destroy();
    });
    this.#done = copy(terminal, this.#io.stdout);
    this.#io.stdin?.pipe(terminal, { end: false });
  }

  resize(size: TerminalSize): void {
    setWindowSize(this.#master, size.rows, size.cols);
  }

  async drained(): Promise<void> {
    await settle(this.#done, this.#terminal ? [this.#terminal] : [], [this.#io.stdout]);
  }

  close(): void {
    if (!this.#terminal) {
      closeSync(this.#master);
      return;
    }
    this.#io.stdin?.unpipe(this.#terminal);
    this.#terminal.destroy();
  }
}
