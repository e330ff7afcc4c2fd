import type { MessageInitShape } from "@bufbuild/protobuf";
import { errorDetailTypes } from "@kiln/api";
import {
  type ExecMessage,
  type ExecMessageSchema,
  type ExitMessage,
  type InitMessageSchema,
  LLBBridge,
} from "@kiln/api/gateway";
import type { Status } from "@kiln/api/rpcstatus";
import { BuildError, createDeferred, type Deferred } from "@kiln/base";
import { newId } from "@kiln/formats";
import { type ClientCall, errorFromStatus } from "@kiln/grpc/client";
import type { GatewayCalls } from "./gateway-calls.ts";

type Outgoing = MessageInitShape<typeof ExecMessageSchema>;
type Input = NonNullable<Outgoing["Input"]>;

/** The exit code that stands for an end that isn't known (containerd's). */
const UNKNOWN_EXIT_STATUS = 255;
/** Bytes of one message to a process. */
const CHUNK_BYTES = 32 << 10;

/** Where a process' streams lead. */
export interface ProcessStreams {
  readonly stdin?: AsyncIterable<Uint8Array> | Uint8Array | string | undefined;
  readonly onStdout?: ((chunk: Uint8Array) => void) | undefined;
  readonly onStderr?: ((chunk: Uint8Array) => void) | undefined;
}

/** The one stream over which a frontend speaks with all its processes. It opens with the first. */
export class ExecChannel implements AsyncDisposable {
  readonly #calls: GatewayCalls;
  readonly #processes = new Map<string, FrontendProcess>();
  #call: Promise<ClientCall<ExecMessage, Outgoing>> | undefined;
  #failure: unknown;
  #reading: Promise<void> | undefined;

  constructor(calls: GatewayCalls) {
    this.#calls = calls;
  }

  /** Starts a process. @throws BuildError when it can't be started. */
  async start(
    init: MessageInitShape<typeof InitMessageSchema>,
    streams: ProcessStreams,
  ): Promise<FrontendProcess> {
    const call = await this.#open();
    const id = `${init.ContainerID}:${newId()}`;
    const send = (input: Input): Promise<void> => call.send({ ProcessID: id, Input: input } as Outgoing);
    const process = new FrontendProcess(send, streams, () => this.#processes.delete(id));
    this.#processes.set(id, process);
    try {
      await send({ case: "Init", value: init });
      await process.started;
    } catch (error) {
      this.#processes.delete(id);
      throw this.#failure ?? error;
    }
    process.feed();
    return process;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    (await this.#call?.catch(() => undefined))?.cancel();
    await this.#reading;
  }

  #open(): Promise<ClientCall<ExecMessage, Outgoing>> {
    this.#call ??= this.#calls.channel
      .call(LLBBridge.method.execProcess, { signal: this.#calls.signal })
      .then((call) => {
        this.#failure = undefined;
        this.#reading = this.#read(call);
        return call;
      });
    return this.#call;
  }

  async #read(call: ClientCall<ExecMessage, Outgoing>): Promise<void> {
    let failure: unknown = new BuildError("unavailable", "the stream of processes has ended");
    try {
      for await (const message of call) this.#processes.get(message.ProcessID)?.take(message);
    } catch (error) {
      failure = error;
    }
    // A stream that failed is done with, for all of its processes; the next one opens another.
    this.#failure = failure;
    this.#call = undefined;
    for (const process of this.#processes.values()) process.fail(failure);
    this.#processes.clear();
  }
}

/** A process that runs in a container of the daemon. */
export class FrontendProcess {
  readonly #send: (input: Input) => Promise<void>;
  readonly #streams: ProcessStreams;
  readonly #forget: () => void;
  readonly #started: Deferred<void> = createDeferred();
  readonly #ended: Deferred<number> = createDeferred();
  #exit: ExitMessage | undefined;
  #isInputEnded = false;
  /** What went wrong on this side, with its streams. */
  #failure: unknown;

  constructor(send: (input: Input) => Promise<void>, streams: ProcessStreams, forget: () => void) {
    this.#send = send;
    this.#streams = streams;
    this.#forget = forget;
    this.#started.promise.catch(() => undefined);
    this.#ended.promise.catch(() => undefined);
  }

  /** Resolves once it runs. */
  get started(): Promise<void> {
    return this.#started.promise;
  }

  /**
   * Waits for its end and gives the exit code.
   *
   * @throws BuildError when its end isn't known: the daemon couldn't start or watch it, or is gone.
   */
  wait(): Promise<number> {
    return this.#ended.promise;
  }

  /** Sends a signal, by its name with or without `SIG`. */
  async signal(name: string): Promise<void> {
    await this.#send({ case: "Signal", value: { Name: name.replace(/^SIG/, "") } });
  }

  /** Tells a terminal's new size. */
  async resize(size: { readonly rows: number; readonly cols: number }): Promise<void> {
    await this.#send({ case: "Resize", value: { Rows: size.rows, Cols: size.cols } });
  }

  /** Takes what the daemon says of it. */
  take({ Input: input }: ExecMessage): void {
    switch (input.case) {
      case "Started":
        this.#started.resolve();
        return;
      case "File":
        this.#output(input.value.Fd, input.value.Data);
        return;
      case "Exit":
        this.#exit = input.value;
        // The daemon waits for the end of the input before it says Done.
        this.#endInput().catch(() => undefined);
        return;
      case "Done":
        this.#end();
        return;
      default:
        this.fail(new BuildError("internal", `unexpected message for a process: ${input.case}`));
    }
  }

  /** Ends it for its users. */
  fail(error: unknown): void {
    this.#started.reject(error);
    this.#ended.reject(error);
    this.#forget();
  }

  /** Passes its input on. */
  feed(): void {
    if (this.#streams.stdin === undefined) return;
    // A process that has ended doesn't read; how it ended is what counts.
    this.#feed(chunksOf(this.#streams.stdin)).catch((error: unknown) => {
      if (this.#exit === undefined) this.#failure ??= error;
      this.#endInput().catch(() => undefined);
    });
  }

  async #endInput(): Promise<void> {
    if (this.#streams.stdin === undefined || this.#isInputEnded) return;
    this.#isInputEnded = true;
    await this.#send({ case: "File", value: { Fd: 0, EOF: true } });
  }

  async #feed(chunks: AsyncIterable<Uint8Array>): Promise<void> {
    for await (const chunk of chunks) {
      if (this.#exit !== undefined) break;
      for (let at = 0; at < chunk.length; at += CHUNK_BYTES) {
        const data = chunk.subarray(at, at + CHUNK_BYTES);
        await this.#send({ case: "File", value: { Fd: 0, Data: data } });
      }
    }
    await this.#endInput();
  }

  #output(fd: number, data: Uint8Array): void {
    if (data.length === 0) return;
    try {
      if (fd === 1) this.#streams.onStdout?.(data);
      else if (fd === 2) this.#streams.onStderr?.(data);
    } catch (error) {
      this.#failure ??= error;
    }
  }

  #end(): void {
    this.#forget();
    const exit = this.#exit;
    if (this.#failure !== undefined) this.#ended.reject(this.#failure);
    else if (exit === undefined) this.#ended.reject(new BuildError("internal", "a process has no exit code"));
    else if (exit.Error !== undefined && isUnknownEnd(exit.Code, exit.Error)) {
      this.#ended.reject(errorFromStatus(exit.Error));
    } else this.#ended.resolve(exit.Code);
    this.#started.resolve();
  }
}

/** True when a process didn't give that code itself. */
function isUnknownEnd(code: number, error: Status): boolean {
  if (code !== UNKNOWN_EXIT_STATUS) return false;
  return !error.details.some(({ typeUrl }) => typeUrl === errorDetailTypes.exitMessage);
}

async function* chunksOf(
  input: AsyncIterable<Uint8Array> | Uint8Array | string,
): AsyncGenerator<Uint8Array, void, undefined> {
  if (typeof input === "string") yield new TextEncoder().encode(input);
  else if (input instanceof Uint8Array) yield input;
  else yield* input;
}

/** Output that is kept, up to a limit. */
export class OutputBuffer {
  readonly #limitBytes: number;
  readonly #chunks: Uint8Array[] = [];
  #size = 0;

  constructor(limitBytes: number) {
    this.#limitBytes = limitBytes;
  }

  /** @throws BuildError `resource_exhausted` over the limit. */
  add(chunk: Uint8Array): void {
    this.#size += chunk.length;
    if (this.#size > this.#limitBytes) {
      throw new BuildError("resource_exhausted", `a process wrote more than ${this.#limitBytes} bytes`);
    }
    this.#chunks.push(chunk);
  }

  bytes(): Uint8Array {
    return Buffer.concat(this.#chunks);
  }
}
