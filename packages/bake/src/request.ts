/** One cache source or destination: `--cache-from`, `--cache-to`. */
export interface CacheOption {
  readonly type: string;
  readonly attrs: ReadonlyMap<string, string>;
}

/** One output: `--output`. `dest` is a path, or `-` for standard output. */
export interface OutputOption {
  readonly type: string;
  readonly dest?: string;
  readonly attrs: ReadonlyMap<string, string>;
}

/** One secret: its value is in the file `src` or the environment variable `env`; with neither, see `--secret id=`. */
export interface SecretOption {
  readonly id: string;
  readonly src?: string;
  readonly env?: string;
}

/** One ssh agent: without paths the default agent's socket. */
export interface SshOption {
  readonly id: string;
  readonly paths: readonly string[];
}

/** One attestation; `disabled` ones are recorded so that the default isn't added. */
export interface AttestOption {
  readonly type: string;
  readonly disabled: boolean;
  readonly attrs: ReadonlyMap<string, string>;
}

/** One policy entry. */
export interface PolicyOption {
  readonly files: readonly string[];
  readonly reset: boolean;
  readonly disabled: boolean;
  readonly strict?: boolean;
  readonly logLevel?: string;
}

/** One ulimit; -1 is unlimited. */
export interface UlimitOption {
  readonly name: string;
  readonly soft: number;
  readonly hard: number;
}

/** Limits for RUN steps. Sizes in bytes; `memorySwapBytes` -1 is unlimited. */
export interface ResourceOption {
  readonly memoryBytes?: number;
  readonly memorySwapBytes?: number;
  readonly cpuShares?: number;
  readonly cpuPeriod?: number;
  readonly cpuQuota?: number;
  readonly cpusetCpus?: string;
  readonly cpusetMems?: string;
}

/** One annotation, as exporters take it: `annotation[-type][platform].key`. */
export interface AnnotationOption {
  readonly type: "" | "index" | "index-descriptor" | "manifest" | "manifest-descriptor";
  readonly platform?: string;
  readonly key: string;
  readonly value: string;
}

/** `--call`: `name` is a subrequest such as `lint`, `outline`, `targets`; never `build`. */
export interface CallOption {
  readonly name: string;
  readonly format?: string;
  readonly ignoreStatus: boolean;
}

/** All that one `build` is asked to do; the result of one bake target. */
export interface BuildRequest {
  /** The bake target. */
  readonly name: string;
  readonly description: string;
  /** Only there because another target's context is `target:name`: its output is `cacheonly`. */
  readonly linked: boolean;
  /** A local directory (cleaned, relative to the working directory) or a URL. */
  readonly context: string;
  /** The context is this directory of the fetched definition; `context` only says where that came from. */
  readonly remoteContext?: string;
  /** Named contexts that are directories of the fetched definition. */
  readonly remoteContexts: ReadonlyMap<string, string>;
  /** `dockerfile` is an absolute path on this machine (`cwd://…`), whatever the context is. */
  readonly localDockerfile: boolean;
  /** Path of the Dockerfile: joined with a local context, inside a remote one, or a URL. */
  readonly dockerfile: string;
  readonly dockerfileInline?: string;
  /** Named contexts: path, URL, `docker-image://`, `oci-layout://` or `target:NAME`. */
  readonly contexts: ReadonlyMap<string, string>;
  readonly args: ReadonlyMap<string, string>;
  readonly labels: ReadonlyMap<string, string>;
  readonly tags: readonly string[];
  /** Normalised `os/arch[/variant]`. */
  readonly platforms: readonly string[];
  readonly outputs: readonly OutputOption[];
  readonly cacheFrom: readonly CacheOption[];
  readonly cacheTo: readonly CacheOption[];
  readonly secrets: readonly SecretOption[];
  readonly ssh: readonly SshOption[];
  readonly attests: readonly AttestOption[];
  /** The Dockerfile stage to build. */
  readonly target: string;
  readonly pull: boolean;
  readonly noCache: boolean;
  readonly noCacheFilter: readonly string[];
  readonly network: string;
  /** 0: the daemon's default. */
  readonly shmSizeBytes: number;
  readonly ulimits: readonly UlimitOption[];
  readonly resources: ResourceOption;
  readonly call?: CallOption;
  /** `network.host`, `security.insecure`, `device…`: what the build asks of the daemon. */
  readonly entitlements: readonly string[];
  /** `host=ip`, sorted by host; the address may be a comma list. */
  readonly extraHosts: readonly string[];
  readonly annotations: readonly AnnotationOption[];
  readonly policy: readonly PolicyOption[];
}
