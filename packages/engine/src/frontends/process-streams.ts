import { once } from "node:events";
import { PassThrough, type Readable, Writable } from "node:stream";
import { createDeferred } from "@kiln/base";

/** Bytes of input that may wait for a process. */
const INPUT_BYTES = 1 << 20;
/** Bytes of output that may wait for the client, per stream. */
const OUTPUT_BYTES = 256 << 10;

/** Sends a piece of a process's output; resolves when the next may be sent. */
export type SendOutput = (fd: number, data: Uint8Array) => Promise<void>;

/**
 * The streams of a process whose other ends are somewhere over a wire. Both ways there is a bound on what
 * waits: input that the process doesn't read makes {@link ProcessStreams.writeInput} wait, output that nobody
 * takes makes the process wait.
 */
export class ProcessStreams {
  /** For the executor. */
  readonly io: { readonly stdin?: Readable; readonly stdout?: Writable; readonly stderr?: Writable };
  readonly #stdin: PassThrough | undefined;
  readonly #outputs: Writable[] = [];
  readonly #open = createDeferred<void>();
  readonly #abandoned = createDeferred<void>();
  readonly #inputClosed = createDeferred<void>();
  #isAbandoned = false;

  /** `fds`: those of 0, 1 and 2 that the other side has. Output waits until {@link ProcessStreams.open}. */
  constructor(fds: ReadonlySet<number>, send: SendOutput) {
    const stdin = fds.has(0) ? new PassThrough({ highWaterMark: INPUT_BYTES }) : undefined;
    this.#stdin = stdin;
    if (stdin === undefined) this.#inputClosed.resolve();
    this.io = {
      ...(stdin === undefined ? {} : { stdin }),
      ...(fds.has(1) ? { stdout: this.#output(1, send) } : {}),
      ...(fds.has(2) ? { stderr: this.#output(2, send) } : {}),
    };
  }

  #output(fd: number, send: SendOutput): Writable {
    const forward = async (chunk: Uint8Array): Promise<void> => {
      if (this.#isAbandoned) return;
      await Promise.race([this.#open.promise, this.#abandoned.promise]);
      if (!this.#isAbandoned) await Promise.race([send(fd, chunk), this.#abandoned.promise]);
    };
    const output = new Writable({
      highWaterMark: OUTPUT_BYTES,
      write: (chunk: Uint8Array, _encoding, done) => {
        forward(chunk).then(
          () => done(),
          () => {
            // Whoever sent has gone; its call ends with the reason.
            this.abandon();
            done();
          },
        );
      },
    });
    this.#outputs.push(output);
    return output;
  }

  /** Lets output through. */
  open(): void {
    this.#open.resolve();
  }

  /** True when the process has an input that takes more. */
  get takesInput(): boolean {
    return this.#stdin !== undefined && !this.#stdin.writableEnded;
  }

  /** Settles when the input has been closed from outside; at once when there is none. */
  get inputClosed(): Promise<void> {
    return this.#inputClosed.promise;
  }

  /** Passes input on; settles when the next may come. Input for a process that doesn't read any more is lost. */
  async writeInput(data: Uint8Array, ended: Promise<unknown>): Promise<void> {
    const stdin = this.#stdin;
    if (stdin === undefined || stdin.writableEnded || data.length === 0 || stdin.write(data)) return;
    using stop = { controller: new AbortController(), [Symbol.dispose]: () => stop.controller.abort() };
    const drained = once(stdin, "drain", { signal: stop.controller.signal }).catch(() => undefined);
    await Promise.race([drained, ended, this.#abandoned.promise]);
  }

  /** Nothing more is to come. */
  endInput(): void {
    this.#stdin?.end();
    this.#inputClosed.resolve();
  }

  /** Settles when all output has been sent; call when the process has ended. */
  async flush(): Promise<void> {
    this.#stdin?.resume();
    await Promise.all(
      this.#outputs.map((output) => new Promise<void>((resolve) => output.end(() => resolve()))),
    );
  }

  /** The other side is gone: input ends, output is thrown away. */
  abandon(): void {
    this.#isAbandoned = true;
    this.#abandoned.resolve();
    this.endInput();
  }

  /** Throws away output, what waits and what comes. */
  discardOutput(): void {
    this.#isAbandoned = true;
    this.#abandoned.resolve();
  }
}
