import { applyCdiEdits, type CdiEdits, mergeEnv, mergeMounts } from "./cdi-edits.ts";
import type { LinuxResources, SecurityMode, Ulimit } from "./executor.ts";
import { cleanPath } from "./mount-stubs.ts";
import { defaultSeccomp, type OciSeccomp, SECCOMP_BPF_ANNOTATION } from "./seccomp.ts";
import type { ExecUser } from "./user.ts";

/** A mount of the runtime specification. */
export interface OciMount {
  readonly destination: string;
  readonly type: string;
  readonly source: string;
  readonly options: readonly string[];
}

/** Where the network namespace of a container comes from: the host's own, a fresh empty one, or a file. */
export type SpecNetwork =
  | { readonly kind: "host" }
  | { readonly kind: "new" }
  | { readonly kind: "path"; readonly path: string };

/** What `insecure` adds, as far as the daemon has it itself. */
export interface InsecureGrants {
  readonly capabilities: readonly string[];
  /** Number of the next free loop device; device nodes are made for seven more. Undefined inside a user namespace. */
  readonly freeLoop?: number;
}

/** What the machine and the daemon's options contribute to every specification. */
export interface SpecHost {
  /** Go's name of the machine's architecture. */
  readonly architecture: string;
  readonly kernel: readonly [number, number];
  readonly cgroupNamespaces: boolean;
  readonly seccomp: boolean;
  /** The compiled default profile in base64, for a runtime that takes it. */
  readonly seccompBpf?: string;
  readonly insecure: InsecureGrants;
  /** The group of terminals (5) exists: it may not in a user namespace. */
  readonly terminalGroup: boolean;
  /** Inside a user namespace without a cgroup of its own. */
  readonly rootless: boolean;
  /** Containers share the daemon's process ids and /proc. */
  readonly noProcessSandbox: boolean;
  readonly apparmorProfile?: string;
}

/** Everything a specification is made of, with all paths and ids resolved. */
export interface SpecInput {
  readonly host: SpecHost;
  readonly args: readonly string[];
  readonly env: readonly string[];
  readonly cwd: string;
  readonly tty: boolean;
  readonly user: ExecUser;
  readonly rootPath: string;
  readonly readonlyRoot: boolean;
  readonly hostname: string;
  readonly network: SpecNetwork;
  readonly cgroupsPath: string;
  readonly securityMode: SecurityMode;
  readonly ulimits: readonly Ulimit[];
  readonly resources: LinuxResources;
  readonly resolvConf: string;
  readonly hosts: string;
  readonly mounts: readonly OciMount[];
  readonly cdi?: CdiEdits;
}

/** A device node of the runtime specification. */
export interface OciDevice {
  readonly path: string;
  readonly type: string;
  readonly major: number;
  readonly minor: number;
  readonly fileMode?: number;
  readonly uid?: number | undefined;
  readonly gid?: number | undefined;
}

/** `process` of the runtime specification. */
export interface OciProcess {
  terminal: boolean;
  user: { uid: number; gid: number; additionalGids: number[] };
  args: readonly string[];
  env: readonly string[];
  cwd: string;
  capabilities: Record<"bounding" | "effective" | "inheritable" | "permitted" | "ambient", readonly string[]>;
  rlimits?: { type: string; hard: number; soft: number }[];
  noNewPrivileges: boolean;
  apparmorProfile?: string;
}

/** A config.json of the runtime specification, as far as it is used. */
export interface OciSpec {
  ociVersion: string;
  process: OciProcess;
  root: { path: string; readonly: boolean };
  hostname: string;
  mounts: OciMount[];
  annotations?: Record<string, string>;
  hooks?: Record<string, unknown[]>;
  linux: {
    resources?: Record<string, unknown>;
    cgroupsPath?: string;
    namespaces: { type: string; path?: string }[];
    devices?: OciDevice[];
    intelRdt?: Readonly<Record<string, unknown>>;
    seccomp?: OciSeccomp;
    maskedPaths: readonly string[];
    readonlyPaths: readonly string[];
  };
}

/** What a step may do without asking (BuildKit's default, from containerd). */
export const DEFAULT_CAPABILITIES: readonly string[] = [
  "CAP_CHOWN",
  "CAP_DAC_OVERRIDE",
  "CAP_FSETID",
  "CAP_FOWNER",
  "CAP_MKNOD",
  "CAP_NET_RAW",
  "CAP_SETGID",
  "CAP_SETUID",
  "CAP_SETFCAP",
  "CAP_SETPCAP",
  "CAP_NET_BIND_SERVICE",
  "CAP_SYS_CHROOT",
  "CAP_KILL",
  "CAP_AUDIT_WRITE",
];

const MASKED_PATHS = [
  "/proc/acpi",
  "/proc/asound",
  "/proc/kcore",
  "/proc/keys",
  "/proc/latency_stats",
  "/proc/timer_list",
  "/proc/timer_stats",
  "/proc/sched_debug",
  "/sys/firmware",
  "/sys/devices/virtual/powercap",
  "/proc/scsi",
];

const READONLY_PATHS = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

const INSECURE_DEVICES: readonly (readonly [string, number, number])[] = [
  ["/dev/kmsg", 1, 11],
  ["/dev/cuse", 10, 203],
  ["/dev/fuse", 10, 229],
  ["/dev/kvm", 10, 232],
  ["/dev/net/tun", 10, 200],
  ["/dev/loop-control", 10, 237],
];

const LOOP_MAJOR = 7;
/** Loop devices offered beyond the next free one. */
const SPARE_LOOPS = 7;
const READONLY_BIND = ["nosuid", "noexec", "nodev", "rbind", "ro"];

/** Makes the specification of a step's container. Pure; BuildKit's `oci.GenerateSpec` in effect. */
export function generateSpec(input: SpecInput): OciSpec {
  const insecure = input.securityMode === "insecure";
  const spec: OciSpec = {
    ociVersion: "1.0.2",
    process: processOf(input, insecure),
    root: { path: input.rootPath, readonly: input.readonlyRoot },
    hostname: input.hostname,
    mounts: mountsOf(input, insecure),
    linux: {
      resources: resourcesOf(input.resources, insecure),
      cgroupsPath: input.cgroupsPath,
      namespaces: namespacesOf(input),
      maskedPaths: insecure ? [] : MASKED_PATHS,
      readonlyPaths: insecure ? [] : READONLY_PATHS,
    },
  };
  if (insecure) addInsecureDevices(spec, input.host.insecure);
  else if (input.host.seccompBpf) spec.annotations = { [SECCOMP_BPF_ANNOTATION]: input.host.seccompBpf };
  else if (input.host.seccomp) {
    const { architecture, kernel } = input.host;
    spec.linux.seccomp = defaultSeccomp(architecture, kernel, spec.process.capabilities.bounding);
  }
  if (input.cdi) applyCdiEdits(spec, input.cdi);
  if (input.host.noProcessSandbox) shareProcesses(spec);
  if (input.host.rootless) {
    spec.mounts = spec.mounts.filter((mount) => !mount.destination.startsWith("/sys"));
    delete spec.linux.resources;
    spec.linux.cgroupsPath = "";
  }
  return spec;
}

function processOf(input: SpecInput, insecure: boolean): OciProcess {
  const { uid, gid, supplementaryGids } = input.user;
  const base = DEFAULT_CAPABILITIES;
  const own = insecure ? input.host.insecure.capabilities : [];
  const granted = [...new Set([...base, ...own])].filter((name) => base.includes(name) || own.includes(name));
  const process: OciProcess = {
    terminal: input.tty,
    user: {
      uid,
      gid,
      additionalGids: supplementaryGids.includes(gid) ? [...supplementaryGids] : [gid, ...supplementaryGids],
    },
    args: input.args,
    env: mergeEnv(input.env, input.cdi?.env ?? []),
    cwd: input.cwd,
    capabilities: {
      bounding: granted,
      effective: granted,
      permitted: granted,
      inheritable: own,
      ambient: own,
    },
    noNewPrivileges: false,
  };
  if (input.ulimits.length > 0) {
    process.rlimits = input.ulimits.map(({ name, hard, soft }) => ({
      type: `RLIMIT_${name.toUpperCase()}`,
      hard: Number(hard),
      soft: Number(soft),
    }));
  }
  if (!insecure && input.host.apparmorProfile) process.apparmorProfile = input.host.apparmorProfile;
  return process;
}

function mount(destination: string, type: string, source: string, options: readonly string[]): OciMount {
  return { destination, type, source, options };
}

function mountsOf(input: SpecInput, insecure: boolean): OciMount[] {
  const access = insecure ? "rw" : "ro";
  const own = [
    mount("/proc", "proc", "proc", ["nosuid", "noexec", "nodev"]),
    mount("/dev", "tmpfs", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
    mount("/dev/pts", "devpts", "devpts", [
      "nosuid",
      "noexec",
      "newinstance",
      "ptmxmode=0666",
      "mode=0620",
      ...(input.host.terminalGroup ? ["gid=5"] : []),
    ]),
    mount("/dev/shm", "tmpfs", "shm", ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
    mount("/dev/mqueue", "mqueue", "mqueue", ["nosuid", "noexec", "nodev"]),
    mount("/sys", "sysfs", "sysfs", ["nosuid", "noexec", "nodev", access]),
    mount("/etc/resolv.conf", "bind", input.resolvConf, READONLY_BIND),
    mount("/etc/hosts", "bind", input.hosts, READONLY_BIND),
    mount("/sys/fs/cgroup", "cgroup", "cgroup", [access, "nosuid", "noexec", "nodev"]),
  ];
  const all = [
    ...mergeMounts(own, input.cdi?.mounts ?? []),
    ...input.mounts.map((each) => ({ ...each, destination: cleanPath(each.destination) })),
  ];
  return [...new Map(all.map((each) => [each.destination, each])).values()];
}

function namespacesOf(input: SpecInput): OciSpec["linux"]["namespaces"] {
  const namespaces: OciSpec["linux"]["namespaces"] = [
    { type: "pid" },
    { type: "ipc" },
    { type: "uts" },
    { type: "mount" },
  ];
  if (input.network.kind === "new") namespaces.push({ type: "network" });
  if (input.network.kind === "path") namespaces.push({ type: "network", path: input.network.path });
  if (input.host.cgroupNamespaces) namespaces.push({ type: "cgroup" });
  return namespaces;
}

function resourcesOf(limits: LinuxResources, insecure: boolean): Record<string, unknown> {
  const memory: Record<string, number> = {};
  if (limits.memoryBytes) memory.limit = Number(limits.memoryBytes);
  if (limits.memorySwapBytes) memory.swap = Number(limits.memorySwapBytes);
  const cpu: Record<string, number | string> = {};
  if (limits.cpuShares) cpu.shares = Number(limits.cpuShares);
  if (limits.cpuQuotaUs || limits.cpuPeriodUs) {
    cpu.quota = Number(limits.cpuQuotaUs ?? 0n);
    cpu.period = Number(limits.cpuPeriodUs ?? 0n);
  }
  if (limits.cpusetCpus) cpu.cpus = limits.cpusetCpus;
  if (limits.cpusetMems) cpu.mems = limits.cpusetMems;
  const devices = insecure
    ? [
        { allow: true, type: "c", access: "rwm" },
        { allow: true, type: "b", access: "rwm" },
      ]
    : [{ allow: false, access: "rwm" }];
  return {
    devices,
    ...(Object.keys(memory).length > 0 ? { memory } : {}),
    ...(Object.keys(cpu).length > 0 ? { cpu } : {}),
  };
}

function addInsecureDevices(spec: OciSpec, grants: InsecureGrants): void {
  if (grants.freeLoop === undefined) return;
  const loops = Array.from({ length: grants.freeLoop + SPARE_LOOPS + 1 }, (_, minor) => ({
    path: `/dev/loop${minor}`,
    type: "b",
    major: LOOP_MAJOR,
    minor,
  }));
  spec.linux.devices = [
    ...INSECURE_DEVICES.map(([path, major, minor]) => ({ path, type: "c", major, minor })),
    ...loops,
  ];
}

function shareProcesses(spec: OciSpec): void {
  const outsideProc = (path: string): boolean => path !== "/proc" && !path.startsWith("/proc/");
  spec.linux.namespaces = spec.linux.namespaces.filter((namespace) => namespace.type !== "pid");
  spec.mounts = [
    mount("/proc", "bind", "/proc", ["rbind"]),
    ...spec.mounts.filter((each) => outsideProc(each.destination)),
  ];
  spec.linux.maskedPaths = spec.linux.maskedPaths.filter(outsideProc);
  spec.linux.readonlyPaths = spec.linux.readonlyPaths.filter(outsideProc);
}
