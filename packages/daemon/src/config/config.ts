import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { BuildError, errorMessage } from "@kiln/base";
import { parseDurationMs } from "@kiln/formats";
import type { RegistryHostConfig } from "@kiln/registry";
import type { PruneOptions } from "@kiln/store";
import { parse } from "smol-toml";
import { gcPolicy } from "./gc-policy.ts";
import { eachOption, OPTIONS, type OptionName, type OptionValue, type OptionValues } from "./options.ts";
import { durationOf, lookUp, optionsOfToml, parseFlags } from "./parse-options.ts";
import { registryConfig } from "./registry-config.ts";

/** Settings of the daemon, complete. */
export interface DaemonConfig {
  readonly root: string;
  readonly addresses: readonly string[];
  readonly tls: { readonly cert: string; readonly key: string; readonly ca: string };
  readonly socketOwner: { readonly uid: number | undefined; readonly group: string | undefined };
  readonly log: { readonly format: "text" | "json"; readonly level: string };
  readonly entitlements: readonly string[];
  readonly proxyNetwork: boolean;
  readonly cdi: {
    readonly disabled: boolean;
    readonly specDirs: readonly string[];
    readonly autoAllowed: readonly string[];
  };
  readonly provenanceEnvDir: string;
  readonly dns: {
    readonly nameservers: readonly string[];
    readonly options: readonly string[];
    readonly search: readonly string[];
  };
  readonly history: { readonly maxAgeMs: number; readonly maxEntries: number };
  readonly frontends: {
    readonly dockerfile: boolean;
    readonly gateway: boolean;
    readonly gatewayRepositories: readonly string[];
  };
  readonly registries: ReadonlyMap<string, RegistryHostConfig>;
  readonly maxRegistryConcurrency: number;
  readonly platformsCacheMaxAgeMs: number;
  readonly worker: WorkerConfig;
  /** Socket on which steps may send traces; its own folder's when no path is given. */
  readonly traceSocket: { readonly path: string; readonly isGiven: boolean };
  /** `""` for none. */
  readonly debugAddress: string;
  readonly idleTimeoutMs: number;
  readonly warnings: readonly string[];
}

/** Settings of the OCI worker. */
export interface WorkerConfig {
  readonly labels: ReadonlyMap<string, string>;
  readonly snapshotter: string;
  readonly platforms: readonly string[];
  readonly networkMode: string;
  readonly cniConfigPath: string;
  readonly cniBinaryDir: string;
  readonly cniPoolSize: number;
  readonly bridgeName: string;
  readonly bridgeSubnet: string;
  readonly binary: string;
  readonly apparmorProfile: string;
  readonly maxParallelism: number;
  readonly rootless: boolean;
  readonly defaultCgroupParent: string;
  readonly gcPolicy: readonly PruneOptions[];
}

/** What a command line asks for instead of a running daemon. */
export type CommandLine =
  | { readonly kind: "run"; readonly config: DaemonConfig }
  | { readonly kind: "version" }
  | { readonly kind: "help" };

type Env = Readonly<Record<string, string | undefined>>;

const DEFAULT_HISTORY_AGE_MS = 48 * 3600 * 1000;
const DEFAULT_HISTORY_ENTRIES = 50;
const DEFAULT_CONFIG = "/etc/buildkit/buildkitd.toml";

/**
 * The daemon's settings: built-in defaults, then the file, then flags (buildkit.md §1.1).
 *
 * @throws BuildError `invalid_argument` for a bad value, `unimplemented` by name for what isn't supported.
 */
export function loadConfig(args: readonly string[], env: Env): CommandLine {
  const flags = parseFlags(args, env);
  if (flags.get("version") === true) return { kind: "version" };
  if (flags.get("help") === true) return { kind: "help" };
  const file = readConfigFile(flags.get("config") as string | undefined, env);
  const values: OptionValues = new Map([...optionsOfToml(file), ...flags]);
  refuseUnsupported(values, file);
  return { kind: "run", config: configOf(values, file, env) };
}

function readConfigFile(given: string | undefined, env: Env): Record<string, unknown> {
  const path = given ?? defaultConfigPath(env);
  if (!existsSync(path)) return {};
  try {
    return parse(readFileSync(path, "utf8"));
  } catch (error) {
    throw new BuildError("invalid_argument", `failed to parse config ${path}: ${errorMessage(error)}`, {
      cause: error,
    });
  }
}

function defaultConfigPath(env: Env): string {
  if (!isRootless(env)) return DEFAULT_CONFIG;
  const home = env["XDG_CONFIG_HOME"]?.split(":")[0] ?? join(env["HOME"] ?? "/", ".config");
  return join(home, "buildkit/buildkitd.toml");
}

/** In a user namespace, started by somebody else than root. */
function isRootless(env: Env): boolean {
  const user = env["USER"] ?? "";
  if (user === "" || user === "root") return false;
  try {
    return !/^\s*0\s+0\s+4294967295\s*$/.test(readFileSync("/proc/self/uid_map", "utf8"));
  } catch {
    return false;
  }
}

function refuseUnsupported(values: OptionValues, file: Record<string, unknown>): void {
  for (const [name, option] of eachOption()) {
    const value = values.get(name);
    if (option.refused === undefined || value === undefined || isEmpty(value)) continue;
    const where = option.flag === undefined ? option.toml : `--${option.flag}`;
    throw new BuildError("unimplemented", `${where}: ${option.refused}`);
  }
  if (values.get("ociWorker") === "false") {
    throw new BuildError("invalid_argument", "no worker found, rebuild the buildkit daemon?");
  }
  if (values.get("containerdWorker") === "true") {
    throw new BuildError("unimplemented", "--containerd-worker: the containerd worker is not supported");
  }
  if (lookUp(file, ["cache", "gha"]) !== undefined) {
    throw new BuildError("unimplemented", "[cache.gha]: signing of caches is not supported");
  }
}

function isEmpty(value: OptionValue): boolean {
  if (Array.isArray(value)) return value.length === 0;
  if (value instanceof Map) return value.size === 0;
  return value === "" || value === false || value === 0;
}

class Values {
  readonly #values: OptionValues;

  constructor(values: OptionValues) {
    this.#values = values;
  }

  text(name: OptionName, fallback: string): string {
    const value = this.#values.get(name);
    return typeof value === "string" && value !== "" ? value : fallback;
  }

  flag(name: OptionName, fallback: boolean): boolean {
    const value = this.#values.get(name);
    return typeof value === "boolean" ? value : fallback;
  }

  number(name: OptionName, fallback: number): number {
    const value = this.#values.get(name);
    return typeof value === "number" ? value : fallback;
  }

  list(name: OptionName): readonly string[] {
    const value = this.#values.get(name);
    return Array.isArray(value) ? (value as readonly string[]) : [];
  }

  pairs(name: OptionName): ReadonlyMap<string, string> {
    const value = this.#values.get(name);
    return value instanceof Map ? value : new Map();
  }
}

function configOf(raw: OptionValues, file: Record<string, unknown>, env: Env): DaemonConfig {
  const values = new Values(raw);
  const rootless = values.flag("rootless", isRootless(env));
  const paths = defaultPaths(rootless, env);
  const warnings: string[] = [];
  if (raw.has("trace")) warnings.push("--trace is deprecated, use --log-level=trace");
  const debug = values.flag("debug", false);
  const level = values.flag("trace", false) ? "trace" : debug ? "debug" : values.text("logLevel", "info");
  const format = values.text("logFormat", "text");
  if (format !== "text" && format !== "json") {
    throw new BuildError("invalid_argument", `unsupported log type ${JSON.stringify(format)}`);
  }
  const root = values.text("root", paths.root);
  const addresses = values.list("addr");
  return {
    root,
    addresses: addresses.length === 0 ? [paths.address] : addresses,
    tls: {
      cert: values.text("tlsCert", ""),
      key: values.text("tlsKey", ""),
      ca: values.text("tlsCaCert", ""),
    },
    socketOwner: {
      uid: raw.has("uid") ? values.number("uid", 0) : undefined,
      group: raw.has("group")
        ? values.text("group", "")
        : raw.has("gid")
          ? String(values.number("gid", 0))
          : undefined,
    },
    log: { format, level },
    entitlements: checkedEntitlements(values.list("entitlements")),
    proxyNetwork: values.flag("proxyNetwork", false),
    cdi: cdiOf(values, file),
    provenanceEnvDir: values.text("provenanceEnvDir", "/etc/buildkit/provenance.d"),
    dns: {
      nameservers: values.list("dnsNameservers"),
      options: values.list("dnsOptions"),
      search: values.list("dnsSearch"),
    },
    history: {
      maxAgeMs: durationOf(lookUp(file, ["history", "maxAge"]), DEFAULT_HISTORY_AGE_MS),
      maxEntries: values.number("historyMaxEntries", DEFAULT_HISTORY_ENTRIES),
    },
    frontends: frontendsOf(file),
    registries: registryConfig(file),
    maxRegistryConcurrency: positive("maxRegistryConcurrency", values.number("maxRegistryConcurrency", 4)),
    platformsCacheMaxAgeMs: durationOf(lookUp(file, ["system", "platformsCacheMaxAge"]), 20_000),
    worker: workerOf(values, file, { root, paths, rootless }),
    traceSocket: {
      path: values.text(
        "otelSocketPath",
        // beside the daemon's own socket where BuildKit has it; other daemons have one of their own
        addresses.length === 0 ? paths.traceSocket : join(root, "otel-grpc.sock"),
      ),
      isGiven: raw.has("otelSocketPath"),
    },
    debugAddress: values.text("debugAddr", ""),
    idleTimeoutMs: parseDurationMs(values.text("idleTimeout", "0s")),
    warnings,
  };
}

interface DefaultPaths {
  readonly root: string;
  readonly address: string;
  readonly cniConfig: string;
  readonly traceSocket: string;
}

function defaultPaths(rootless: boolean, env: Env): DefaultPaths {
  if (!rootless) {
    return {
      root: "/var/lib/buildkit",
      address: "unix:///run/buildkit/buildkitd.sock",
      cniConfig: "/etc/buildkit/cni.json",
      traceSocket: "/run/buildkit/otel-grpc.sock",
    };
  }
  const home = env["HOME"] ?? "/";
  const first = (value: string | undefined): string | undefined => value?.split(":")[0];
  const runtime = first(env["XDG_RUNTIME_DIR"]) ?? "/run";
  const data = first(env["XDG_DATA_HOME"]) ?? join(home, ".local/share");
  const config = first(env["XDG_CONFIG_HOME"]) ?? join(home, ".config");
  return {
    root: join(data, "buildkit"),
    address: `unix://${join(runtime, "buildkit/buildkitd.sock")}`,
    cniConfig: join(config, "buildkit/cni.json"),
    traceSocket: join(runtime, "buildkit/otel-grpc.sock"),
  };
}

function cdiOf(values: Values, file: Record<string, unknown>): DaemonConfig["cdi"] {
  const dirs = values.list("cdiSpecDirs");
  const given = dirs.length > 0 || lookUp(file, ["cdi", "specDirs"]) !== undefined;
  return {
    disabled: values.flag("cdiDisabled", false),
    specDirs: given ? dirs : ["/etc/cdi", "/var/run/cdi", "/etc/buildkit/cdi"],
    autoAllowed: values.list("cdiAutoAllowed"),
  };
}

function frontendsOf(file: Record<string, unknown>): DaemonConfig["frontends"] {
  const repositories = lookUp(file, ["frontend", "gateway.v0", "allowedRepositories"]);
  return {
    dockerfile: lookUp(file, ["frontend", "dockerfile.v0", "enabled"]) !== false,
    gateway: lookUp(file, ["frontend", "gateway.v0", "enabled"]) !== false,
    gatewayRepositories: Array.isArray(repositories) ? repositories.map(String) : [],
  };
}

function workerOf(
  values: Values,
  file: Record<string, unknown>,
  at: { readonly root: string; readonly paths: DefaultPaths; readonly rootless: boolean },
): WorkerConfig {
  const parallel = values.text("ociMaxParallelism", "0");
  if (!/^(?:\d{1,6}|num-cpu)$/.test(parallel)) {
    throw new BuildError("invalid_argument", `invalid value ${JSON.stringify(parallel)} for max-parallelism`);
  }
  const snapshotter = values.text("ociSnapshotter", "auto");
  if (!["auto", "overlayfs", "native"].includes(snapshotter)) {
    throw new BuildError(
      "unimplemented",
      `--oci-worker-snapshotter: ${snapshotter} is not supported (auto, overlayfs or native)`,
    );
  }
  return {
    labels: values.pairs("ociLabels"),
    snapshotter,
    platforms: values.list("ociPlatforms"),
    networkMode: values.text("ociNet", "auto"),
    cniConfigPath: values.text("ociCniConfig", at.paths.cniConfig),
    cniBinaryDir: values.text("ociCniBinaries", "/opt/cni/bin"),
    cniPoolSize: values.number("ociCniPoolSize", 0),
    bridgeName: values.text("ociBridgeName", "buildkit0"),
    bridgeSubnet: values.text("ociBridgeSubnet", "10.10.0.0/16"),
    binary: values.text("ociBinary", ""),
    apparmorProfile: values.text("ociApparmor", ""),
    maxParallelism: parallel === "num-cpu" ? navigator.hardwareConcurrency : Number(parallel),
    rootless: values.flag("ociRootless", at.rootless),
    defaultCgroupParent: values.text("ociCgroupParent", ""),
    gcPolicy: values.flag("ociGc", true) ? gcPolicy(file, values.text("ociGcKeep", ""), at.root) : [],
  };
}

function checkedEntitlements(list: readonly string[]): readonly string[] {
  for (const name of list) {
    if (!["security.insecure", "network.host", "device"].includes(name)) {
      throw new BuildError("invalid_argument", `invalid entitlement : ${name}`);
    }
  }
  return list;
}

function positive(name: OptionName, value: number): number {
  if (value > 0) return value;
  throw new BuildError("invalid_argument", `${OPTIONS[name].doc}: must be greater than 0`);
}
