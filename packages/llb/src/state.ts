import { BuildError } from "@kiln/base";
import type { Platform } from "@kiln/oci";
import { type Definition, marshalOutput } from "./definition.ts";
import { EnvList } from "./env-list.ts";
import { ExecVertex, type RunOptions } from "./exec.ts";
import { type FileAction, FileVertex } from "./file.ts";
import { isAbsolute, joinPath } from "./go-path.ts";
import type { OpOptions } from "./metadata.ts";
import type { HostIp, NetworkMode, SecurityMode } from "./op.ts";
import { fixedOutput, type MarshalOptions, type Output, statePlatform } from "./vertex.ts";

interface StateFields {
  readonly output: Output | undefined;
  readonly env: EnvList;
  readonly dir: string;
  readonly userName: string;
  readonly hostName: string;
  readonly platform: Platform | undefined;
  readonly networkMode: NetworkMode;
  readonly securityMode: SecurityMode;
  readonly extraHostList: readonly HostIp[];
}

/**
 * A file system in the making together with the settings of the processes that run in it. Immutable: every
 * method gives a new state. Nothing is checked or encoded before {@link State.marshal}.
 */
export class State implements StateFields {
  /** Undefined for an empty file system. */
  readonly output: Output | undefined;
  readonly env: EnvList;
  readonly dir: string;
  readonly userName: string;
  readonly hostName: string;
  readonly platform: Platform | undefined;
  readonly networkMode: NetworkMode;
  readonly securityMode: SecurityMode;
  readonly extraHostList: readonly HostIp[];

  private constructor(fields: StateFields) {
    this.output = fields.output;
    this.env = fields.env;
    this.dir = fields.dir;
    this.userName = fields.userName;
    this.hostName = fields.hostName;
    this.platform = fields.platform;
    this.networkMode = fields.networkMode;
    this.securityMode = fields.securityMode;
    this.extraHostList = fields.extraHostList;
  }

  /** A state with an output and nothing set; without output it is the empty file system. */
  static of(output?: Output): State {
    const settings: StateFields = {
      output: undefined,
      env: EnvList.of(),
      dir: "/",
      userName: "",
      hostName: "",
      platform: undefined,
      networkMode: "sandbox",
      securityMode: "sandbox",
      extraHostList: [],
    };
    return new State(settings).withOutput(output);
  }

  /** The same settings over another file system. */
  withOutput(output: Output | undefined): State {
    if (output?.platform === undefined) return this.#with({ output });
    return this.#with({ output, platform: statePlatform(output.platform) });
  }

  /** Sets an environment variable. */
  setEnv(key: string, value: string): State {
    return this.#with({ env: this.env.set(key, value) });
  }

  /** Sets the working directory; a relative one starts at the present one. */
  setDir(dir: string): State {
    return this.#with({ dir: isAbsolute(dir) ? dir : joinPath(this.dir || "/", dir) });
  }

  setUser(userName: string): State {
    return this.#with({ userName });
  }

  setHostname(hostName: string): State {
    return this.#with({ hostName });
  }

  setPlatform(platform: Platform): State {
    return this.#with({ platform: statePlatform(platform) });
  }

  setNetwork(networkMode: NetworkMode): State {
    return this.#with({ networkMode });
  }

  setSecurity(securityMode: SecurityMode): State {
    return this.#with({ securityMode });
  }

  addHost(host: string, ip: string): State {
    return this.#with({ extraHostList: [...this.extraHostList, { host, ip }] });
  }

  /** Takes environment, directory and platform from an image's config, as parsed from its JSON. */
  withImageConfig(config: ImageSettings): State {
    let state: State = this;
    for (const entry of config.config?.Env ?? []) {
      const at = entry.indexOf("=");
      const key = at < 0 ? entry : entry.slice(0, at);
      if (key !== "") state = state.setEnv(key, at < 0 ? "" : entry.slice(at + 1));
    }
    state = state.setDir(config.config?.WorkingDir ?? "");
    if (!config.architecture || !config.os) return state;
    return state.setPlatform({
      architecture: config.architecture,
      os: config.os,
      variant: config.variant || undefined,
      "os.version": config["os.version"] || undefined,
      "os.features": config["os.features"] ?? undefined,
    });
  }

  /** Runs a process on this file system. */
  run(options: RunOptions): ExecState {
    const vertex = new ExecVertex(this, options);
    const root = options.readonlyRoot
      ? this
      : this.withOutput(fixedOutput(vertex, () => vertex.outputIndex("/") ?? 0, options.platform));
    return new ExecState(root, vertex, options);
  }

  /** Applies file actions, each on the result of the one before. */
  file(actions: FileAction | readonly FileAction[], options: OpOptions = {}): State {
    const list = "kind" in actions ? [actions] : actions;
    return this.withOutput(fixedOutput(new FileVertex(this, list, options), () => 0));
  }

  /** The definition whose result is this state; empty for the empty file system. Throws `invalid_argument`. */
  marshal(options: MarshalOptions = {}): Definition {
    return marshalOutput(this.output, options);
  }

  #with(change: Partial<StateFields>): State {
    return new State({
      output: this.output,
      env: this.env,
      dir: this.dir,
      userName: this.userName,
      hostName: this.hostName,
      platform: this.platform,
      networkMode: this.networkMode,
      securityMode: this.securityMode,
      extraHostList: this.extraHostList,
      ...change,
    });
  }
}

/** A state after {@link State.run}, with the file systems that were mounted. */
export class ExecState {
  /** The root file system after the process. */
  readonly root: State;
  readonly #vertex: ExecVertex;
  readonly #run: RunOptions;

  constructor(root: State, vertex: ExecVertex, run: RunOptions) {
    this.root = root;
    this.#vertex = vertex;
    this.#run = run;
  }

  /** A mount's file system after the process. Throws `invalid_argument` for mounts that keep nothing. */
  mount(target: string): State {
    const mount = this.#run.mounts?.find((candidate) => candidate.target === target);
    if (mount === undefined) throw new BuildError("invalid_argument", `no mount at ${target}`);
    const source = mount.source ?? State.of();
    if (mount.readonly) return source;
    const index = this.#vertex.outputIndex(target);
    if (index === undefined) {
      throw new BuildError("invalid_argument", `mount at ${target} can't be used as a parent`);
    }
    return source.withOutput(fixedOutput(this.#vertex, () => index, this.#run.platform));
  }
}

/** What {@link State.withImageConfig} reads of an image's config. */
export interface ImageSettings {
  readonly architecture?: string | undefined;
  readonly os?: string | undefined;
  readonly variant?: string | undefined;
  readonly "os.version"?: string | undefined;
  readonly "os.features"?: readonly string[] | null | undefined;
  readonly config?:
    | {
        readonly Env?: readonly string[] | null | undefined;
        readonly WorkingDir?: string | undefined;
      }
    | undefined;
}
