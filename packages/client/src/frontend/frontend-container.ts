import { create } from "@bufbuild/protobuf";
import { LLBBridge } from "@kiln/api/gateway";
import { CacheSharingOpt, MountSchema, MountType, NetMode, SecurityMode } from "@kiln/api/pb";
import { BuildError } from "@kiln/base";
import { newId } from "@kiln/formats";
import type { Platform } from "@kiln/oci";
import { type ExecChannel, type FrontendProcess, OutputBuffer } from "./exec-channel.ts";
import { type ByteRange, type FileInfo, fileInfo, type GatewayRef, rangeMessage } from "./frontend-ref.ts";
import type { GatewayCalls } from "./gateway-calls.ts";

/** A mount of a {@link FrontendContainer}; exactly one kind of source, or none for an empty directory. */
export interface ContainerMount {
  readonly dest: string;
  /** What it shows; a container changes a copy. */
  readonly ref?: GatewayRef | undefined;
  /** Path inside `ref`. */
  readonly selector?: string | undefined;
  readonly readonly?: boolean | undefined;
  readonly tmpfs?: { readonly sizeBytes?: number | undefined } | undefined;
  readonly cache?: { readonly id: string; readonly sharing?: "shared" | "private" | "locked" } | undefined;
  readonly secret?: { readonly id: string; readonly optional?: boolean; readonly mode?: number } | undefined;
  readonly ssh?: { readonly id?: string; readonly optional?: boolean; readonly mode?: number } | undefined;
}

/** How a container is set up. */
export interface ContainerOptions {
  /** One of them is `/`. */
  readonly mounts: readonly ContainerMount[];
  /** `host` needs the entitlement `network.host`. */
  readonly network?: "sandbox" | "host" | "none" | undefined;
  readonly hostname?: string | undefined;
  readonly extraHosts?: readonly { readonly host: string; readonly ip: string }[] | undefined;
  readonly platform?: Platform | undefined;
}

/** A process to start in a container. */
export interface ProcessOptions {
  readonly args: readonly string[];
  /** `NAME=value` each. */
  readonly env?: readonly string[] | undefined;
  readonly secretEnv?: readonly { readonly id: string; readonly name: string; readonly optional?: boolean }[];
  readonly cwd?: string | undefined;
  readonly user?: string | undefined;
  readonly tty?: boolean | undefined;
  /** Needs the entitlement `security.insecure`. */
  readonly insecure?: boolean | undefined;
  readonly stdin?: AsyncIterable<Uint8Array> | Uint8Array | string | undefined;
  readonly onStdout?: ((chunk: Uint8Array) => void) | undefined;
  readonly onStderr?: ((chunk: Uint8Array) => void) | undefined;
}

/** How a process that was waited for has ended. */
export interface ProcessResult {
  readonly exitCode: number;
  readonly stdout: Uint8Array;
  readonly stderr: Uint8Array;
}

const NETWORKS = { sandbox: NetMode.UNSET, host: NetMode.HOST, none: NetMode.NONE } as const;
const SHARINGS = {
  shared: CacheSharingOpt.SHARED,
  private: CacheSharingOpt.PRIVATE,
  locked: CacheSharingOpt.LOCKED,
} as const;
/** What {@link FrontendContainer.run} keeps of each output. */
const MAX_OUTPUT_BYTES = 16 << 20;

/**
 * A container that a frontend works in; nothing of what happens there is cached. It ends with the first process that
 * was started in it: others can be started only while that one runs. Dispose of it when done.
 */
export class FrontendContainer implements AsyncDisposable {
  readonly #calls: GatewayCalls;
  readonly #exec: ExecChannel;
  readonly #id: string;
  #isReleased = false;

  private constructor(calls: GatewayCalls, exec: ExecChannel, id: string) {
    this.#calls = calls;
    this.#exec = exec;
    this.#id = id;
  }

  /** Makes a container. @throws BuildError of the daemon, `permission_denied` without an entitlement. */
  static async create(
    calls: GatewayCalls,
    exec: ExecChannel,
    options: ContainerOptions,
  ): Promise<FrontendContainer> {
    calls.require("gateway.exec");
    const id = newId();
    await calls.unary(LLBBridge.method.newContainer, {
      ContainerID: id,
      Mounts: options.mounts.map(mountMessage),
      Network: NETWORKS[options.network ?? "sandbox"],
      hostname: options.hostname ?? "",
      extraHosts: (options.extraHosts ?? []).map(({ host, ip }) => ({ Host: host, IP: ip })),
      ...(options.platform === undefined ? {} : { platform: platformMessage(options.platform) }),
    });
    return new FrontendContainer(calls, exec, id);
  }

  /** Starts a process. @throws BuildError when it can't be started. */
  async start(options: ProcessOptions): Promise<FrontendProcess> {
    if ((options.secretEnv?.length ?? 0) > 0) this.#calls.require("gateway.exec.secretenv");
    return await this.#exec.start(
      {
        ContainerID: this.#id,
        Meta: {
          args: [...options.args],
          env: [...(options.env ?? [])],
          cwd: options.cwd ?? "/",
          user: options.user ?? "",
          removeMountStubsRecursive: true,
        },
        Fds: [...(options.stdin === undefined ? [] : [0]), 1, 2],
        Tty: options.tty ?? false,
        Security: options.insecure ? SecurityMode.INSECURE : SecurityMode.SANDBOX,
        secretenv: (options.secretEnv ?? []).map(({ id, name, optional }) => ({
          ID: id,
          name,
          optional: optional ?? false,
        })),
      },
      options,
    );
  }

  /**
   * Runs a process to its end.
   *
   * @throws BuildError when it can't be started, when its end isn't known, and for output over 16 MiB. An exit code that
   *   isn't 0 is no error.
   */
  async run(options: Omit<ProcessOptions, "onStdout" | "onStderr">): Promise<ProcessResult> {
    const stdout = new OutputBuffer(MAX_OUTPUT_BYTES);
    const stderr = new OutputBuffer(MAX_OUTPUT_BYTES);
    const process = await this.start({
      ...options,
      onStdout: (chunk) => stdout.add(chunk),
      onStderr: (chunk) => stderr.add(chunk),
    });
    const exitCode = await process.wait();
    return { exitCode, stdout: stdout.bytes(), stderr: stderr.bytes() };
  }

  /** A file as the container sees it, in the mount with this index. */
  async readFile(path: string, opts: { mountIndex?: number; range?: ByteRange } = {}): Promise<Uint8Array> {
    this.#calls.require("gateway.exec.filesystem");
    const response = await this.#calls.unary(LLBBridge.method.readFileContainer, {
      Ref: this.#id,
      FilePath: path,
      MountIndex: opts.mountIndex ?? 0,
      ...rangeMessage(opts.range),
    });
    return response.Data;
  }

  /** Entries of a directory of a mount. */
  async readDir(path: string, opts: { mountIndex?: number; pattern?: string } = {}): Promise<FileInfo[]> {
    this.#calls.require("gateway.exec.filesystem");
    const response = await this.#calls.unary(LLBBridge.method.readDirContainer, {
      Ref: this.#id,
      DirPath: path,
      IncludePattern: opts.pattern ?? "",
      MountIndex: opts.mountIndex ?? 0,
    });
    return response.entries.map(fileInfo);
  }

  /** What is at a path of a mount. */
  async statFile(path: string, opts: { mountIndex?: number } = {}): Promise<FileInfo> {
    this.#calls.require("gateway.exec.filesystem");
    const { stat } = await this.#calls.unary(LLBBridge.method.statFileContainer, {
      Ref: this.#id,
      Path: path,
      MountIndex: opts.mountIndex ?? 0,
    });
    if (stat === undefined) throw new BuildError("internal", `the daemon says nothing about ${path}`);
    return fileInfo(stat);
  }

  /** Ends what runs in it and gives it back. @throws BuildError when a process had to be killed. */
  async release(): Promise<void> {
    if (this.#isReleased) return;
    this.#isReleased = true;
    await this.#calls.unary(LLBBridge.method.releaseContainer, { ContainerID: this.#id });
  }

  /** {@link release}; what went wrong with its processes has been told by them. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.release().catch(() => undefined);
  }
}

function mountMessage(mount: ContainerMount) {
  const { ref, tmpfs, cache, secret, ssh } = mount;
  const kinds = [ref, tmpfs, cache && !ref ? cache : undefined, secret, ssh];
  if (kinds.filter((kind) => kind !== undefined).length > 1) {
    throw new BuildError("invalid_argument", `the mount at ${mount.dest} is of several kinds`);
  }
  return create(MountSchema, {
    dest: mount.dest,
    selector: mount.selector ?? "",
    readonly: mount.readonly ?? false,
    resultID: ref?.id ?? "",
    mountType: mountType(mount),
    ...(tmpfs === undefined ? {} : { TmpfsOpt: { size: BigInt(tmpfs.sizeBytes ?? 0) } }),
    ...(cache === undefined
      ? {}
      : { cacheOpt: { ID: cache.id, sharing: SHARINGS[cache.sharing ?? "shared"] } }),
    ...(secret === undefined
      ? {}
      : { secretOpt: { ID: secret.id, optional: secret.optional ?? false, mode: secret.mode ?? 0o400 } }),
    ...(ssh === undefined
      ? {}
      : { SSHOpt: { ID: ssh.id ?? "default", optional: ssh.optional ?? false, mode: ssh.mode ?? 0o600 } }),
  });
}

function mountType({ tmpfs, cache, secret, ssh }: ContainerMount): MountType {
  if (tmpfs !== undefined) return MountType.TMPFS;
  if (cache !== undefined) return MountType.CACHE;
  if (secret !== undefined) return MountType.SECRET;
  return ssh === undefined ? MountType.BIND : MountType.SSH;
}

/** A platform in the words of the wire. */
export function platformMessage(platform: Platform) {
  return {
    OS: platform.os,
    Architecture: platform.architecture,
    Variant: platform.variant ?? "",
    OSVersion: platform["os.version"] ?? "",
    OSFeatures: [...(platform["os.features"] ?? [])],
  };
}
