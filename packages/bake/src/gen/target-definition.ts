// Written by packages/bake from its attribute records. Change those, then run its tests with KILN_UPDATE_DOCS=1.

/** One target. Names are those of HCL, in camel case. */
export interface TargetDefinition {
  /**
   * What the target is for; shown by `--list targets`.
   *
   * In HCL: `description = "The web application"`
   */
  readonly description?: string | undefined;
  /**
   * Targets whose attributes this one starts from, the later ones over the earlier.
   *
   * In HCL: `inherits = ["_common"]`
   */
  readonly inherits?: readonly string[] | undefined;
  /**
   * OCI annotations of the result, `[type[platform]:]key=value`.
   *
   * In HCL: `annotations = ["index,manifest:org.opencontainers.image.authors=me"]`
   */
  readonly annotations?: readonly string[] | undefined;
  /**
   * Attestations: provenance and software bills of materials.
   *
   * In HCL: `attest = [{ type = "provenance", mode = "max" }, { type = "sbom" }]`
   */
  readonly attest?: readonly (string | ({ readonly type: "provenance" | "sbom" | (string & {}) } & Readonly<Record<string, string | number | boolean>>))[] | undefined;
  /**
   * The build context: a directory, a URL, or `target.NAME.context`.
   *
   * In HCL: `context = "./app"`
   */
  readonly context?: string | undefined;
  /**
   * Named contexts: a directory, URL, `docker-image://`, `oci-layout://` or `target:NAME`.
   *
   * In HCL: `contexts = { base = "target:base" }`
   */
  readonly contexts?: Readonly<Record<string, string>> | undefined;
  /**
   * The Dockerfile, relative to the context.
   *
   * In HCL: `dockerfile = "app.Dockerfile"`
   */
  readonly dockerfile?: string | undefined;
  /**
   * The Dockerfile's text itself.
   *
   * In HCL: `dockerfile-inline = "FROM alpine"`
   */
  readonly dockerfileInline?: string | undefined;
  /**
   * Build arguments. Null leaves an inherited value alone.
   *
   * In HCL: `args = { GO_VERSION = "1.26" }`
   */
  readonly args?: Readonly<Record<string, string | number | boolean | null>> | undefined;
  /**
   * Labels of the image. Null leaves an inherited value alone.
   *
   * In HCL: `labels = { "org.opencontainers.image.source" = "https://example.com" }`
   */
  readonly labels?: Readonly<Record<string, string | number | boolean | null>> | undefined;
  /**
   * Names of the image.
   *
   * In HCL: `tags = ["example.com/app:1.0", "example.com/app:latest"]`
   */
  readonly tags?: readonly string[] | undefined;
  /**
   * Where cached results may come from.
   *
   * In HCL: `cache-from = [{ type = "registry", ref = "example.com/cache" }]`
   */
  readonly cacheFrom?: readonly (string | ({ readonly type: "registry" | "local" | "inline" | "gha" | "s3" | "azblob" | (string & {}) } & Readonly<Record<string, string | number | boolean>>))[] | undefined;
  /**
   * Where to store cached results.
   *
   * In HCL: `cache-to = [{ type = "registry", ref = "example.com/cache", mode = "max" }]`
   */
  readonly cacheTo?: readonly (string | ({ readonly type: "registry" | "local" | "inline" | "gha" | "s3" | "azblob" | (string & {}) } & Readonly<Record<string, string | number | boolean>>))[] | undefined;
  /**
   * The stage of the Dockerfile to build.
   *
   * In HCL: `target = "release"`
   */
  readonly target?: string | undefined;
  /**
   * Secrets that build steps may mount; from a file (`src`) or an environment variable (`env`).
   *
   * In HCL: `secret = [{ id = "npm", src = ".npmrc" }, { id = "TOKEN", env = "CI_TOKEN" }]`
   */
  readonly secret?: readonly (string | { readonly id: string; readonly src?: string; readonly env?: string; })[] | undefined;
  /**
   * SSH agents or keys that build steps may use.
   *
   * In HCL: `ssh = [{ id = "default" }]`
   */
  readonly ssh?: readonly (string | { readonly id: string; readonly paths?: readonly string[]; })[] | undefined;
  /**
   * Platforms to build for.
   *
   * In HCL: `platforms = ["linux/amd64", "linux/arm64"]`
   */
  readonly platforms?: readonly ("local" | "linux/amd64" | "linux/arm64" | "linux/arm/v7" | "linux/riscv64" | "linux/s390x" | (string & {}))[] | undefined;
  /**
   * What to do with the result.
   *
   * In HCL: `output = [{ type = "image", push = "true" }]`
   */
  readonly output?: readonly (string | ({ readonly type: "image" | "registry" | "docker" | "oci" | "local" | "tar" | "cacheonly" | (string & {}) } & Readonly<Record<string, string | number | boolean>>))[] | undefined;
  /**
   * Always ask registries whether base images have changed.
   *
   * In HCL: `pull = true`
   */
  readonly pull?: boolean | undefined;
  /**
   * Run every step, whatever is cached.
   *
   * In HCL: `no-cache = true`
   */
  readonly noCache?: boolean | undefined;
  /**
   * Network of RUN steps: `default`, `none` or `host`.
   *
   * In HCL: `network = "none"`
   */
  readonly network?: "default" | "none" | "host" | (string & {}) | undefined;
  /**
   * Stages whose steps run, whatever is cached.
   *
   * In HCL: `no-cache-filter = ["fetch"]`
   */
  readonly noCacheFilter?: readonly string[] | undefined;
  /**
   * Size of /dev/shm in RUN steps.
   *
   * In HCL: `shm-size = "128m"`
   */
  readonly shmSize?: string | undefined;
  /**
   * Resource limits of RUN steps, `name=soft[:hard]`.
   *
   * In HCL: `ulimits = ["nofile=1024:2048"]`
   */
  readonly ulimits?: readonly string[] | undefined;
  /**
   * Limits on memory and processors of RUN steps.
   *
   * In HCL: `resources = { memory = "2g", cpu-shares = 512 }`
   */
  readonly resources?: { readonly memory?: string; readonly memorySwap?: string; readonly cpuShares?: number; readonly cpuPeriod?: number; readonly cpuQuota?: number; readonly cpusetCpus?: string; readonly cpusetMems?: string; } | undefined;
  /**
   * Ask the frontend something instead of building: `check`, `outline` or `targets`.
   *
   * In HCL: `call = "check"`
   */
  readonly call?: "build" | "check" | "outline" | "targets" | (string & {}) | undefined;
  /**
   * Permissions that the build needs: `network.host`, `security.insecure`, `device=…`.
   *
   * In HCL: `entitlements = ["network.host"]`
   */
  readonly entitlements?: readonly ("network.host" | "security.insecure" | (string & {}))[] | undefined;
  /**
   * Lines of /etc/hosts in RUN steps: addresses by host name.
   *
   * In HCL: `extra-hosts = { "db.local" = "10.0.0.5" }`
   */
  readonly extraHosts?: Readonly<Record<string, string | number | boolean | null>> | undefined;
  /**
   * Policies that sources must meet.
   *
   * In HCL: `policy = [{ filename = "policy.rego", strict = true }]`
   */
  readonly policy?: readonly (string | Readonly<Record<string, string | number | boolean>>)[] | undefined;
}

/** A named list of targets and other groups. */
export interface GroupDefinition {
  /** Shown by `--list targets`. */
  readonly description?: string | undefined;
  readonly targets: readonly string[];
}

/** A definition. */
export interface BakeConfig {
  readonly groups?: Readonly<Record<string, readonly string[] | GroupDefinition>> | undefined;
  readonly targets: Readonly<Record<string, TargetDefinition>>;
}

/** What a definition that is a function gets. */
export interface BakeInput {
  /** This machine's platform, such as `linux/amd64`. */
  readonly localPlatform: string;
  /** A variable from `--var`, else from the environment. */
  variable(name: string): string | undefined;
  /** The same with a default, whose type says how the text is read. */
  variable(name: string, fallback: string, description?: string): string;
  variable(name: string, fallback: number, description?: string): number;
  variable(name: string, fallback: boolean, description?: string): boolean;
}

/** A definition that depends on variables. */
export type BakeFunction = (bake: BakeInput) => BakeConfig | Promise<BakeConfig>;
