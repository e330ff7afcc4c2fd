import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { BuildError } from "@kiln/base";
import { readOomKills } from "./cgroup.ts";
import { addCa, isWritable, makeWorkingDir, refuseProcDescriptors, selectPath } from "./container-paths.ts";
import { killProcess } from "./libc.ts";
import type { MountPool } from "./mount-pool.ts";
import { makeMountPoints, missingMountPoints, removeMountPoints } from "./mount-stubs.ts";
import { generateSpec, type OciMount, type OciSpec } from "./oci-spec.ts";
import { readPid, readRuntimeError, resizeTerminalOf } from "./process-files.ts";
import type { ExecPlan, ExitEvent, PlannedMount, RunPlan, ZygoteConfig } from "./protocol.ts";
import { proxyEnvOf, replaceProxyEnv } from "./proxy/proxy-env.ts";
import { sampleCgroup } from "./resources/cgroup-sample.ts";
import { RootDir } from "./root-dir.ts";
import { TRACE_SOCKET_DEST } from "./trace-socket.ts";
import { lookupUser, withHome } from "./user.ts";
import type { ProcessTable } from "./zygote-processes.ts";

const SIGKILL = 9;
/** How often a kill is repeated until the process is gone. */
const KILL_RETRY_MS = 50;
/** How long a runtime gets to notice that its container was killed, before it is killed itself. */
const MONITOR_GRACE_MS = 7000;
/** How often a container that is being started is asked whether it runs yet. */
const STATE_POLL_MS = 10;

/** A container from its preparation to the removal of its traces. */
interface Container {
  readonly id: string;
  readonly dir: string;
  readonly rootPath: string;
  readonly spec: OciSpec;
  /** Undone in reverse order when the container has ended. */
  readonly undo: (() => void)[];
  /** Takes the proxy's certificate out of the root again. */
  readonly cleanCa: (() => void) | undefined;
  readonly processes: Set<RunningProcess>;
  state: "starting" | "running" | "ended";
}

/** A process in a container, with the runtime that watches over it. */
interface RunningProcess {
  readonly key: string;
  readonly monitor: number;
  readonly pidFile: string;
  killing: NodeJS.Timeout | undefined;
}

/** What {@link Containers} works with. */
export interface ContainersDeps {
  readonly config: ZygoteConfig;
  readonly env: readonly string[];
  readonly processes: ProcessTable;
  readonly pool: MountPool;
  readonly onExit: (event: ExitEvent) => void;
}

/** The containers of the zygote. All file work is synchronous: no other thread of this process sees its mounts. */
export class Containers {
  readonly #deps: ContainersDeps;
  readonly #containers = new Map<string, Container>();
  readonly #processes = new Map<string, RunningProcess>();

  constructor(deps: ContainersDeps) {
    this.#deps = deps;
  }

  /** Mounts, writes the bundle and starts the runtime. What it did is undone when it throws. */
  run(plan: RunPlan): { key: string } {
    if (this.#containers.has(plan.id)) {
      throw new BuildError("already_exists", `container ${plan.id} already exists`);
    }
    const undo: (() => void)[] = [];
    try {
      const container = this.#prepare(plan, undo);
      const { key } = this.#startRuntime(container, plan);
      this.#containers.set(plan.id, container);
      return { key };
    } catch (error) {
      runAll(undo);
      throw error;
    }
  }

  #prepare(plan: RunPlan, undo: (() => void)[]): Container {
    const { config, pool } = this.#deps;
    const dir = `${config.runDir}/${plan.id}`;
    mkdirSync(dir, { mode: 0o711 });
    undo.push(() => rmSync(dir, { recursive: true }));
    const rootMount = pool.acquire(plan.rootfs);
    undo.push(() => rootMount.release());
    using root = new RootDir(rootMount.path);
    const mounts = plan.mounts.map((mount, index) => this.#placeMount(mount, `${dir}-${index}`, undo));
    const user = lookupUser(root, plan.user);
    const spec = generateSpec({
      ...plan.draft,
      host: config.host,
      network: plan.network,
      rootPath: rootMount.path,
      user,
      mounts,
    });
    this.#prepareRoot(plan, root, spec, undo);
    const cleanCa = plan.proxyCaPem === undefined ? undefined : addCa(root, rootMount.path, plan.proxyCaPem);
    const { uid, gid } = spec.process.user;
    spec.process.env = withHome(root, spec.process.env, uid);
    makeWorkingDir(root, plan.draft.cwd, uid, gid);
    writeFileSync(`${dir}/config.json`, JSON.stringify(spec), { mode: 0o600 });
    const { id } = plan;
    return {
      id,
      dir,
      rootPath: rootMount.path,
      spec,
      undo,
      cleanCa,
      processes: new Set(),
      state: "starting",
    };
  }

  /** Notes which mount points are new, so that they go again afterwards, and makes them. */
  #prepareRoot(plan: RunPlan, root: RootDir, spec: OciSpec, undo: (() => void)[]): void {
    // Runtimes fill in /dev and mask in /proc by path: through a link they would do so outside of the root.
    for (const [path, name] of OWN_FILE_SYSTEMS) {
      const stat = root.lstat(path);
      if (stat === undefined || stat.isDirectory()) continue;
      throw new BuildError("invalid_argument", `filesystem "${name}" must be mounted on ordinary directory`);
    }
    // The socket for traces lies in the runtime's own /dev, whose mount point stays.
    const dests = plan.mounts.map((mount) => mount.dest).filter((dest) => dest !== TRACE_SOCKET_DEST);
    const missing = missingMountPoints(root, dests, plan.removeMountStubsRecursive);
    const path = spec.root.path;
    undo.push(() => {
      using again = new RootDir(path);
      removeMountPoints(again, missing);
    });
    if (!isWritable(path)) return;
    if (this.#deps.config.host.rootless) {
      // Without a mount of it the runtime leaves no mount point; layers are to be the same as with one.
      undo.push(() => {
        using again = new RootDir(path);
        again.mkdirAll(again.resolve("/sys"), 0o755, { uid: 0, gid: 0 });
      });
    }
    makeMountPoints(
      root,
      spec.mounts.map(({ destination, type, source }) => {
        const isBind = type === "bind";
        return { dest: destination, isFile: isBind && isFile(source), bound: isBind ? source : undefined };
      }),
    );
  }

  /** Makes one of a step's mounts ready for the runtime, which then only has to bind it. */
  #placeMount(mount: PlannedMount, place: string, undo: (() => void)[]): OciMount {
    const access = mount.readonly ? ["ro"] : [];
    switch (mount.kind) {
      case "tmpfs": {
        const size = mount.sizeBytes === 0n ? [] : [`size=${mount.sizeBytes}`];
        return {
          destination: mount.dest,
          type: "tmpfs",
          source: "tmpfs",
          options: ["nosuid", ...access, ...size],
        };
      }
      case "file": {
        undo.push(() => rmSync(place));
        writeFileSync(place, Buffer.from(mount.base64, "base64"), { mode: 0o600, flag: "wx" });
        chownSync(place, mount.uid, mount.gid);
        chmodSync(place, mount.mode & 0o777);
        const noexec = (mount.mode & 0o111) === 0 ? ["noexec"] : [];
        const options = ["ro", "rbind", "nodev", "nosuid", ...noexec];
        return { destination: mount.dest, type: "bind", source: place, options };
      }
      case "host":
        return { destination: mount.dest, type: "bind", source: mount.source, options: ["rbind", ...access] };
      case "snapshot": {
        const pooled = this.#deps.pool.acquire(mount.mounts);
        undo.push(() => pooled.release());
        const source = selectPath(pooled, mount.selector, place, undo);
        return { destination: mount.dest, type: "bind", source, options: ["rbind", ...access] };
      }
    }
  }

  #startRuntime(container: Container, plan: RunPlan): RunningProcess {
    const { config, processes, env } = this.#deps;
    const pidFile = `${container.dir}/pid`;
    const keep = config.runtimeKeeps && this.#looksAtMemory(container.spec);
    const argv = [
      ...this.#runtimeArgs(`${container.dir}/log.json`),
      "run",
      "--bundle",
      container.dir,
      "--pid-file",
      pidFile,
      ...(config.noPivotRoot ? ["--no-pivot"] : []),
      ...(keep ? ["--keep"] : []),
      container.id,
    ];
    const key = container.id;
    const monitor = processes.start(argv, env, plan.stdio, (code) => {
      this.#ended(container, running, code, keep);
    });
    const running: RunningProcess = { key, monitor, pidFile, killing: undefined };
    this.#add(container, running);
    return running;
  }

  /** Whether the end of this container may be the kernel's doing for lack of memory, in a way that can be told. */
  #looksAtMemory(spec: OciSpec): boolean {
    return this.#deps.config.host.cgroupNamespaces || spec.linux.resources?.memory !== undefined;
  }

  #runtimeArgs(log: string): string[] {
    const { runtime, runDir } = this.#deps.config;
    return [runtime, "--root", `${runDir}/runtime`, "--log", log, "--log-format", "json"];
  }

  #add(container: Container, running: RunningProcess): void {
    container.processes.add(running);
    this.#processes.set(running.key, running);
  }

  #remove(container: Container, running: RunningProcess): void {
    container.processes.delete(running);
    this.#processes.delete(running.key);
    clearInterval(running.killing);
  }

  /** The first process has ended, and with it the container. */
  #ended(container: Container, running: RunningProcess, code: number, kept: boolean): void {
    this.#remove(container, running);
    container.state = "ended";
    const outOfMemory = kept && code !== 0 && readOomKills(container.spec.linux.cgroupsPath ?? "") > 0;
    const sample = kept ? sampleCgroup(container.spec.linux.cgroupsPath ?? "") : undefined;
    const runtimeError = readRuntimeError(`${container.dir}/log.json`);
    const finish = (): void => {
      this.#containers.delete(container.id);
      const failure = runAll(container.cleanCa ? [container.cleanCa] : []);
      const cleanupError = runAll(container.undo);
      this.#deps.onExit({ key: running.key, code, outOfMemory, sample, runtimeError, failure, cleanupError });
    };
    // A runtime that was killed, or asked to keep, has left its state behind.
    if (!kept && !existsSync(`${this.#deps.config.runDir}/runtime/${container.id}`)) {
      finish();
      return;
    }
    const argv = [...this.#runtimeArgs(`${container.dir}/delete.json`), "delete", "--force", container.id];
    try {
      this.#deps.processes.start(argv, this.#deps.env, NO_STDIO, finish);
    } catch {
      finish();
    }
  }

  /** Starts another process in a container, waiting until that runs. */
  async exec(plan: ExecPlan): Promise<{ key: string }> {
    const container = this.#containers.get(plan.id);
    if (!container) throw new BuildError("not_found", `container ${plan.id} not found`);
    await this.#untilRunning(container);
    const { dir, spec } = container;
    const process = { ...spec.process, args: plan.args, terminal: plan.tty };
    if (plan.cwd !== "") process.cwd = plan.cwd;
    if (plan.env.length > 0) {
      process.env = container.cleanCa ? replaceProxyEnv(plan.env, proxyEnvOf(spec.process.env)) : plan.env;
    }
    if (plan.user !== "") {
      using root = new RootDir(container.rootPath);
      const { uid, gid, supplementaryGids } = lookupUser(root, plan.user);
      process.user = { uid, gid, additionalGids: [...supplementaryGids] };
      process.env = withHome(root, process.env, uid);
    }
    refuseProcDescriptors(process.cwd);
    const base = `${dir}/exec-${plan.name}`;
    writeFileSync(`${base}.json`, JSON.stringify(process), { mode: 0o600, flag: "wx" });
    const argv = [
      ...this.#runtimeArgs(`${base}.log`),
      "exec",
      "--process",
      `${base}.json`,
      "--pid-file",
      `${base}.pid`,
      plan.id,
    ];
    const key = `${plan.id}/${plan.name}`;
    const monitor = this.#deps.processes.start(argv, this.#deps.env, plan.stdio, (code) => {
      this.#remove(container, running);
      const runtimeError = readRuntimeError(`${base}.log`);
      this.#deps.onExit({ key, code, outOfMemory: false, runtimeError, failure: "", cleanupError: "" });
    });
    const running: RunningProcess = { key, monitor, pidFile: `${base}.pid`, killing: undefined };
    this.#add(container, running);
    return { key };
  }

  async #untilRunning(container: Container): Promise<void> {
    while (container.state === "starting") {
      if (existsSync(`${container.dir}/pid`) && (await this.#isRunning(container)))
        container.state = "running";
      else await new Promise((resolve) => setTimeout(resolve, STATE_POLL_MS));
    }
    if (container.state === "ended") {
      throw new BuildError("failed_precondition", `container ${container.id} has stopped`);
    }
  }

  #isRunning(container: Container): Promise<boolean> {
    const out = `${container.dir}/state.json`;
    writeFileSync(out, "");
    const argv = [...this.#runtimeArgs(`${container.dir}/state.log`), "state", container.id];
    const stdio = { kind: "pipes", stdin: undefined, stdout: out, stderr: undefined } as const;
    return new Promise((resolve) => {
      this.#deps.processes.start(argv, this.#deps.env, stdio, (code) => {
        if (code !== 0 || container.state === "ended") return resolve(false);
        resolve(/"status":\s*"running"/.test(readFileSync(out, "utf8")));
      });
    });
  }

  /**
   * Sets the size of a process's terminal. Not every runtime carries sizes over from its own terminal, so the one
   * inside is set too, through the process that has it open.
   */
  resize(key: string, rows: number, cols: number): void {
    const running = this.#processes.get(key);
    if (!running) return;
    killProcess(running.monitor, SIGWINCH);
    const pid = readPid(running.pidFile);
    if (pid !== undefined) resizeTerminalOf(pid, rows, cols);
  }

  /** Signals the process itself; `SIGKILL` until it is gone. */
  signal(key: string, signal: number): void {
    const running = this.#processes.get(key);
    if (!running) return;
    if (signal !== SIGKILL) {
      const pid = readPid(running.pidFile);
      if (pid !== undefined) killProcess(pid, signal);
      return;
    }
    if (running.killing) return;
    const since = Date.now();
    const kill = (): void => {
      const pid = readPid(running.pidFile);
      if (pid !== undefined) killProcess(pid, SIGKILL);
      if (Date.now() - since > MONITOR_GRACE_MS) killProcess(-running.monitor, SIGKILL);
    };
    running.killing = setInterval(kill, KILL_RETRY_MS);
    kill();
  }

  /** The path of a running container's root, in the zygote's view. */
  rootPath(id: string): string {
    const container = this.#containers.get(id);
    if (!container) throw new BuildError("not_found", `container ${id} not found`);
    return container.rootPath;
  }
}

const SIGWINCH = 28;
const OWN_FILE_SYSTEMS = [
  ["/proc", "proc"],
  ["/sys", "sysfs"],
  ["/dev", "tmpfs"],
] as const;
const NO_STDIO = { kind: "pipes", stdin: undefined, stdout: undefined, stderr: undefined } as const;

/** Undoes in reverse order, all of it; the first failure's text is returned. */
function runAll(undo: (() => void)[]): string {
  let failure = "";
  for (const step of undo.reverse()) {
    try {
      step();
    } catch (error) {
      failure ||= error instanceof Error ? error.message : String(error);
    }
  }
  return failure;
}

function isFile(path: string): boolean {
  return !statSync(path).isDirectory();
}
