import { type ChildProcess, spawn } from "node:child_process";
import { closeSync, openSync } from "node:fs";
import type { Duplex } from "node:stream";
import { BuildError, createDeferred, type Deferred, type ErrorCode, wrapError } from "@kiln/base";
import { entryPath } from "@kiln/sys";
import { CLONE_NEWPID, ownPidfd, setns, unshare } from "./libc.ts";
import {
  type ExitEvent,
  encodeFrame,
  FORK_ARGUMENT,
  FrameDecoder,
  type ReplyFrame,
  type Requests,
} from "./protocol.ts";

/** Memory of the zygote's heap; it holds little, and a small process forks cheaply. */
const NODE_FLAGS = ["--max-old-space-size=256", "--max-semi-space-size=2", "--no-warnings"];

/** How to start the zygote. */
export interface ZygoteOptions {
  /** The program that runs scripts; this process's own when absent. */
  readonly nodePath?: string;
}

/**
 * The daemon's end of the process zygote (see `runtime-zygote.ts`). Start it first thing: forking it costs in
 * proportion to what the daemon has in memory by then.
 *
 * Everything it started dies with it, and it dies with the thread that called {@link startZygote}.
 */
export class Zygote implements AsyncDisposable {
  readonly #line: Duplex;
  readonly #waiting = new Map<number, Deferred<unknown>>();
  readonly #exits = new Map<string, Deferred<ExitEvent>>();
  readonly #ended = createDeferred<void>();
  #seq = 0;
  #pid = 0;
  #failure: BuildError | undefined;

  constructor(child: ChildProcess, line: Duplex) {
    this.#pid = child.pid ?? 0;
    this.#line = line;
    const decoder = new FrameDecoder<ReplyFrame>();
    line.on("data", (bytes: Buffer) => {
      for (const frame of decoder.push(bytes)) this.#take(frame);
    });
    line.on("error", () => undefined);
    child.on("error", (error) => this.#fail(String(error)));
    child.on("exit", (code, signal) => this.#fail(`code ${code ?? "none"}, signal ${signal ?? "none"}`));
  }

  /** Its process id as this process sees it. */
  get pid(): number {
    return this.#pid;
  }

  /** Under this path the zygote's files, with its mounts, can be seen. */
  get viewPath(): string {
    return `/proc/${this.pid}/root`;
  }

  /** Asks for something. @throws BuildError with what the zygote says, or `unavailable` when it is gone. */
  async request<Op extends keyof Requests>(
    op: Op,
    params: Requests[Op]["params"],
  ): Promise<Requests[Op]["result"]> {
    if (this.#failure) throw this.#failure;
    const seq = ++this.#seq;
    const reply = createDeferred<unknown>();
    this.#waiting.set(seq, reply);
    this.#line.write(encodeFrame({ seq, op, params }));
    return (await reply.promise) as Requests[Op]["result"];
  }

  /** Settles when a process has ended. Ask as soon as its key is known. */
  exit(key: string): Promise<ExitEvent> {
    if (this.#failure) return Promise.reject(this.#failure);
    return this.#exitOf(key).promise.finally(() => this.#exits.delete(key));
  }

  #exitOf(key: string): Deferred<ExitEvent> {
    const known = this.#exits.get(key);
    if (known) return known;
    const made = createDeferred<ExitEvent>();
    this.#exits.set(key, made);
    return made;
  }

  #take(frame: ReplyFrame): void {
    if ("hello" in frame) {
      this.#pid = frame.hello.pid;
      return;
    }
    if ("exit" in frame) {
      this.#exitOf(frame.exit.key).resolve(frame.exit);
      return;
    }
    const waiting = this.#waiting.get(frame.seq);
    this.#waiting.delete(frame.seq);
    if ("error" in frame) waiting?.reject(new BuildError(frame.error.code as ErrorCode, frame.error.message));
    else waiting?.resolve(frame.result);
  }

  #fail(why: string): void {
    this.#failure ??= new BuildError("unavailable", `the process zygote has ended (${why})`);
    for (const each of [...this.#waiting.values(), ...this.#exits.values()]) each.reject(this.#failure);
    this.#waiting.clear();
    this.#exits.clear();
    this.#line.destroy();
    this.#ended.resolve();
  }

  /** Ends it and with it every container; settles when it is gone. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#line.end();
    await this.#ended.promise;
  }
}

/**
 * Starts the zygote, in a pid namespace of its own. Needs the superuser's rights, which those of a user
 * namespace are enough for.
 *
 * @throws BuildError `permission_denied` without them.
 */
export function startZygote(opts: ZygoteOptions = {}): Zygote {
  const script = entryPath(import.meta.url, "runtime-zygote");
  const nodePath = opts.nodePath ?? process.execPath;
  const pidfd = ownPidfd();
  const spawnWith = (...args: string[]): ChildProcess =>
    spawn(nodePath, [...NODE_FLAGS, script, ...args], {
      stdio: ["ignore", "inherit", "inherit", "pipe", pidfd],
      cwd: "/",
    });
  let child: ChildProcess;
  try {
    // In a user namespace there is no way back into the pid namespace from outside of it: another process goes.
    child = canReturn() ? inNewPidNamespace(() => spawnWith()) : spawnWith(FORK_ARGUMENT);
  } finally {
    closeSync(pidfd);
  }
  const line = child.stdio[3];
  if (!line || !("write" in line)) throw new BuildError("internal", "the process zygote has no line");
  return new Zygote(child, line as Duplex);
}

/** Whether this process could go back into its own pid namespace. */
function canReturn(): boolean {
  const own = openSync("/proc/thread-self/ns/pid", "r");
  try {
    setns(own, CLONE_NEWPID);
    return true;
  } catch {
    return false;
  } finally {
    closeSync(own);
  }
}

/** Runs `fork` so that what it forks is the first process of a pid namespace. Synchronous: nothing else forks meanwhile. */
function inNewPidNamespace<T>(fork: () => T): T {
  const own = openSync("/proc/thread-self/ns/pid", "r");
  try {
    try {
      unshare(CLONE_NEWPID);
    } catch (error) {
      const wrapped = wrapError(error, "can't make a pid namespace to run steps in");
      const message = wrapped instanceof Error ? wrapped.message : String(wrapped);
      throw new BuildError("permission_denied", message, {
        cause: error,
        hint: "run the daemon as root, or in a user namespace (rootlesskit)",
      });
    }
    try {
      return fork();
    } finally {
      setns(own, CLONE_NEWPID);
    }
  } finally {
    closeSync(own);
  }
}
