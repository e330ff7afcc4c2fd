import { type HostIP, type Mount, NetMode, type Platform, type SecretEnv, SecurityMode } from "@kiln/api/pb";
import { BuildError, codeOfNodeError, createDeferred, errorMessage } from "@kiln/base";
import {
  type Executor,
  type ExitStatus,
  type MountedPath,
  newContainerId,
  type ProcessControl,
  type ProxyConfig,
  type SandboxSpec,
} from "@kiln/executor";
import type { SessionGroup } from "@kiln/solver";
import type { ImmutableRef } from "@kiln/store";
import { DEFAULT_PATH, parseExtraHosts, secretEnv, withDefaultEnv } from "../ops/exec/exec-env.ts";
import { exitDetail, exitFailure, netModeOf } from "../ops/exec/exec-op.ts";
import { type MountsHost, PreparedMounts } from "../ops/exec/prepare-mounts.ts";
import { checkEntitlements, type Entitlements } from "../solve/entitlements.ts";
import type { ProcessStreams } from "./process-streams.ts";

const WINDOWS_PATH = "c:\\Windows\\System32;c:\\Windows;C:\\Windows\\System32\\WindowsPowerShell\\v1.0";
/** Exit code of a process that was killed, and of one whose end isn't known (containerd's). */
const KILLED = 137;
const UNKNOWN_CODE = 255;

/** What containers of a gateway are made with. */
export interface ContainerHost {
  readonly mounts: MountsHost;
  readonly executor: Executor;
  readonly sessions: SessionGroup;
  /** What the build has been granted by now. */
  granted(): Entitlements;
  /** The watched way out, where a build has no other. */
  proxy(): ProxyConfig | undefined;
}

/** A container as a client describes it. */
export interface ContainerSpec {
  /** The client's name for it; the executor has its own. */
  readonly id: string;
  /** With the tree below each; see {@link PreparedMounts}. */
  readonly mounts: readonly { readonly mount: Mount; readonly tree: ImmutableRef | undefined }[];
  readonly network: NetMode;
  readonly hostname: string;
  readonly extraHosts: readonly HostIP[];
  readonly platform: Platform | undefined;
}

/** A process to start; BuildKit's `StartRequest`. */
export interface StartRequest {
  readonly args: readonly string[];
  readonly env: readonly string[];
  readonly secretEnv: readonly SecretEnv[];
  readonly user: string;
  readonly cwd: string;
  readonly tty: boolean;
  readonly security: SecurityMode;
  readonly removeMountStubsRecursive: boolean;
}

/** How a process ended; `error` is there for all but success. */
export interface ProcessEnd {
  readonly code: number;
  readonly error: BuildError | undefined;
}

/** A process of a {@link GatewayContainer}. */
export interface ContainerProcess {
  /** Never rejects. */
  readonly ended: Promise<ProcessEnd>;
  /** Its controls as soon as they work; undefined when it has ended before. */
  control(): Promise<ProcessControl | undefined>;
}

/**
 * A container that a client of the gateway works in: trees that are prepared once, and processes in them. The
 * first process makes the container run, and all others die with it.
 */
export class GatewayContainer {
  readonly #host: ContainerHost;
  readonly #spec: ContainerSpec;
  readonly #executorId = newContainerId();
  readonly #prepared: PreparedMounts;
  readonly #closing = new AbortController();
  readonly #processes = new Set<Promise<ProcessEnd>>();
  readonly #shown = new Map<number, Promise<MountedPath>>();
  #firstMode: SecurityMode | undefined;
  #failure: BuildError | undefined;
  #released: Promise<void> | undefined;

  private constructor(host: ContainerHost, spec: ContainerSpec) {
    this.#host = host;
    this.#spec = spec;
    const name = `container ${spec.id}`;
    this.#prepared = new PreparedMounts(
      host.mounts,
      {
        sessions: host.sessions,
        signal: this.#closing.signal,
        cwd: "/",
        name,
        describe: (mount) => `mount ${mount.dest} from ${name}`,
      },
      spec.mounts.flatMap(({ tree }) => (tree === undefined ? [] : [tree])),
    );
  }

  /**
   * Prepares the mounts; the trees are only borrowed meanwhile.
   *
   * @throws BuildError `invalid_argument` for mounts that make no sense.
   */
  static async create(
    host: ContainerHost,
    spec: ContainerSpec,
    signal: AbortSignal,
  ): Promise<GatewayContainer> {
    parseExtraHosts(spec.extraHosts);
    const container = new GatewayContainer(host, spec);
    // The request's signal ends with the request, the container doesn't.
    const onAbort = (): void => container.#closing.abort(signal.reason);
    signal.addEventListener("abort", onAbort, { once: true });
    try {
      signal.throwIfAborted();
      let trees = 0;
      await container.#prepared.prepare(
        spec.mounts.map(({ mount, tree }) => ({
          ...mount,
          input: tree === undefined ? -1n : BigInt(trees++),
          output: 0n,
        })),
      );
      return container;
    } catch (error) {
      await container.#prepared[Symbol.asyncDispose]();
      throw error;
    } finally {
      signal.removeEventListener("abort", onAbort);
    }
  }

  /** Aborts when the container is released. */
  get signal(): AbortSignal {
    return this.#closing.signal;
  }

  /**
   * Starts a process: the container's first, or one more in it. Settles when it has been started, or has
   * ended without. Problems of the process itself are its end.
   *
   * @throws BuildError when the container has been released, or for secrets that can't be had.
   */
  async start(request: StartRequest, streams: ProcessStreams): Promise<ContainerProcess> {
    const env = await this.#env(request);
    if (this.#closing.signal.aborted) throw new BuildError("unknown", "container is closed");
    const isFirst = this.#firstMode === undefined;
    this.#firstMode ??= request.security;
    const control = createDeferred<ProcessControl | undefined>();
    const started = createDeferred<void>();
    const process = {
      args: request.args,
      env,
      user: request.user,
      cwd: request.cwd === "" ? "/" : request.cwd,
      tty: request.tty,
    };
    const io = {
      ...streams.io,
      started: () => started.resolve(),
      onControl: (one: ProcessControl) => control.resolve(one),
    };
    const ended = this.#judge(async () => {
      this.#check(request.security);
      const { signal } = this.#closing;
      if (!isFirst) {
        const securityMode = this.#addedMode(request.security);
        return await this.#host.executor.exec(this.#executorId, { process, securityMode, io, signal });
      }
      return await this.#host.executor.run({
        id: this.#executorId,
        rootfs: this.#prepared.rootfs,
        mounts: this.#prepared.mounts,
        process,
        sandbox: this.#sandbox(request),
        io,
        signal,
      });
    });
    this.#processes.add(ended);
    void ended.then(({ error }) => {
      this.#failure ??= error;
      control.resolve(undefined);
      this.#processes.delete(ended);
    });
    if (isFirst) await Promise.race([started.promise, ended]);
    return { ended, control: () => control.promise };
  }

  /**
   * A directory that shows what is mounted as number `index`, as it is at the moment. It is hostile ground:
   * resolve names in it as in a chroot only.
   *
   * @throws BuildError for mounts that aren't there, or aren't trees.
   */
  async mountedRoot(index: number): Promise<string> {
    const { mounts } = this.#spec;
    if (!Number.isInteger(index) || index < 0 || index >= mounts.length) {
      throw new BuildError("unknown", `mount index ${index} is out of bounds (${mounts.length} available)`);
    }
    if (this.#closing.signal.aborted) throw new BuildError("unknown", "container is closed");
    const shown = this.#prepared.treeMounts.get(index);
    if (shown === undefined) {
      throw new BuildError("unknown", `mountable ${index} not found: only trees and cache mounts have files`);
    }
    let mounted = this.#shown.get(index);
    if (mounted === undefined) {
      mounted = this.#host.executor.mountShared(shown);
      this.#shown.set(index, mounted);
      mounted.catch(() => this.#shown.delete(index));
    }
    return (await mounted).path;
  }

  /** How the first process ended that failed, one that was killed by the release included. */
  get failure(): BuildError | undefined {
    return this.#failure;
  }

  /** Kills what runs and settles when every trace of the container is gone; idempotent. */
  release(): Promise<void> {
    this.#released ??= this.#release();
    return this.#released;
  }

  async #release(): Promise<void> {
    this.#closing.abort(new BuildError("canceled", "context canceled"));
    await Promise.all(this.#processes);
    for (const mounted of this.#shown.values()) {
      const path = await mounted.catch(() => undefined);
      await path?.[Symbol.asyncDispose]();
    }
    this.#shown.clear();
    await this.#prepared[Symbol.asyncDispose]();
  }

  async #env(request: StartRequest): Promise<string[]> {
    const { platform } = this.#spec;
    const env = withDefaultEnv(request.env, "PATH", platform?.OS === "windows" ? WINDOWS_PATH : DEFAULT_PATH);
    const { sessions, mounts } = this.#host;
    const secrets = await secretEnv([...request.secretEnv], {
      clients: mounts.clients,
      sessions,
      signal: this.#closing.signal,
    });
    return [...(request.tty ? withDefaultEnv(env, "TERM", "xterm") : env), ...secrets];
  }

  #check(security: SecurityMode): void {
    if (security !== SecurityMode.SANDBOX && security !== SecurityMode.INSECURE) {
      throw new BuildError("invalid_argument", `invalid security mode ${String(security)}`);
    }
    checkEntitlements(this.#host.granted(), {
      hostNetwork: netModeOf(this.#spec.network) === "host",
      insecure: security === SecurityMode.INSECURE,
    });
  }

  /** A process that joins a container has the rights of its first one. */
  #addedMode(security: SecurityMode): "sandbox" | "insecure" {
    return security === SecurityMode.INSECURE && this.#firstMode !== SecurityMode.INSECURE
      ? "insecure"
      : "sandbox";
  }

  #sandbox(request: StartRequest): SandboxSpec {
    const { network, hostname, extraHosts, platform } = this.#spec;
    const proxy = network === NetMode.NONE ? undefined : this.#host.proxy();
    return {
      hostname,
      extraHosts: parseExtraHosts(extraHosts),
      netMode: netModeOf(network),
      securityMode: request.security === SecurityMode.INSECURE ? "insecure" : "sandbox",
      readonlyRootfs: false,
      removeMountStubsRecursive: request.removeMountStubsRecursive,
      ...(platform === undefined || platform.OS !== "linux" || platform.Architecture === ""
        ? {}
        : {
            platform: {
              os: platform.OS,
              architecture: platform.Architecture,
              ...(platform.Variant === "" ? {} : { variant: platform.Variant }),
            },
          }),
      ...(proxy === undefined ? {} : { proxy }),
    };
  }

  /** Waits for a process and says how it ended, in BuildKit's words. */
  async #judge(run: () => Promise<ExitStatus>): Promise<ProcessEnd> {
    let status: ExitStatus;
    try {
      status = await run();
    } catch (error) {
      if (this.#closing.signal.aborted) return canceledEnd();
      return { code: UNKNOWN_CODE, error: asBuildError(error) };
    }
    const reason = exitFailure(status, []);
    if (reason !== undefined) {
      const error = new BuildError("unknown", reason, { wire: [exitDetail(status.code)] });
      return { code: status.code === 0 ? UNKNOWN_CODE : status.code, error };
    }
    return { code: 0, error: undefined };
  }
}

function canceledEnd(): ProcessEnd {
  const error = new BuildError("canceled", `exit code: ${KILLED}: context canceled`, {
    wire: [exitDetail(KILLED)],
  });
  return { code: KILLED, error };
}

function asBuildError(error: unknown): BuildError {
  if (error instanceof BuildError) return error;
  return new BuildError(codeOfNodeError(error), errorMessage(error), { cause: error });
}
