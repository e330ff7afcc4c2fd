// The process that starts all others. The daemon forks it before it grows, because forking costs in proportion
// to memory; it is the first process of a pid namespace and has its own mount namespace, so that with it, and it
// dies with the daemon, every container and every mount goes. Descriptor 3 is its line to the daemon, 4 a pidfd of
// the daemon.

import { spawn } from "node:child_process";
import {
  closeSync,
  existsSync,
  fstatSync,
  mkdirSync,
  openSync,
  readlinkSync,
  readSync,
  rmSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { Socket } from "node:net";
import { BuildError, codeOfNodeError, errorMessage } from "@kiln/base";
import { makePrivate, mountOne, setParentDeathSignal, unmount, unmountAll } from "@kiln/sys";
import {
  CLONE_NEWNET,
  CLONE_NEWNS,
  CLONE_NEWPID,
  closeOnExecFrom,
  enableLoopback,
  memoryFile,
  setns,
  unshare,
} from "./libc.ts";
import { MountPool, type PooledMount } from "./mount-pool.ts";
import {
  type CommandPlan,
  type CommandResult,
  type ExitEvent,
  encodeFrame,
  FORK_ARGUMENT,
  FrameDecoder,
  type ReplyFrame,
  type RequestFrame,
  type Requests,
  type SpawnPlan,
  type ZygoteConfig,
} from "./protocol.ts";
import { Containers } from "./zygote-containers.ts";
import { ProcessTable } from "./zygote-processes.ts";

const LINE_FD = 3;
const DAEMON_PIDFD = 4;
const SIGKILL = 9;
/** What the runtime and network plugins may see of the daemon's environment. */
const PASSED_ENV = ["PATH", "HOME", "XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS", "TMPDIR"];

type Handlers = {
  [Op in keyof Requests]: (
    params: Requests[Op]["params"],
  ) => Requests[Op]["result"] | Promise<Requests[Op]["result"]>;
};

/** Everything the zygote has once it is configured. */
interface Workshop {
  readonly config: ZygoteConfig;
  readonly pool: MountPool;
  readonly containers: Containers;
}

/** The zygote's answers to requests. */
class Zygote {
  readonly #line: Socket;
  readonly #processes = new ProcessTable();
  readonly #env = PASSED_ENV.flatMap((name) => {
    const value = process.env[name];
    return value === undefined ? [] : [`${name}=${value}`];
  });
  readonly #spawned = new Map<string, number>();
  readonly #mounted = new Map<string, PooledMount>();
  #workshop: Workshop | undefined;
  #count = 0;

  readonly #handlers: Handlers = {
    configure: (config) => this.#configure(config),
    run: (plan) => this.#ready().containers.run(plan),
    exec: (plan) => this.#ready().containers.exec(plan),
    spawn: (plan) => this.#spawn(plan),
    command: (plan) => this.#command(plan),
    signal: ({ key, signal }) => this.#signal(key, signal),
    resize: ({ key, rows, cols }) => {
      this.#ready().containers.resize(key, rows, cols);
      return null;
    },
    mount: ({ mounts }) => {
      const handle = `mount${this.#count++}`;
      const pooled = this.#ready().pool.acquire(mounts);
      this.#mounted.set(handle, pooled);
      return { handle, path: pooled.path };
    },
    unmount: ({ handle }) => {
      this.#mounted.get(handle)?.release();
      this.#mounted.delete(handle);
      return null;
    },
    createNetns: ({ path, loopback }) => createNetns(path, loopback ?? false),
    removeNetns: ({ path }) => removeNetns(path),
    rootPath: ({ id }) => ({ path: this.#ready().containers.rootPath(id) }),
  };

  constructor(line: Socket) {
    this.#line = line;
    const decoder = new FrameDecoder<RequestFrame>();
    line.on("data", (bytes: Buffer) => {
      for (const frame of decoder.push(bytes)) void this.#answer(frame);
    });
    line.on("error", () => this.#end());
    line.on("close", () => this.#end());
  }

  /** Says hello and begins to listen. */
  start(pid: number): void {
    this.#send({ hello: { pid } });
    this.#line.resume();
  }

  /** The daemon is gone or done: so is everything started for it. */
  #end(): void {
    this.#processes.killAll(SIGKILL);
    process.exit(0);
  }

  #send(frame: ReplyFrame): void {
    if (!this.#line.destroyed) this.#line.write(encodeFrame(frame));
  }

  async #answer({ seq, op, params }: RequestFrame): Promise<void> {
    try {
      const handler = this.#handlers[op] as (params: unknown) => unknown;
      this.#send({ seq, result: await handler(params) });
    } catch (error) {
      this.#send({ seq, error: { code: codeOfNodeError(error), message: errorMessage(error) } });
    }
  }

  #ready(): Workshop {
    if (!this.#workshop) throw new BuildError("failed_precondition", "the zygote has no configuration yet");
    return this.#workshop;
  }

  #configure(config: ZygoteConfig): null {
    mkdirSync(config.runDir, { recursive: true, mode: 0o711 });
    unmountAll(config.runDir);
    mountOne({ type: "tmpfs", source: "tmpfs", options: ["nosuid", "nodev", "mode=0711"] }, config.runDir);
    if (config.hideUnifiedCgroup) hideUnifiedCgroup();
    const pool = new MountPool(`${config.runDir}/mounts`, DAEMON_PIDFD);
    const onExit = (event: ExitEvent): void => this.#send({ exit: event });
    const containers = new Containers({ config, env: this.#env, processes: this.#processes, pool, onExit });
    this.#workshop = { config, pool, containers };
    return null;
  }

  #spawn(plan: SpawnPlan): { key: string } {
    const key = `spawn${this.#count++}`;
    const pid = this.#processes.start(plan.argv, plan.env, plan.stdio, (code) => {
      this.#spawned.delete(key);
      this.#send({
        exit: { key, code, outOfMemory: false, runtimeError: "", failure: "", cleanupError: "" },
      });
    });
    this.#spawned.set(key, pid);
    return { key };
  }

  #signal(key: string, signal: number): null {
    const pid = this.#spawned.get(key);
    if (pid === undefined) this.#ready().containers.signal(key, signal);
    else process.kill(-pid, signal);
    return null;
  }

  #command(plan: CommandPlan): Promise<CommandResult> {
    const fds = [memoryFile("stdin"), memoryFile("stdout"), memoryFile("stderr")] as const;
    const [stdin, stdout, stderr] = fds;
    const close = (): void => {
      for (const fd of fds) closeSync(fd);
    };
    const { promise, resolve, reject } = Promise.withResolvers<CommandResult>();
    try {
      writeSync(stdin, plan.stdin, 0);
      inNetns(plan.netns, () =>
        this.#processes.startWith(plan.argv, [...this.#env, ...plan.env], fds, (code) => {
          resolve({ code, stdout: contentOf(stdout), stderr: contentOf(stderr) });
          close();
        }),
      );
    } catch (error) {
      close();
      reject(error);
    }
    return promise;
  }
}

function contentOf(fd: number): string {
  const bytes = Buffer.alloc(fstatSync(fd).size);
  return bytes.toString("utf8", 0, readSync(fd, bytes, 0, bytes.length, 0));
}

const UNIFIED_CGROUP = "/sys/fs/cgroup/unified";

/** Takes the cgroup v2 tree away; in a user namespace that isn't allowed, but putting something over it is. */
function hideUnifiedCgroup(): void {
  const isShown = (): boolean => existsSync(`${UNIFIED_CGROUP}/cgroup.controllers`);
  if (isShown()) unmount(UNIFIED_CGROUP);
  if (!isShown()) return;
  mountOne({ type: "tmpfs", source: "tmpfs", options: ["ro", "nosuid", "nodev", "noexec"] }, UNIFIED_CGROUP);
}

/** Runs `work`, synchronously, with this thread in a network namespace. */
function inNetns(path: string | undefined, work: () => void): void {
  if (path === undefined) {
    work();
    return;
  }
  const own = openSync("/proc/thread-self/ns/net", "r");
  const other = openSync(path, "r");
  try {
    setns(other, CLONE_NEWNET);
    try {
      work();
    } finally {
      setns(own, CLONE_NEWNET);
    }
  } finally {
    closeSync(other);
    closeSync(own);
  }
}

/** Makes a network namespace that lives as long as the file `path`, which it is bound to. */
function createNetns(path: string, loopback: boolean): null {
  const own = openSync("/proc/thread-self/ns/net", "r");
  try {
    writeFileSync(path, "", { mode: 0o600 });
    unshare(CLONE_NEWNET);
    try {
      if (loopback) enableLoopback();
      mountOne({ type: "bind", source: "/proc/thread-self/ns/net", options: ["bind"] }, path);
    } finally {
      setns(own, CLONE_NEWNET);
    }
  } finally {
    closeSync(own);
  }
  return null;
}

function removeNetns(path: string): null {
  unmountAll(path);
  rmSync(path, { force: true });
  return null;
}

/** Starts this program again as the first process of a pid namespace, and ends with it. */
function forkInto(): void {
  setParentDeathSignal("SIGKILL");
  unshare(CLONE_NEWPID);
  const [script = ""] = process.argv.slice(1);
  const child = spawn(process.execPath, [...process.execArgv, script], {
    stdio: ["ignore", "inherit", "inherit", LINE_FD, DAEMON_PIDFD],
  });
  child.on("exit", (code) => process.exit(code ?? 1));
}

function main(): void {
  if (process.argv.includes(FORK_ARGUMENT)) {
    forkInto();
    return;
  }
  closeOnExecFrom(3);
  // Still the daemon's /proc, so this is the daemon's number for this process.
  const pid = Number(readlinkSync("/proc/self"));
  unshare(CLONE_NEWNS);
  makePrivate("/");
  setParentDeathSignal("SIGKILL");
  mountOne({ type: "proc", source: "proc", options: ["nosuid", "noexec", "nodev"] }, "/proc");
  for (const name of ["SIGINT", "SIGHUP", "SIGTERM"] as const) process.on(name, () => undefined);
  const line = new Socket({ fd: LINE_FD, readable: true, writable: true });
  new Zygote(line).start(pid);
}

main();
