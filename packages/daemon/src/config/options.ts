/** Kinds of value that an option takes. `auto` is true, false or "auto". */
export type OptionKind = "string" | "bool" | "auto" | "int" | "list" | "pairs";

/**
 * One option of the daemon: its flag and its place in the TOML file. The table is the only list of them;
 * parsing, precedence, `--help` and the refusals all come from it.
 */
export interface DaemonOption {
  /** Flag without dashes; undefined for one that only the file has. */
  readonly flag?: string;
  /** Dotted path in the file; undefined for one that only the command line has. */
  readonly toml?: string;
  readonly kind: OptionKind;
  readonly env?: string;
  readonly doc: string;
  readonly hidden?: boolean;
  /** Why it is refused when it is set to anything but its default. */
  readonly refused?: string;
}

const NO_CONTAINERD = "the containerd worker is not supported";
const NO_PROFILING = "Go profiles do not exist in this daemon; use --cpu-prof of Node";
const NO_STARGZ = "the stargz snapshotter is not supported";

/** Everything that `kilnd` can be told (buildkit.md §1.3, §1.4). */
export const OPTIONS = {
  config: { flag: "config", kind: "string", env: "BUILDKITD_CONFIG", doc: "path to config file" },
  rootless: {
    flag: "rootless",
    kind: "bool",
    doc: "set all the default options to be compatible with rootless containers",
  },
  debug: { flag: "debug", toml: "debug", kind: "bool", doc: "set log level to debug" },
  trace: { flag: "trace", toml: "trace", kind: "bool", doc: "set log level to trace", hidden: true },
  root: { flag: "root", toml: "root", kind: "string", doc: "path to state directory" },
  addr: { flag: "addr", toml: "grpc.address", kind: "list", doc: "listening address (socket or tcp)" },
  logFormat: { flag: "log-format", toml: "log.format", kind: "string", doc: "log formatter: json or text" },
  logLevel: {
    flag: "log-level",
    toml: "log.level",
    kind: "string",
    env: "BUILDKITD_LOG_LEVEL",
    doc: "log level",
  },
  group: {
    flag: "group",
    kind: "string",
    doc: "group (name or gid) which will own all Unix socket listening addresses",
  },
  gid: { toml: "grpc.gid", kind: "int", doc: "group id of the Unix sockets" },
  uid: { toml: "grpc.uid", kind: "int", doc: "user id of the Unix sockets" },
  debugAddr: {
    flag: "debugaddr",
    toml: "grpc.debugAddress",
    kind: "string",
    env: "BUILDKITD_DEBUGADDR",
    doc: "debugging address (eg. 0.0.0.0:6060)",
  },
  tlsCert: { flag: "tlscert", toml: "grpc.tls.cert", kind: "string", doc: "certificate file to use" },
  tlsKey: { flag: "tlskey", toml: "grpc.tls.key", kind: "string", doc: "key file to use" },
  tlsCaCert: {
    flag: "tlscacert",
    toml: "grpc.tls.ca",
    kind: "string",
    doc: "ca certificate to verify clients",
  },
  entitlements: {
    flag: "allow-insecure-entitlement",
    toml: "insecure-entitlements",
    kind: "list",
    doc: "allows insecure entitlements e.g. network.host, security.insecure, device",
  },
  proxyNetwork: {
    flag: "proxy-network",
    toml: "proxyNetwork",
    kind: "bool",
    doc: "force proxy network enforcement for all builds",
  },
  otelSocketPath: {
    flag: "otel-socket-path",
    toml: "otel.socketPath",
    kind: "string",
    doc: "OTEL collector trace socket path",
  },
  cdiDisabled: {
    flag: "cdi-disabled",
    toml: "cdi.disabled",
    kind: "bool",
    doc: "disables support of the Container Device Interface (CDI)",
  },
  cdiSpecDirs: {
    flag: "cdi-spec-dir",
    toml: "cdi.specDirs",
    kind: "list",
    doc: "list of directories to scan for CDI spec files",
  },
  cdiAutoAllowed: { toml: "cdi.autoAllowed", kind: "list", doc: "devices granted without entitlement" },
  saveCacheDebug: {
    flag: "save-cache-debug",
    kind: "bool",
    doc: "enable saving cache debug info",
    refused: "cache explanations are kept without it: see kiln explain",
  },
  provenanceEnvDir: {
    toml: "provenanceEnvDir",
    kind: "string",
    doc: "directory of JSON files merged into provenance",
  },
  dnsNameservers: { toml: "dns.nameservers", kind: "list", doc: "name servers of build containers" },
  dnsOptions: { toml: "dns.options", kind: "list", doc: "resolver options of build containers" },
  dnsSearch: { toml: "dns.searchDomains", kind: "list", doc: "search domains of build containers" },
  historyMaxEntries: { toml: "history.maxEntries", kind: "int", doc: "history records to keep" },
  maxRegistryConcurrency: {
    toml: "system.maxRegistryConcurrency",
    kind: "int",
    doc: "connections per registry",
  },
  ociWorker: {
    flag: "oci-worker",
    toml: "worker.oci.enabled",
    kind: "auto",
    doc: "enable oci workers (true/false/auto)",
  },
  ociLabels: {
    flag: "oci-worker-labels",
    toml: "worker.oci.labels",
    kind: "pairs",
    doc: "user-specific annotation labels (com.example.foo=bar)",
  },
  ociSnapshotter: {
    flag: "oci-worker-snapshotter",
    toml: "worker.oci.snapshotter",
    kind: "string",
    doc: "name of snapshotter (overlayfs or native)",
  },
  ociProxySnapshotter: {
    flag: "oci-worker-proxy-snapshotter-path",
    toml: "worker.oci.proxySnapshotterPath",
    kind: "string",
    doc: "address of proxy snapshotter socket",
    refused: "remote snapshotters are not supported",
  },
  ociPlatforms: {
    flag: "oci-worker-platform",
    toml: "worker.oci.platforms",
    kind: "list",
    doc: "override supported platforms for worker",
  },
  ociNet: {
    flag: "oci-worker-net",
    toml: "worker.oci.networkMode",
    kind: "string",
    doc: "worker network type (auto, bridge, cni or host)",
  },
  ociCniConfig: {
    flag: "oci-cni-config-path",
    toml: "worker.oci.cniConfigPath",
    kind: "string",
    doc: "path of cni config file",
  },
  ociCniBinaries: {
    flag: "oci-cni-binary-dir",
    toml: "worker.oci.cniBinaryPath",
    kind: "string",
    doc: "path of cni binary files",
  },
  ociCniPoolSize: {
    flag: "oci-cni-pool-size",
    toml: "worker.oci.cniPoolSize",
    kind: "int",
    doc: "size of cni network namespace pool",
  },
  ociBridgeName: { toml: "worker.oci.bridgeName", kind: "string", doc: "name of the bridge" },
  ociBridgeSubnet: { toml: "worker.oci.bridgeSubnet", kind: "string", doc: "subnet of the bridge" },
  ociBinary: {
    flag: "oci-worker-binary",
    toml: "worker.oci.binary",
    kind: "string",
    doc: "name of specified oci worker binary",
  },
  ociApparmor: {
    flag: "oci-worker-apparmor-profile",
    toml: "worker.oci.apparmor-profile",
    kind: "string",
    doc: "set the name of the apparmor profile applied to containers",
  },
  ociSelinux: {
    flag: "oci-worker-selinux",
    toml: "worker.oci.selinux",
    kind: "bool",
    doc: "apply SELinux labels",
    refused: "SELinux labels are not supported",
  },
  ociMaxParallelism: {
    flag: "oci-max-parallelism",
    toml: "worker.oci.max-parallelism",
    kind: "string",
    doc: "maximum number of parallel build steps that can be run at the same time",
  },
  ociRootless: {
    flag: "oci-worker-rootless",
    toml: "worker.oci.rootless",
    kind: "bool",
    doc: "enable rootless mode",
  },
  ociNoProcessSandbox: {
    flag: "oci-worker-no-process-sandbox",
    toml: "worker.oci.noProcessSandbox",
    kind: "bool",
    doc: "use the host PID namespace and procfs (WARNING: allows build containers to kill (and potentially ptrace) an arbitrary process in the host namespace)",
    refused: "running without a process sandbox is not supported",
  },
  ociUserRemap: {
    toml: "worker.oci.userRemapUnsupported",
    kind: "string",
    doc: "user remapping",
    refused: "user remapping is not supported",
  },
  ociStargz: {
    toml: "worker.oci.stargzSnapshotter",
    kind: "string",
    doc: "stargz snapshotter",
    refused: NO_STARGZ,
  },
  ociCgroupParent: {
    toml: "worker.oci.defaultCgroupParent",
    kind: "string",
    doc: "default parent of the steps' cgroups",
  },
  ociGc: {
    flag: "oci-worker-gc",
    toml: "worker.oci.gc",
    kind: "bool",
    doc: "enable automatic garbage collection on worker",
  },
  ociGcKeep: {
    flag: "oci-worker-gc-keepstorage",
    toml: "worker.oci.gckeepstorage",
    kind: "string",
    doc: 'amount of storage GC keep locally, format "Reserved[,Free[,Maximum]]" (MB)',
  },
  sessionAuthTimeout: {
    toml: "worker.oci.sessionAuthTimeout",
    kind: "string",
    doc: "bound on a credential round trip with the client",
    refused: "a bound on credential round trips is not supported",
  },
  containerdWorker: {
    flag: "containerd-worker",
    toml: "worker.containerd.enabled",
    kind: "auto",
    doc: "enable containerd workers (true/false/auto)",
  },
  containerdAddr: {
    flag: "containerd-worker-addr",
    toml: "worker.containerd.address",
    kind: "string",
    doc: "containerd socket",
    refused: NO_CONTAINERD,
  },
  containerdLabels: {
    flag: "containerd-worker-labels",
    kind: "pairs",
    doc: "user-specific annotation labels",
    refused: NO_CONTAINERD,
  },
  containerdPlatforms: {
    flag: "containerd-worker-platform",
    kind: "list",
    doc: "override supported platforms",
    refused: NO_CONTAINERD,
    hidden: true,
  },
  containerdNamespace: {
    flag: "containerd-worker-namespace",
    kind: "string",
    doc: "override containerd namespace",
    refused: NO_CONTAINERD,
    hidden: true,
  },
  containerdRuntime: {
    flag: "containerd-worker-runtime",
    kind: "string",
    doc: "override containerd runtime",
    refused: NO_CONTAINERD,
    hidden: true,
  },
  containerdNet: {
    flag: "containerd-worker-net",
    kind: "string",
    doc: "worker network type",
    refused: NO_CONTAINERD,
  },
  containerdCniConfig: {
    flag: "containerd-cni-config-path",
    kind: "string",
    doc: "path of cni config file",
    refused: NO_CONTAINERD,
  },
  containerdCniBinaries: {
    flag: "containerd-cni-binary-dir",
    kind: "string",
    doc: "path of cni binary files",
    refused: NO_CONTAINERD,
  },
  containerdCniPoolSize: {
    flag: "containerd-cni-pool-size",
    kind: "int",
    doc: "size of cni network namespace pool",
    refused: NO_CONTAINERD,
  },
  containerdSnapshotter: {
    flag: "containerd-worker-snapshotter",
    kind: "string",
    doc: "snapshotter name to use",
    refused: NO_CONTAINERD,
  },
  containerdApparmor: {
    flag: "containerd-worker-apparmor-profile",
    kind: "string",
    doc: "apparmor profile",
    refused: NO_CONTAINERD,
  },
  containerdSelinux: {
    flag: "containerd-worker-selinux",
    kind: "bool",
    doc: "apply SELinux labels",
    refused: NO_CONTAINERD,
  },
  containerdMaxParallelism: {
    flag: "containerd-max-parallelism",
    kind: "int",
    doc: "maximum number of parallel build steps",
    refused: NO_CONTAINERD,
  },
  containerdRootless: {
    flag: "containerd-worker-rootless",
    kind: "bool",
    doc: "enable rootless mode",
    refused: NO_CONTAINERD,
  },
  containerdGc: {
    flag: "containerd-worker-gc",
    kind: "bool",
    doc: "enable automatic garbage collection on worker",
    refused: NO_CONTAINERD,
  },
  containerdGcKeep: {
    flag: "containerd-worker-gc-keepstorage",
    kind: "string",
    doc: "amount of storage GC keep locally",
    refused: NO_CONTAINERD,
  },
  containerdHyperv: {
    flag: "containerd-worker-hyperv-isolation",
    kind: "bool",
    doc: "Hyper-V isolation (Windows only)",
    refused: NO_CONTAINERD,
  },
  profileCpu: {
    flag: "profile-cpu",
    kind: "string",
    doc: "write CPU profile",
    refused: NO_PROFILING,
    hidden: true,
  },
  profileMemory: {
    flag: "profile-memory",
    kind: "string",
    doc: "write memory profile",
    refused: NO_PROFILING,
    hidden: true,
  },
  profileMemoryRate: {
    flag: "profile-memoryrate",
    kind: "int",
    doc: "memory profiling rate",
    refused: NO_PROFILING,
    hidden: true,
  },
  profileBlock: {
    flag: "profile-block",
    kind: "string",
    doc: "write block profile",
    refused: NO_PROFILING,
    hidden: true,
  },
  profileMutex: {
    flag: "profile-mutex",
    kind: "string",
    doc: "write mutex profile",
    refused: NO_PROFILING,
    hidden: true,
  },
  profileTrace: {
    flag: "profile-trace",
    kind: "string",
    doc: "write execution trace",
    refused: NO_PROFILING,
    hidden: true,
  },
  idleTimeout: {
    flag: "idle-timeout",
    kind: "string",
    doc: "stop after this long without a client or a build (a Go duration; 0 never stops)",
  },
  version: { flag: "version", kind: "bool", doc: "print the version" },
  help: { flag: "help", kind: "bool", doc: "show help" },
} as const satisfies Readonly<Record<string, DaemonOption>>;

/** Name of an option in the table. */
export type OptionName = keyof typeof OPTIONS;

/** Value of an option, by its kind. */
export type OptionValue = string | boolean | number | readonly string[] | ReadonlyMap<string, string>;

/** What was given, by option. */
export type OptionValues = ReadonlyMap<OptionName, OptionValue>;

/** The table, for loops. */
export function eachOption(): readonly (readonly [OptionName, DaemonOption])[] {
  return Object.entries(OPTIONS) as [OptionName, DaemonOption][];
}
