import { existsSync, mkdirSync, realpathSync, rmSync, writeFileSync } from "node:fs";
import { release } from "node:os";
import { join } from "node:path";
import { BuildError, createDeferred, type Deferred, withSignal } from "@kiln/base";
import type { MachineNotes, Mount } from "@kiln/sys";
import type { CdiEdits } from "./cdi-edits.ts";
import type { CdiRegistry } from "./cdi-registry.ts";
import { cgroupsPathOf, hasCgroupNamespaces } from "./cgroup.ts";
import { newContainerId, validateContainerId } from "./container-id.ts";
import { DEFAULT_HOSTNAME, type DnsConfig, NetworkFiles } from "./dns.ts";
import type {
  CdiDevice,
  ExecMount,
  ExecOptions,
  Executor,
  ExitStatus,
  MountedPath,
  NetMode,
  ProcessIo,
  RunOptions,
  SandboxSpec,
  TerminalSize,
} from "./executor.ts";
import { findRuntime } from "./find-runtime.ts";
import { HandedMounts } from "./handed-mounts.ts";
import { insecureGrants, mapsGroup } from "./insecure.ts";
import { type ContainerNetwork, hostNetwork, type NetworkProvider, noNetwork } from "./network.ts";
import type { SpecHost } from "./oci-spec.ts";
import { EMULATOR_DEST, emulatorOf, goArchitecture } from "./platforms.ts";
import type { ExitEvent, PlannedMount, RunPlan, StdioPaths } from "./protocol.ts";
import { replaceProxyEnv } from "./proxy/proxy-env.ts";
import { isProxied, ProxyNetworks } from "./proxy/proxy-network.ts";
import { monitorCgroup } from "./resources/resource-monitor.ts";
import { openStdio, type Stdio } from "./stdio.ts";
import { addTraceSocket } from "./trace-socket.ts";
import type { Zygote } from "./zygote.ts";

const SIGKILL = 9;
/** `tty` in every distribution. */
const TERMINAL_GROUP = 5;
/** A process younger than this may not have a runtime yet that hears of sizes. */
const YOUNG_MS = 1000;
const RESIZE_DELAYS_MS = [0, 30, 100, 300, 1000];

/** How an executor is set up. */
export interface OciExecutorOptions {
  /** Directory of its own; what a crash left in it is removed with `cleanupLeftovers` first. */
  readonly root: string;
  readonly zygote: Zygote;
  /** Name or path of the OCI runtime; found when absent. */
  readonly binary?: string;
  /** The default network; the machine's own when absent. */
  readonly network?: NetworkProvider;
  readonly dns?: DnsConfig;
  /** Parent of containers' cgroups. */
  readonly cgroupParent?: string;
  readonly rootless?: boolean;
  readonly noProcessSandbox?: boolean;
  readonly noPivotRoot?: boolean;
  readonly apparmorProfile?: string;
  /** SELinux labels were asked for. */
  readonly selinux?: boolean;
  /** Devices that steps may ask for; without it asking is refused. */
  readonly cdi?: CdiRegistry;
  /** Path of the daemon's socket for steps that send traces. */
  readonly traceSocket?: string;
  /** Where it is noted which runtime works and how, so that the next start needn't try. */
  readonly notes?: MachineNotes;
}

/** Makes the executor that runs an OCI runtime (crun, runc). Chooses and tries the runtime. */
export async function createOciExecutor(options: OciExecutorOptions): Promise<OciExecutor> {
  if (options.selinux) throw new BuildError("failed_precondition", "selinux is not available");
  if (options.apparmorProfile && !existsSync("/sys/kernel/security/apparmor")) {
    throw new BuildError(
      "failed_precondition",
      `AppArmor is not supported on this host, but the profile '${options.apparmorProfile}' was specified`,
    );
  }
  mkdirSync(options.root, { recursive: true, mode: 0o711 });
  const root = realpathSync(options.root);
  const host = describeHost(options);
  const { zygote } = options;
  const { runtime, traits, seccompBpf } = await findRuntime(options, host, root);
  await zygote.request("configure", {
    runtime: runtime.path,
    runtimeKeeps: traits.keeps,
    hideUnifiedCgroup: runtime.hideUnifiedCgroup,
    noPivotRoot: options.noPivotRoot ?? false,
    runDir: join(root, "run"),
    host: seccompBpf === undefined ? host : { ...host, seccompBpf },
  });
  return new OciExecutor({ ...options, root }, runtime.path);
}

function describeHost(options: OciExecutorOptions): SpecHost {
  const [major = "0", minor = "0"] = release().split(".");
  return {
    architecture: goArchitecture(),
    kernel: [Number(major), Number.parseInt(minor, 10)],
    cgroupNamespaces: hasCgroupNamespaces(),
    seccomp: existsSync("/proc/sys/kernel/seccomp"),
    insecure: insecureGrants(),
    terminalGroup: mapsGroup(TERMINAL_GROUP),
    rootless: options.rootless ?? false,
    noProcessSandbox: options.noProcessSandbox ?? false,
    ...(options.apparmorProfile ? { apparmorProfile: options.apparmorProfile } : {}),
  };
}

/** What is made for a container before it is run. */
interface MadeForRun {
  readonly id: string;
  readonly network: ContainerNetwork;
  readonly hosts: string;
  readonly cgroupsPath: string;
  readonly stdio: StdioPaths;
  readonly cdi?: CdiEdits;
}

/** See {@link Executor}; made by {@link createOciExecutor}. */
export class OciExecutor implements Executor {
  /** Path of the OCI runtime in use. */
  readonly runtime: string;
  readonly #options: OciExecutorOptions;
  readonly #files: NetworkFiles;
  /** Containers by id, with what settles when they have been started. */
  readonly #running = new Map<string, Deferred<void>>();
  #proxies: ProxyNetworks | undefined;
  #execs = 0;

  constructor(options: OciExecutorOptions, runtime: string) {
    this.#options = options;
    this.runtime = runtime;
    this.#files = new NetworkFiles(options.root, options.dns);
  }

  async run(options: RunOptions): Promise<ExitStatus> {
    const { signal, sandbox } = options;
    signal.throwIfAborted();
    const id = options.id ?? newContainerId();
    validateContainerId(id);
    const cdi = this.#cdiEdits(sandbox.cdiDevices ?? []);
    if (this.#running.has(id)) throw new BuildError("already_exists", `container ${id} already exists`);
    const started = createDeferred<void>();
    this.#running.set(id, started);
    try {
      await using network = await this.#acquireNetwork(sandbox);
      return await this.#runWith(options, { id, network, started, ...(cdi ? { cdi } : {}) });
    } finally {
      started.reject(new BuildError("failed_precondition", `container ${id} has stopped`));
      this.#running.delete(id);
    }
  }

  async #runWith(
    options: RunOptions,
    made: { id: string; network: ContainerNetwork; started: Deferred<void>; cdi?: CdiEdits },
  ): Promise<ExitStatus> {
    const { sandbox, io, signal } = options;
    const { id, started } = made;
    const dir = join(this.#options.root, id);
    const cgroupsPath = cgroupsPathOf(sandbox.cgroupParent || (this.#options.cgroupParent ?? ""), id);
    mkdirSync(dir, { mode: 0o711 });
    try {
      // For `cleanupLeftovers`, should this process not come to it.
      writeFileSync(join(dir, "cgroup"), cgroupsPath);
      using hosts = this.#files.hosts(id, sandbox.hostname ?? "", sandbox.extraHosts ?? []);
      const stdio = openStdio(dir, "run", options.process.tty, io);
      try {
        const more = { hosts: hosts.path, cgroupsPath, stdio: stdio.paths };
        using monitor = monitorCgroup(cgroupsPath);
        const key = await this.#start(options, { ...made, ...more });
        started.resolve();
        const status = await this.#follow(key, stdio, io, signal);
        const usage = monitor.end(status.usage?.samples[0]);
        return usage === undefined ? status : { ...status, usage };
      } finally {
        stdio.close();
      }
    } finally {
      rmSync(dir, { recursive: true, force: true });
    }
  }

  #cdiEdits(devices: readonly CdiDevice[]): CdiEdits | undefined {
    const { cdi } = this.#options;
    if (cdi) return cdi.edits(devices);
    const needed = devices.find((device) => !device.optional);
    if (!needed) return undefined;
    const name = JSON.stringify(needed.name);
    throw new BuildError(
      "failed_precondition",
      `CDI device ${name} is required, but CDI device support is disabled`,
    );
  }

  async #acquireNetwork(sandbox: SandboxSpec): Promise<ContainerNetwork> {
    const provider = this.#network(sandbox.netMode ?? "default");
    if (!sandbox.proxy) return await provider.acquire(sandbox.hostname ?? "");
    this.#proxies ??= new ProxyNetworks(this.#options.zygote, this.#options.root);
    return await this.#proxies.open(await provider.acquire(""), sandbox.proxy);
  }

  #network(mode: NetMode): NetworkProvider {
    if (mode === "host") return hostNetwork;
    if (mode === "none") return noNetwork;
    return this.#options.network ?? hostNetwork;
  }

  async #start(options: RunOptions, made: MadeForRun): Promise<string> {
    using handed = new HandedMounts();
    const { key } = await this.#options.zygote.request("run", this.#plan(options, made, handed));
    return key;
  }

  #plan(options: RunOptions, made: MadeForRun, handed: HandedMounts): RunPlan {
    const { process, sandbox } = options;
    const mounts = options.mounts.map((mount) => plannedMount(mount, handed));
    const args = [...process.args];
    const emulator = sandbox.platform && emulatorOf(sandbox.platform);
    if (emulator !== undefined) {
      args.unshift(EMULATOR_DEST);
      mounts.push({ kind: "host", dest: EMULATOR_DEST, source: emulator, readonly: true });
    }
    const proxied = isProxied(made.network) ? made.network : undefined;
    const own = proxied ? replaceProxyEnv(process.env, proxied.env) : process.env;
    const env = addTraceSocket(
      this.#options.traceSocket,
      { env: own, traceParent: process.traceParent },
      mounts,
    );
    const isHostNetwork = made.network.spec.kind === "host";
    const hostname = sandbox.hostname || DEFAULT_HOSTNAME;
    return {
      id: made.id,
      rootfs: handed.add(options.rootfs),
      mounts,
      user: process.user,
      network: made.network.spec,
      removeMountStubsRecursive: sandbox.removeMountStubsRecursive ?? false,
      stdio: made.stdio,
      ...(proxied ? { proxyCaPem: proxied.caPem } : {}),
      draft: {
        args,
        env,
        cwd: process.cwd,
        tty: process.tty,
        readonlyRoot: sandbox.readonlyRootfs ?? false,
        hostname,
        cgroupsPath: made.cgroupsPath,
        securityMode: sandbox.securityMode ?? "sandbox",
        ulimits: sandbox.ulimits ?? [],
        resources: sandbox.resources ?? {},
        resolvConf: this.#files.resolvConf(isHostNetwork),
        hosts: made.hosts,
        ...(made.cdi ? { cdi: made.cdi } : {}),
      },
    };
  }

  /** Carries streams and signals of a started process until it has ended. */
  async #follow(key: string, stdio: Stdio, io: ProcessIo, signal: AbortSignal): Promise<ExitStatus> {
    const { zygote } = this.#options;
    const send = (number: number): void => {
      // The only failure is a zygote that has ended, which `exit` reports.
      zygote.request("signal", { key, signal: number }).catch(() => undefined);
    };
    const resize = (size: TerminalSize): void => {
      zygote.request("resize", { key, ...size }).catch(() => undefined);
    };
    let latest: TerminalSize | undefined;
    const kill = (): void => send(SIGKILL);
    const exit = zygote.exit(key);
    signal.addEventListener("abort", kill, { once: true });
    if (signal.aborted) kill();
    try {
      stdio.attach();
      const startedMs = Date.now();
      io.started?.();
      io.onControl?.({
        kill: send,
        resize: (size) => {
          stdio.resize(size);
          latest = size;
          // A runtime that is still at work on the container misses the first.
          for (const delayMs of Date.now() - startedMs > YOUNG_MS ? [0] : RESIZE_DELAYS_MS) {
            setTimeout(() => latest === size && resize(size), delayMs).unref();
          }
        },
      });
      const event = await exit;
      await stdio.drained();
      signal.throwIfAborted();
      return statusOf(event);
    } catch (error) {
      // Nothing may be removed under a process that still runs.
      kill();
      await exit.catch(() => undefined);
      throw error;
    } finally {
      signal.removeEventListener("abort", kill);
    }
  }

  async exec(id: string, options: ExecOptions): Promise<ExitStatus> {
    options.signal.throwIfAborted();
    validateContainerId(id);
    const { process, io, signal } = options;
    if (options.securityMode === "insecure") {
      throw new BuildError(
        "unimplemented",
        "insecure mode for a process added to a container isn't supported",
      );
    }
    const dir = join(this.#options.root, id);
    const name = `e${this.#execs++}`;
    const container = this.#running.get(id);
    if (!container) throw new BuildError("not_found", `container ${id} not found`);
    await withSignal(container.promise, signal);
    const stdio = openStdio(dir, name, process.tty, io);
    try {
      const { args, env, user, cwd, tty } = process;
      const started = this.#options.zygote.request("exec", {
        id,
        name,
        args,
        env,
        user,
        cwd,
        tty,
        stdio: stdio.paths,
      });
      const { key } = await withSignal(started, signal);
      return await this.#follow(key, stdio, io, signal);
    } finally {
      stdio.close();
    }
  }

  async rootPath(id: string): Promise<string> {
    validateContainerId(id);
    const { path } = await this.#options.zygote.request("rootPath", { id });
    return this.#options.zygote.viewPath + path;
  }

  async mountShared(mounts: readonly Mount[]): Promise<MountedPath> {
    const { zygote } = this.#options;
    using handed = new HandedMounts();
    const { handle, path } = await zygote.request("mount", { mounts: handed.add(mounts) });
    return {
      path: zygote.viewPath + path,
      [Symbol.asyncDispose]: async () => {
        await zygote.request("unmount", { handle });
      },
    };
  }

  /** Releases the networks; the zygote stays its owner's. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#options.network?.[Symbol.asyncDispose]();
  }
}

function statusOf(event: ExitEvent): ExitStatus {
  if (event.cleanupError !== "") process.emitWarning(`container ${event.key}: ${event.cleanupError}`);
  const { code, outOfMemory, runtimeError, failure, sample } = event;
  const usage = sample === undefined ? {} : { usage: { samples: [sample] } };
  return { code, outOfMemory, runtimeError, failure, ...usage };
}

function plannedMount(mount: ExecMount, handed: HandedMounts): PlannedMount {
  const { dest, readonly } = mount;
  switch (mount.kind) {
    case "snapshot":
      return {
        kind: "snapshot",
        dest,
        readonly,
        mounts: handed.add(mount.mounts),
        selector: mount.selector ?? "",
      };
    case "tmpfs":
      return { kind: "tmpfs", dest, readonly, sizeBytes: mount.sizeBytes };
    case "host":
      return { kind: "host", dest, readonly, source: mount.source };
    case "file": {
      const { uid, gid, mode } = mount;
      return {
        kind: "file",
        dest,
        readonly,
        base64: Buffer.from(mount.data).toString("base64"),
        uid,
        gid,
        mode,
      };
    }
  }
}
