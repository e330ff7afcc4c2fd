import type { MessageInitShape } from "@bufbuild/protobuf";
import type {
  ExecMessage,
  ExecMessageSchema,
  FdMessage,
  InitMessage,
  ResizeMessage,
} from "@kiln/api/gateway";
import { BuildError, createDeferred } from "@kiln/base";
import { quoteGo } from "@kiln/formats";
import { type ServerCall, statusFromError } from "@kiln/grpc";
import type { ContainerProcess, ProcessEnd } from "./gateway-container.ts";
import type { GatewayContainers } from "./gateway-containers.ts";
import { ProcessStreams } from "./process-streams.ts";
import { signalNumber } from "./signal-numbers.ts";

type Answer = MessageInitShape<typeof ExecMessageSchema>;
type Input = NonNullable<Answer["Input"]>;

/** Processes that one stream may have started, ended ones too: their names stay taken. */
const MAX_PROCESSES = 10_000;
/** Descriptors of one process. */
const MAX_FDS = 64;
/** What a terminal's size fits in. */
const MAX_CELLS = 0xffff;

/** A process that a stream speaks of. */
interface Entry {
  readonly fds: ReadonlySet<number>;
  readonly streams: ProcessStreams;
  readonly process: ContainerProcess;
}

/**
 * `LLBBridge.ExecProcess`: any number of processes over one stream. Of each the client hears Started, its
 * output, Exit, the end of every output, and Done once its input is closed too.
 */
export async function execProcess(
  containers: GatewayContainers,
  call: ServerCall<ExecMessage, Answer>,
): Promise<void> {
  await new ExecStream(containers, call).run();
}

class ExecStream {
  readonly #containers: GatewayContainers;
  readonly #call: ServerCall<ExecMessage, Answer>;
  readonly #entries = new Map<string, Entry>();
  readonly #running = new Set<Promise<void>>();
  readonly #failed = createDeferred<never>();

  constructor(containers: GatewayContainers, call: ServerCall<ExecMessage, Answer>) {
    this.#containers = containers;
    this.#call = call;
  }

  async run(): Promise<void> {
    try {
      await Promise.race([this.#receiveAll(), this.#failed.promise]);
      for (const { streams } of this.#entries.values()) streams.endInput();
      await Promise.race([Promise.all(this.#running), this.#failed.promise]);
    } finally {
      for (const { streams } of this.#entries.values()) streams.abandon();
    }
  }

  async #receiveAll(): Promise<void> {
    for await (const message of this.#call) await this.#take(message);
  }

  async #take({ ProcessID: id, Input: input }: ExecMessage): Promise<void> {
    if (id === "") throw new BuildError("invalid_argument", "ProcessID required");
    switch (input.case) {
      case "Init":
        return await this.#start(id, input.value);
      case "File":
        return await this.#file(this.#entry(id), input.value);
      case "Resize":
        return await this.#resize(this.#entry(id), input.value);
      case "Signal":
        return await this.#signal(this.#entry(id), input.value.Name);
      case "Started":
      case "Exit":
      case "Done":
      case undefined:
        // Nothing that a client would say; upstream doesn't listen either.
        return;
    }
  }

  #entry(id: string): Entry {
    const entry = this.#entries.get(id);
    if (entry !== undefined) return entry;
    throw new BuildError("not_found", `IO for process ${quoteGo(id)} not found`);
  }

  async #start(id: string, init: InitMessage): Promise<void> {
    const { Meta: meta } = init;
    if (meta === undefined) throw new BuildError("invalid_argument", "process meta is required");
    if (this.#entries.has(id)) throw new BuildError("already_exists", `Process ${id} already exists`);
    if (this.#entries.size >= MAX_PROCESSES) {
      throw new BuildError("resource_exhausted", `more than ${MAX_PROCESSES} processes`);
    }
    const fds = new Set(init.Fds);
    if (fds.size > MAX_FDS) throw new BuildError("invalid_argument", `more than ${MAX_FDS} file descriptors`);
    const container = this.#containers.forProcess(init.ContainerID);
    const streams = new ProcessStreams(fds, (fd, data) =>
      this.#send(id, { case: "File", value: { Fd: fd, Data: data } }),
    );
    // Output that nobody takes must not hold up a container's end.
    const discard = (): void => streams.discardOutput();
    container.signal.addEventListener("abort", discard, { once: true });
    let process: ContainerProcess;
    try {
      process = await container.start(
        {
          args: meta.args,
          env: meta.env,
          secretEnv: init.secretenv,
          user: meta.user,
          cwd: meta.cwd,
          tty: init.Tty,
          security: init.Security,
          removeMountStubsRecursive: meta.removeMountStubsRecursive,
        },
        streams,
      );
    } catch (error) {
      container.signal.removeEventListener("abort", discard);
      throw error;
    }
    const entry = { fds, streams, process };
    this.#entries.set(id, entry);
    const running = this.#follow(id, entry)
      .catch((error: unknown) => this.#failed.reject(error))
      .finally(() => {
        container.signal.removeEventListener("abort", discard);
        this.#running.delete(running);
      });
    this.#running.add(running);
  }

  async #follow(id: string, { fds, streams, process }: Entry): Promise<void> {
    await this.#send(id, { case: "Started", value: {} });
    streams.open();
    const end = await process.ended;
    await streams.flush();
    await this.#send(id, { case: "Exit", value: exitMessage(end) });
    for (const fd of fds) {
      if (fd !== 0) await this.#send(id, { case: "File", value: { Fd: fd, EOF: true } });
    }
    await streams.inputClosed;
    await this.#send(id, { case: "Done", value: {} });
  }

  async #file({ streams, fds, process }: Entry, { Fd: fd, Data: data, EOF: eof }: FdMessage): Promise<void> {
    if (fd !== 0 || !fds.has(0)) {
      throw new BuildError("out_of_range", `fd ${fd} unavailable to write`);
    }
    if (streams.takesInput) await streams.writeInput(data, process.ended);
    if (eof) streams.endInput();
  }

  async #resize({ process }: Entry, { Rows, Cols }: ResizeMessage): Promise<void> {
    const control = await process.control();
    control?.resize({ rows: Math.min(Rows, MAX_CELLS), cols: Math.min(Cols, MAX_CELLS) });
  }

  async #signal({ process }: Entry, name: string): Promise<void> {
    const number = signalNumber(name);
    if (number === undefined) throw new BuildError("invalid_argument", `Unknown signal ${name}`);
    (await process.control())?.kill(number);
  }

  #send(id: string, input: Input): Promise<void> {
    return this.#call.send({ ProcessID: id, Input: input } as Answer);
  }
}

function exitMessage(end: ProcessEnd): { Code: number; Error?: ReturnType<typeof statusFromError> } {
  if (end.error === undefined) return { Code: end.code };
  return { Code: end.code, Error: statusFromError(end.error) };
}
