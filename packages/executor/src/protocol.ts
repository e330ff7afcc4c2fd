import type { Mount } from "@kiln/sys";
import type { SpecHost, SpecInput, SpecNetwork } from "./oci-spec.ts";
import type { CgroupSample } from "./resources/cgroup-sample.ts";

// What the daemon and its zygote say to each other: frames of a 4-byte big-endian length and that many bytes of
// JSON, over a socket pair. 64-bit numbers travel as `{"$n": "123"}`.

/** Largest frame: a request holds one container's secrets, arguments and mounts. */
const MAX_FRAME_BYTES = 64 << 20;

/** Tells the zygote's program to start itself once more, in a pid namespace. */
export const FORK_ARGUMENT = "--fork";

/** Where a process's streams lead: named pipes (absent is /dev/null), or one terminal for all. */
export type StdioPaths =
  | {
      readonly kind: "pipes";
      readonly stdin: string | undefined;
      readonly stdout: string | undefined;
      readonly stderr: string | undefined;
    }
  | { readonly kind: "tty"; readonly path: string };

/**
 * A mount as the zygote gets it. What was mounted by the daemon itself is out of the zygote's sight: `copyFd` is
 * then the daemon's descriptor of a copy.
 */
export interface HandedMount extends Mount {
  readonly copyFd?: number;
}

/** One of a step's mounts, as the zygote makes it. Binary data is in base64. */
export type PlannedMount = { readonly dest: string; readonly readonly: boolean } & (
  | { readonly kind: "snapshot"; readonly mounts: readonly HandedMount[]; readonly selector: string }
  | { readonly kind: "tmpfs"; readonly sizeBytes: bigint }
  | {
      readonly kind: "file";
      readonly base64: string;
      readonly uid: number;
      readonly gid: number;
      readonly mode: number;
    }
  | { readonly kind: "host"; readonly source: string }
);

/** The part of a specification that is known before the root is mounted. */
export type SpecDraft = Omit<SpecInput, "user" | "rootPath" | "mounts" | "host" | "network">;

/** A container to run. */
export interface RunPlan {
  readonly id: string;
  readonly rootfs: readonly HandedMount[];
  readonly mounts: readonly PlannedMount[];
  readonly draft: SpecDraft;
  readonly network: SpecNetwork;
  readonly user: string;
  readonly removeMountStubsRecursive: boolean;
  /** Added to the root's trust store while the container lives; later processes then get the first one's proxy. */
  readonly proxyCaPem?: string;
  readonly stdio: StdioPaths;
}

/** A process to add to a running container; empty texts and lists mean "as the first process has it". */
export interface ExecPlan {
  readonly id: string;
  /** Name of this process, unique in the container. */
  readonly name: string;
  readonly user: string;
  readonly args: readonly string[];
  readonly env: readonly string[];
  readonly cwd: string;
  readonly tty: boolean;
  readonly stdio: StdioPaths;
}

/** How the zygote is set up, sent once. */
export interface ZygoteConfig {
  /** Absolute path of the OCI runtime. */
  readonly runtime: string;
  /** It can leave a container's state behind for a look at its cgroup. */
  readonly runtimeKeeps: boolean;
  /** It can't stand a cgroup v2 tree beside v1 ones; the zygote hides that from it. */
  readonly hideUnifiedCgroup: boolean;
  readonly noPivotRoot: boolean;
  /** An existing directory; a file system in memory goes over it that only the zygote and what it starts sees. */
  readonly runDir: string;
  readonly host: SpecHost;
}

/** A program to run to its end, with what it reads and writes kept in memory. */
export interface CommandPlan {
  readonly argv: readonly string[];
  readonly env: readonly string[];
  readonly stdin: string;
  /** Path of the network namespace to run it in; the daemon's own when absent. */
  readonly netns?: string;
}

/** What a command of the zygote did. */
export interface CommandResult {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** A program to start with streams. */
export interface SpawnPlan {
  readonly argv: readonly string[];
  readonly env: readonly string[];
  readonly stdio: StdioPaths;
}

/** Requests by name, with what they are given and what they answer. */
export interface Requests {
  configure: { params: ZygoteConfig; result: null };
  /** Prepares and starts; the key names the process from then on. */
  run: { params: RunPlan; result: { readonly key: string } };
  exec: { params: ExecPlan; result: { readonly key: string } };
  spawn: { params: SpawnPlan; result: { readonly key: string } };
  command: { params: CommandPlan; result: CommandResult };
  /** Signals a process; SIGKILL is repeated until it is gone. */
  signal: { params: { readonly key: string; readonly signal: number }; result: null };
  /** Tells a process's terminal its size; repeated by the caller, for it may not have one yet. */
  resize: { params: { readonly key: string; readonly rows: number; readonly cols: number }; result: null };
  mount: {
    params: { readonly mounts: readonly HandedMount[] };
    result: { readonly handle: string; readonly path: string };
  };
  unmount: { params: { readonly handle: string }; result: null };
  createNetns: { params: { readonly path: string; readonly loopback?: boolean }; result: null };
  removeNetns: { params: { readonly path: string }; result: null };
  rootPath: { params: { readonly id: string }; result: { readonly path: string } };
}

/** How a process of the zygote ended. */
export interface ExitEvent {
  readonly key: string;
  readonly code: number;
  readonly outOfMemory: boolean;
  /** What the container had used, when its cgroup was still there. */
  readonly sample?: CgroupSample | undefined;
  readonly runtimeError: string;
  /** What makes a failure of the run whatever the code is; "" when nothing does. */
  readonly failure: string;
  /** What went wrong while its traces were removed; "" when nothing did. */
  readonly cleanupError: string;
}

/** What travels from the daemon to the zygote. */
export interface RequestFrame {
  readonly seq: number;
  readonly op: keyof Requests;
  readonly params: unknown;
}

/** What travels back. */
export type ReplyFrame =
  | { readonly seq: number; readonly result: unknown }
  | { readonly seq: number; readonly error: { readonly code: string; readonly message: string } }
  /** Said once, first: the zygote's process id as the daemon sees it. */
  | { readonly hello: { readonly pid: number } }
  | { readonly exit: ExitEvent };

/** Encodes one frame. */
export function encodeFrame(frame: RequestFrame | ReplyFrame): Buffer {
  const text = JSON.stringify(frame, (_key, value: unknown) => {
    return typeof value === "bigint" ? { $n: value.toString() } : value;
  });
  const body = Buffer.from(text);
  if (body.length > MAX_FRAME_BYTES) throw new RangeError(`frame of ${body.length} bytes`);
  const head = Buffer.alloc(4);
  head.writeUInt32BE(body.length);
  return Buffer.concat([head, body]);
}

function reviveNumber(_key: string, value: unknown): unknown {
  if (typeof value !== "object" || value === null || !("$n" in value)) return value;
  return typeof value.$n === "string" ? BigInt(value.$n) : value;
}

/** Cuts a byte stream into frames: push bytes in, get what became complete. */
export class FrameDecoder<Frame> {
  #pending: Buffer = Buffer.alloc(0);

  push(bytes: Buffer): Frame[] {
    this.#pending = this.#pending.length === 0 ? bytes : Buffer.concat([this.#pending, bytes]);
    const frames: Frame[] = [];
    let at = 0;
    while (this.#pending.length - at >= 4) {
      const size = this.#pending.readUInt32BE(at);
      if (size > MAX_FRAME_BYTES) throw new RangeError(`frame of ${size} bytes`);
      if (this.#pending.length - at - 4 < size) break;
      const text = this.#pending.toString("utf8", at + 4, at + 4 + size);
      frames.push(JSON.parse(text, reviveNumber) as Frame);
      at += 4 + size;
    }
    this.#pending = this.#pending.subarray(at);
    return frames;
  }
}
