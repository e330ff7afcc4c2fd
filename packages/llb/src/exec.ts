import { BuildError } from "@kiln/base";
import { Cap } from "./caps.ts";
import type { OpOptions } from "./metadata.ts";
import type {
  CacheSharing,
  CdiDevice,
  ContentCache,
  ExecBody,
  FileAccess,
  HostIp,
  MountBody,
  NetworkMode,
  OpInput,
  ProxyEnv,
  SecretEnvBody,
  SecurityMode,
  Ulimit,
} from "./op.ts";
import type { State } from "./state.ts";
import { BuilderVertex, type Draft, inputOf, type MarshalOptions, type Output } from "./vertex.ts";
import { compareUtf8 } from "./wire.ts";

/** A mount of a step; `source` undefined (or the scratch state) is an empty file system. */
export interface Mount {
  readonly target: string;
  readonly source?: State | undefined;
  /** Path inside `source`. */
  readonly selector?: string | undefined;
  readonly readonly?: boolean | undefined;
  /** Writable, but what is written is thrown away. */
  readonly noOutput?: boolean | undefined;
  /** Keeps the directory for later builds, under this id. */
  readonly cache?: { readonly id: string; readonly sharing?: CacheSharing | undefined } | undefined;
  /** In memory; `size` in bytes, 0 for no limit. */
  readonly tmpfs?: { readonly size?: number | bigint | undefined } | undefined;
  readonly contentCache?: ContentCache | undefined;
}

/** A secret as a file, as an environment variable, or both. */
export interface SecretMount {
  readonly id: string;
  /** Path of the file; undefined for none. */
  readonly target?: string | undefined;
  /** Name of the environment variable. */
  readonly env?: string | undefined;
  readonly optional?: boolean | undefined;
  readonly uid?: number | undefined;
  readonly gid?: number | undefined;
  /** 0o400 by default. */
  readonly mode?: number | undefined;
}

/** A forwarded SSH agent. */
export interface SshMount {
  readonly id?: string | undefined;
  /** `/run/buildkit/ssh_agent.<n>` by default. */
  readonly target?: string | undefined;
  readonly optional?: boolean | undefined;
  readonly uid?: number | undefined;
  readonly gid?: number | undefined;
  /** 0o600 by default. */
  readonly mode?: number | undefined;
}

/** What {@link State.run} takes. Environment, directory, user and so on come from the state. */
export interface RunOptions extends OpOptions {
  readonly args: readonly string[];
  readonly mounts?: readonly Mount[] | undefined;
  readonly secrets?: readonly SecretMount[] | undefined;
  readonly ssh?: readonly SshMount[] | undefined;
  readonly readonlyRoot?: boolean | undefined;
  readonly proxyEnv?: ProxyEnv | undefined;
  readonly devices?: readonly CdiDevice[] | undefined;
  readonly network?: NetworkMode | undefined;
  readonly security?: SecurityMode | undefined;
  readonly extraHosts?: readonly HostIp[] | undefined;
  readonly ulimits?: readonly Ulimit[] | undefined;
  readonly cgroupParent?: string | undefined;
  readonly hostname?: string | undefined;
  readonly validExitCodes?: readonly number[] | undefined;
}

interface PlacedMount extends Mount {
  readonly output: Output | undefined;
}

const DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/** One process. */
export class ExecVertex extends BuilderVertex {
  readonly #base: State;
  readonly #run: RunOptions;
  /** By target; equal targets keep their order. */
  readonly #mounts: readonly PlacedMount[];

  constructor(base: State, run: RunOptions) {
    super(run);
    this.#base = base;
    this.#run = run;
    const root: Mount = { target: "/", source: base, readonly: run.readonlyRoot };
    this.#mounts = [root, ...(run.mounts ?? [])]
      .map((mount) => ({ ...mount, output: mount.source?.output }))
      .sort((a, b) => compareUtf8(a.target, b.target));
  }

  override inputs(): readonly Output[] {
    const seen = new Set<Output>();
    for (const mount of this.#mounts) if (mount.output !== undefined) seen.add(mount.output);
    return [...seen];
  }

  /** Number of the output of the mount at `target`; undefined when it has none. */
  outputIndex(target: string): number | undefined {
    let index = 0;
    for (const mount of this.#mounts) {
      if (!hasOutput(mount)) {
        if (mount.target === target) return undefined;
        continue;
      }
      if (mount.target === target) return index;
      index++;
    }
    return undefined;
  }

  protected override draft(options: MarshalOptions): Draft {
    const run = this.#run;
    if (run.args.length === 0) throw new BuildError("invalid_argument", "arguments are required");
    if (this.#base.dir === "") throw new BuildError("invalid_argument", "working directory is required");
    const caps = this.#caps(options);
    const inputs: OpInput[] = [];
    const exec: ExecBody = {
      args: run.args,
      env: this.#env(options).toArray(),
      cwd: this.#base.dir,
      user: this.#base.userName,
      proxyEnv: run.proxyEnv,
      extraHosts: [...this.#base.extraHostList, ...(run.extraHosts ?? [])],
      hostname: run.hostname ?? this.#base.hostName,
      ulimits: run.ulimits ?? [],
      cgroupParent: run.cgroupParent ?? "",
      validExitCodes: run.validExitCodes ?? [],
      mounts: [...this.#bodies(inputs, options), ...secretMounts(run), ...sshMounts(run)],
      network: run.network ?? this.#base.networkMode,
      security: run.security ?? this.#base.securityMode,
      secretEnv: secretEnv(run),
      cdiDevices: run.devices ?? [],
    };
    return { body: { kind: "exec", exec }, inputs, caps, platform: this.#base.platform };
  }

  #env(options: MarshalOptions) {
    let env = this.#base.env;
    const ssh = this.#run.ssh?.[0];
    if (ssh !== undefined) env = env.setDefault("SSH_AUTH_SOCK", sshTarget(ssh, 0));
    if (options.caps !== undefined && !options.caps.has(Cap.execMetaSetsDefaultPath)) {
      const os = (options.platform ?? this.options.platform)?.os ?? "linux";
      if (os !== "windows") env = env.setDefault("PATH", DEFAULT_PATH);
    }
    return env;
  }

  #caps(options: MarshalOptions): string[] {
    const run = this.#run;
    const caps: string[] = [Cap.execMetaBase];
    if (options.caps?.has(Cap.execMetaSetsDefaultPath)) caps.push(Cap.execMetaSetsDefaultPath);
    if (run.validExitCodes !== undefined) caps.push(Cap.execValidExitCode);
    if ((run.ulimits ?? []).length > 0) caps.push(Cap.execMetaUlimit);
    if (run.linuxResources !== undefined) caps.push(Cap.execMetaLinuxResources);
    if ((run.network ?? this.#base.networkMode) !== "sandbox") caps.push(Cap.execMetaNetwork);
    if ((run.security ?? this.#base.securityMode) === "insecure") caps.push(Cap.execMetaSecurity);
    if (run.proxyEnv !== undefined) caps.push(Cap.execMetaProxy);
    for (const mount of this.#mounts) caps.push(...mountCaps(mount));
    if ((run.secrets ?? []).length > 0) caps.push(Cap.execMountSecret);
    if (run.secrets?.some((secret) => secret.env !== undefined)) caps.push(Cap.execSecretEnv);
    if ((run.ssh ?? []).length > 0) caps.push(Cap.execMountSsh);
    if ((run.devices ?? []).length > 0) caps.push(Cap.execMetaCdi);
    return caps;
  }

  #bodies(inputs: OpInput[], options: MarshalOptions): MountBody[] {
    let outputs = 0;
    return this.#mounts.map((mount) => ({
      input: mountInput(mount, inputs, options),
      selector: mount.selector ?? "",
      dest: mount.target,
      output: hasOutput(mount) ? outputs++ : -1,
      readonly: mount.readonly ?? false,
      kind: mount.tmpfs ? "tmpfs" : mount.cache ? "cache" : "bind",
      tmpfsSize: mount.tmpfs?.size ?? 0,
      cache: mount.cache && { id: mount.cache.id, sharing: mount.cache.sharing ?? "shared" },
      contentCache: mount.contentCache ?? "default",
    }));
  }
}

function hasOutput(mount: Mount): boolean {
  return !mount.noOutput && !mount.readonly && mount.cache === undefined && mount.tmpfs === undefined;
}

function mountInput(mount: PlacedMount, inputs: OpInput[], options: MarshalOptions): number {
  if (mount.output?.vertex() === undefined) return -1;
  if (mount.tmpfs !== undefined) throw new BuildError("invalid_argument", "tmpfs mounts must use scratch");
  return addInput(inputs, inputOf(mount.output, options));
}

/** Index of `input`, which is appended unless it is there. */
export function addInput(inputs: OpInput[], input: OpInput): number {
  const at = inputs.findIndex((other) => other.digest === input.digest && other.index === input.index);
  return at >= 0 ? at : inputs.push(input) - 1;
}

function mountCaps(mount: PlacedMount): string[] {
  const caps: string[] = [];
  if (mount.selector !== undefined && mount.selector !== "") caps.push(Cap.execMountSelector);
  if (mount.cache !== undefined) caps.push(Cap.execMountCache, Cap.execMountCacheSharing);
  else if (mount.tmpfs !== undefined) {
    caps.push(Cap.execMountTmpfs);
    if (BigInt(mount.tmpfs.size ?? 0) > 0n) caps.push(Cap.execMountTmpfsSize);
  } else if (mount.output !== undefined) caps.push(Cap.execMountBind);
  if ((mount.contentCache ?? "default") !== "default") caps.push(Cap.execMountContentCache);
  return caps;
}

function access(mount: SecretMount | SshMount, mode: number): FileAccess {
  return {
    id: mount.id ?? "",
    uid: mount.uid ?? 0,
    gid: mount.gid ?? 0,
    mode: mount.mode ?? mode,
    optional: mount.optional ?? false,
  };
}

function special(kind: "secret" | "ssh", dest: string, file: FileAccess): MountBody {
  return {
    kind,
    dest,
    access: file,
    input: -1,
    selector: "",
    output: 0,
    readonly: false,
    contentCache: "default",
  };
}

function secretMounts(run: RunOptions): MountBody[] {
  return (run.secrets ?? []).flatMap((secret) =>
    secret.target === undefined ? [] : [special("secret", secret.target, access(secret, 0o400))],
  );
}

function secretEnv(run: RunOptions): SecretEnvBody[] {
  return (run.secrets ?? []).flatMap(({ id, env, optional }) =>
    env === undefined ? [] : [{ id, name: env, optional: optional ?? false }],
  );
}

function sshMounts(run: RunOptions): MountBody[] {
  return (run.ssh ?? []).map((ssh, i) => special("ssh", sshTarget(ssh, i), access(ssh, 0o600)));
}

function sshTarget(ssh: SshMount, index: number): string {
  return ssh.target === undefined || ssh.target === "" ? `/run/buildkit/ssh_agent.${index}` : ssh.target;
}
