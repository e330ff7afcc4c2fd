import type { Readable, Writable } from "node:stream";
import type { Platform } from "@kiln/oci";
import type { Mount } from "@kiln/sys";
import type { ProxyConfig } from "./proxy/proxy-network.ts";
import type { ResourceUsage } from "./resources/resource-monitor.ts";

/** How a process reaches the network; `default` is what the daemon was set up with. */
export type NetMode = "default" | "host" | "none";

/** `insecure` lifts capabilities, seccomp, masked paths and the device list up to what the daemon itself has. */
export type SecurityMode = "sandbox" | "insecure";

/** One `ulimit`, e.g. `{name: "nofile", soft: 1024n, hard: 1024n}`. */
export interface Ulimit {
  readonly name: string;
  readonly soft: bigint;
  readonly hard: bigint;
}

/** Limits of one step; 0 or "" mean "not limited". `cpuShares` is in cgroup v1 units. */
export interface LinuxResources {
  readonly memoryBytes?: bigint;
  readonly memorySwapBytes?: bigint;
  readonly cpuShares?: bigint;
  readonly cpuPeriodUs?: bigint;
  readonly cpuQuotaUs?: bigint;
  readonly cpusetCpus?: string;
  readonly cpusetMems?: string;
}

/** One more line of `/etc/hosts`. */
export interface ExtraHost {
  readonly host: string;
  readonly ip: string;
}

/** A CDI device asked for by its qualified name. */
export interface CdiDevice {
  readonly name: string;
  readonly optional: boolean;
}

/**
 * Something mounted into the container besides its root.
 *
 * - `snapshot`: file systems as the store hands them out; stacked, the last is what shows. `selector` is a
 *   path inside, resolved as in a chroot and safe against concurrent renames.
 * - `tmpfs`: empty, in memory; `sizeBytes` 0 means the kernel's default.
 * - `file`: a file in memory with this content (secrets); it never reaches a disk.
 * - `host`: a path of the machine (an SSH agent's socket); the caller vouches for it.
 */
export type ExecMount = { readonly dest: string; readonly readonly: boolean } & (
  | { readonly kind: "snapshot"; readonly mounts: readonly Mount[]; readonly selector?: string }
  | { readonly kind: "tmpfs"; readonly sizeBytes: bigint }
  | {
      readonly kind: "file";
      readonly data: Uint8Array;
      readonly uid: number;
      readonly gid: number;
      readonly mode: number;
    }
  | { readonly kind: "host"; readonly source: string }
);

/** What to run, and as whom. */
export interface ProcessSpec {
  readonly args: readonly string[];
  /** `NAME=value` texts; nothing is added except what the trace socket needs. */
  readonly env: readonly string[];
  /** As in a Dockerfile's USER: `""`, `name`, `uid`, `name:group`, `uid:gid`. */
  readonly user: string;
  /** Absolute; made inside the root when missing. */
  readonly cwd: string;
  readonly tty: boolean;
  /** W3C's trace context, for a process that can send traces. */
  readonly traceParent?: string;
}

/** The sandbox around the first process. Every field left out has BuildKit's default. */
export interface SandboxSpec {
  readonly hostname?: string;
  readonly extraHosts?: readonly ExtraHost[];
  readonly ulimits?: readonly Ulimit[];
  readonly cgroupParent?: string;
  readonly resources?: LinuxResources;
  readonly netMode?: NetMode;
  readonly securityMode?: SecurityMode;
  readonly readonlyRootfs?: boolean;
  readonly removeMountStubsRecursive?: boolean;
  readonly cdiDevices?: readonly CdiDevice[];
  /** The platform of the root file system; what the machine can't run itself gets an emulator, where there is one. */
  readonly platform?: Platform;
  /** The only way out is a proxy of the daemon, in place of the network that `netMode` names. */
  readonly proxy?: ProxyConfig;
}

/** Size of a terminal, in characters. */
export interface TerminalSize {
  readonly rows: number;
  readonly cols: number;
}

/** Streams and events of one process. A missing `stdin` is /dev/null, a missing output is thrown away. */
export interface ProcessIo {
  readonly stdin?: Readable;
  /** With a terminal, everything the process writes arrives here. Not ended by the executor. */
  readonly stdout?: Writable;
  readonly stderr?: Writable;
  /** Called once, when the process has been started. */
  readonly started?: () => void;
  /** Gives the process's controls as soon as signals and sizes can be delivered. */
  readonly onControl?: (control: ProcessControl) => void;
}

/** Handle on a process that runs. */
export interface ProcessControl {
  /** Sends a signal by number; `SIGKILL` kills the whole container. */
  kill(signal: number): void;
  resize(size: TerminalSize): void;
}

/** How a process ended. A code other than 0 is not an exception here: whoever asked decides. */
export interface ExitStatus {
  /** 0-255; 255 when the end is not known, 128+n after signal n. */
  readonly code: number;
  /** The kernel killed something in the container because its memory limit was reached. */
  readonly outOfMemory: boolean;
  /** What the runtime said when it could not start the process; "" otherwise. */
  readonly runtimeError: string;
  /** Something that makes a failure of the run whatever the code is; "" otherwise. */
  readonly failure: string;
  /** What the container has used, where that could be told. */
  readonly usage?: ResourceUsage;
}

/** Everything {@link Executor.run} needs. */
export interface RunOptions {
  /** `[A-Za-z0-9]+`, unique among running containers; a fresh one when left out. */
  readonly id?: string;
  /** The root file system, stacked like a `snapshot` mount. It stays the caller's until the promise settles. */
  readonly rootfs: readonly Mount[];
  readonly mounts: readonly ExecMount[];
  readonly process: ProcessSpec;
  readonly sandbox: SandboxSpec;
  readonly io: ProcessIo;
  /** Aborting kills the container; the promise then rejects with the signal's reason, after everything is undone. */
  readonly signal: AbortSignal;
}

/** Everything {@link Executor.exec} needs. */
export interface ExecOptions {
  readonly process: ProcessSpec;
  readonly securityMode?: SecurityMode;
  readonly io: ProcessIo;
  readonly signal: AbortSignal;
}

/**
 * Runs processes in containers.
 *
 * Life of a container: `run` mounts the root, starts the first process and settles when that has ended and
 * every trace (mounts, cgroup, network, mount points created in the root) is gone; meanwhile `exec` may start
 * more processes in it, which die with the first. The file systems are mounted where no other process of the
 * machine sees them, and vanish with the daemon however it ends.
 *
 * @throws BuildError `invalid_argument` for a request that can't be run, `not_found` from `exec` when there is
 * no such container, `unimplemented` by name for what isn't supported.
 */
export interface Executor extends AsyncDisposable {
  run(options: RunOptions): Promise<ExitStatus>;
  exec(id: string, options: ExecOptions): Promise<ExitStatus>;
  /**
   * A path under which this process sees the root of a running container, with everything `run` mounted
   * below it missing. It is hostile ground: resolve names in it as in a chroot only.
   */
  rootPath(id: string): Promise<string>;
  /** Makes mounts visible under a path for as long as the handle lives, sharing writable ones with running containers. */
  mountShared(mounts: readonly Mount[]): Promise<MountedPath>;
}

/** See {@link Executor.mountShared}. */
export interface MountedPath extends AsyncDisposable {
  readonly path: string;
}
