/**
 * The driver of the daemon that Kiln starts by itself: one per user, with its state below the user's data
 * directory. It runs on after the command and stops itself when nothing has used it for a while.
 */
import { spawn } from "node:child_process";
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
} from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { BuildError, isBuildError, sleep } from "@kiln/base";
import { BuildkitClient, dialTo } from "@kiln/client";
import type { Dial } from "@kiln/grpc/client";
import { sha256Hex } from "@kiln/oci";
import type { Env } from "./config-dir.ts";
import type { BootOptions, NodeDriver, NodeStatus } from "./node-driver.ts";
import { isAnswering } from "./remote-driver.ts";
import { asVertex } from "./vertex.ts";

/** The driver's name. */
export const EMBEDDED_DRIVER = "kiln";
/** The daemon ends when it was idle for so long. */
const IDLE_TIMEOUT = "10m";
const START_TIMEOUT_MS = 30_000;
const START_STEP_MS = 4;
/** A log that has grown beyond this is emptied at the next start. */
const MAX_LOG_BYTES = 10 << 20;
/** Bytes of the log's end that a failed start repeats. */
const LOG_TAIL_BYTES = 2048;
/** A unix socket's path can't be longer. */
const MAX_SOCKET_PATH = 100;

/** Where the embedded daemon lives. */
export interface EmbeddedPaths {
  readonly root: string;
  readonly socket: string;
  readonly log: string;
  readonly lock: string;
}

/** The paths of the user that the environment tells. `KILN_HOME` moves all of them. */
export function embeddedPaths(env: Env): EmbeddedPaths {
  const data = env.XDG_DATA_HOME || join(env.HOME || homedir(), ".local", "share");
  const home = env.KILN_HOME || join(data, "kiln");
  const preferred = join(home, "kilnd.sock");
  const runtime = env.XDG_RUNTIME_DIR || join("/tmp", `kiln-${process.getuid?.() ?? 0}`);
  const socket =
    Buffer.byteLength(preferred) <= MAX_SOCKET_PATH
      ? preferred
      : join(runtime, `kilnd-${sha256Hex(home).slice(0, 12)}.sock`);
  return { root: join(home, "daemon"), socket, log: join(home, "kilnd.log"), lock: join(home, "start.lock") };
}

/** Makes the driver. `command` starts kilnd; arguments are appended to it. */
export function createEmbeddedDriver(env: Env, command: readonly string[]): NodeDriver {
  return new EmbeddedDriver(embeddedPaths(env), command);
}

class EmbeddedDriver implements NodeDriver {
  readonly name = EMBEDDED_DRIVER;
  readonly defaultLoad = false;
  readonly #paths: EmbeddedPaths;
  readonly #command: readonly string[];
  #client: Promise<BuildkitClient> | undefined;

  constructor(paths: EmbeddedPaths, command: readonly string[]) {
    this.#paths = paths;
    this.#command = command;
  }

  client(): Promise<BuildkitClient> {
    this.#client ??= BuildkitClient.connect(`unix://${this.#paths.socket}`);
    return this.#client;
  }

  dial(): Dial {
    return dialTo(`unix://${this.#paths.socket}`);
  }

  async boot(opts: BootOptions = {}): Promise<BuildkitClient> {
    const client = await this.client();
    if (existsSync(this.#paths.socket) && (await canConnect(client, opts.signal))) return client;
    await asVertex("[internal] starting kilnd", opts.onStatus, () => this.#start(client, opts.signal));
    return client;
  }

  async #start(client: BuildkitClient, signal: AbortSignal | undefined): Promise<void> {
    const { tryLockFile } = await import("@kiln/sys");
    mkdirSync(this.#paths.root, { recursive: true, mode: 0o700 });
    mkdirSync(join(this.#paths.socket, ".."), { recursive: true, mode: 0o700 });
    const deadline = Date.now() + START_TIMEOUT_MS;
    for (;;) {
      using lock = tryLockFile(this.#paths.lock);
      if (existsSync(this.#paths.socket) && (await canConnect(client, signal))) return;
      if (lock) return await this.#spawn(client, deadline, signal);
      if (Date.now() > deadline)
        throw new BuildError("deadline_exceeded", "another process is starting kilnd");
      await sleep(START_STEP_MS, signal);
    }
  }

  async #spawn(client: BuildkitClient, deadline: number, signal: AbortSignal | undefined): Promise<void> {
    const [program, ...args] = this.#command;
    if (program === undefined)
      throw new BuildError("failed_precondition", "kilnd isn't installed beside kiln");
    const { root, socket, log } = this.#paths;
    emptyIfLarge(log);
    const logFile = openSync(log, "a", 0o600);
    const logStart = statSync(log).size;
    let exited: string | undefined;
    try {
      const child = spawn(
        program,
        [...args, "--root", root, "--addr", `unix://${socket}`, "--idle-timeout", IDLE_TIMEOUT],
        { detached: true, stdio: ["ignore", logFile, logFile], cwd: "/" },
      );
      child.once("error", (error) => {
        exited = error.message;
      });
      child.once("exit", (code, by) => {
        exited = `it exited with ${by ?? `code ${code}`}`;
      });
      child.unref();
    } finally {
      closeSync(logFile);
    }
    for (;;) {
      if (existsSync(socket) && (await canConnect(client, signal))) return;
      if (exited !== undefined) throw startFailure(exited, log, logStart);
      if (Date.now() > deadline) throw startFailure("it doesn't answer", log, logStart);
      await sleep(START_STEP_MS, signal);
    }
  }

  async status(signal?: AbortSignal): Promise<NodeStatus> {
    if (!existsSync(this.#paths.socket)) return "inactive";
    try {
      return (await isAnswering(await this.client(), signal)) ? "running" : "inactive";
    } catch {
      return "error";
    }
  }

  async stop(): Promise<void> {
    // It stops by itself; builds of other commands may be running in it.
  }

  async remove(opts: { readonly keepState: boolean }): Promise<void> {
    if ((await this.status()) === "running") {
      throw new BuildError("failed_precondition", "the daemon is running; it stops by itself when it's idle");
    }
    if (!opts.keepState) rmSync(this.#paths.root, { recursive: true, force: true });
  }

  async close(): Promise<void> {
    await (await this.#client?.catch(() => undefined))?.close();
  }
}

/** True when the socket takes connections; the daemon opens it once it's ready. */
async function canConnect(client: BuildkitClient, signal: AbortSignal | undefined): Promise<boolean> {
  try {
    await client.channel.connect(signal);
    return true;
  } catch (error) {
    if (isBuildError(error, "unavailable")) return false;
    throw error;
  }
}

function emptyIfLarge(log: string): void {
  if (existsSync(log) && statSync(log).size > MAX_LOG_BYTES) truncateSync(log);
}

function startFailure(reason: string, log: string, from: number): BuildError {
  const tail = readFileSync(log).subarray(from).subarray(-LOG_TAIL_BYTES).toString().trim();
  return new BuildError("unavailable", `failed to start kilnd: ${reason}${tail === "" ? "" : `\n${tail}`}`, {
    hint: `the log is ${log}`,
  });
}
