import type { Range } from "@kiln/llb";

/** What every instruction has. */
export interface InstructionBase {
  /** Keyword as written. */
  readonly name: string;
  /** The instruction with continuation lines joined, trimmed. */
  readonly code: string;
  /** One range per line. */
  readonly location: readonly Range[];
  /** Comments directly above. */
  readonly comments: readonly string[];
}

/** `key=value`. */
export interface KeyValue {
  readonly key: string;
  readonly value: string;
  /** Written as `key value`. */
  readonly legacy: boolean;
}

/** One ARG. */
export interface ArgDefinition {
  readonly key: string;
  readonly value: string | undefined;
  /** From the comment above that begins with the name. */
  readonly description: string;
}

/** A file written inside the Dockerfile. */
export interface InlineFile {
  readonly path: string;
  readonly data: string;
  readonly expand: boolean;
}

/** What COPY and ADD have in common. */
export interface SourcesAndDest {
  readonly sources: readonly string[];
  readonly files: readonly InlineFile[];
  readonly dest: string;
}

/** A heredoc of RUN. */
export interface ShellFile {
  readonly name: string;
  readonly data: string;
  readonly chomp: boolean;
}

/** A command as a list of words, or as one text for the shell. */
export interface CommandLine {
  readonly args: readonly string[];
  /** Shell form. */
  readonly shell: boolean;
  readonly files: readonly ShellFile[];
}

export type MountType = "bind" | "cache" | "tmpfs" | "secret" | "ssh";

/** One `RUN --mount`. */
export interface RunMount {
  readonly type: MountType;
  readonly from: string;
  readonly source: string;
  readonly target: string;
  readonly readonly: boolean;
  readonly sizeBytes: number;
  readonly id: string;
  readonly sharing: "" | "shared" | "private" | "locked";
  readonly required: boolean;
  readonly env: string | undefined;
  readonly mode: number | undefined;
  readonly uid: number | undefined;
  readonly gid: number | undefined;
}

/** One `RUN --device`. */
export interface RunDevice {
  readonly name: string;
  readonly required: boolean;
}

export interface ArgInstruction extends InstructionBase {
  readonly kind: "arg";
  readonly args: readonly ArgDefinition[];
}

export interface EnvInstruction extends InstructionBase {
  readonly kind: "env";
  readonly pairs: readonly KeyValue[];
}

export interface LabelInstruction extends InstructionBase {
  readonly kind: "label";
  readonly pairs: readonly KeyValue[];
}

export interface MaintainerInstruction extends InstructionBase {
  readonly kind: "maintainer";
  readonly maintainer: string;
}

export interface AddInstruction extends InstructionBase, SourcesAndDest {
  readonly kind: "add";
  readonly chown: string;
  readonly chmod: string;
  readonly link: boolean;
  readonly exclude: readonly string[];
  readonly keepGitDir: boolean | undefined;
  readonly checksum: string;
  readonly unpack: boolean | undefined;
}

export interface CopyInstruction extends InstructionBase, SourcesAndDest {
  readonly kind: "copy";
  readonly from: string;
  readonly chown: string;
  readonly chmod: string;
  readonly link: boolean;
  readonly exclude: readonly string[];
  readonly parents: boolean;
}

export interface OnbuildInstruction extends InstructionBase {
  readonly kind: "onbuild";
  readonly expression: string;
}

export interface WorkdirInstruction extends InstructionBase {
  readonly kind: "workdir";
  readonly path: string;
}

export interface RunInstruction extends InstructionBase {
  readonly kind: "run";
  readonly command: CommandLine;
  /** Mounts as written; variables in them are expanded later. */
  readonly mountFlags: readonly string[];
  /** Only `from` is read at this stage. */
  readonly mounts: readonly RunMount[];
  readonly network: "default" | "none" | "host";
  readonly security: "sandbox" | "insecure";
  readonly devices: readonly RunDevice[];
}

export interface CmdInstruction extends InstructionBase {
  readonly kind: "cmd";
  readonly command: CommandLine;
}

export interface EntrypointInstruction extends InstructionBase {
  readonly kind: "entrypoint";
  readonly command: CommandLine;
}

export interface HealthcheckInstruction extends InstructionBase {
  readonly kind: "healthcheck";
  readonly test: readonly string[];
  /** Nanoseconds. */
  readonly intervalNs: bigint;
  readonly timeoutNs: bigint;
  readonly startPeriodNs: bigint;
  readonly startIntervalNs: bigint;
  readonly retries: number;
}

export interface ExposeInstruction extends InstructionBase {
  readonly kind: "expose";
  readonly ports: readonly string[];
}

export interface UserInstruction extends InstructionBase {
  readonly kind: "user";
  readonly user: string;
}

export interface VolumeInstruction extends InstructionBase {
  readonly kind: "volume";
  readonly volumes: readonly string[];
}

export interface StopSignalInstruction extends InstructionBase {
  readonly kind: "stopsignal";
  readonly signal: string;
}

export interface ShellInstruction extends InstructionBase {
  readonly kind: "shell";
  readonly shell: readonly string[];
}

/** Any instruction of a stage. */
export type Instruction =
  | AddInstruction
  | ArgInstruction
  | CmdInstruction
  | CopyInstruction
  | EntrypointInstruction
  | EnvInstruction
  | ExposeInstruction
  | HealthcheckInstruction
  | LabelInstruction
  | MaintainerInstruction
  | OnbuildInstruction
  | RunInstruction
  | ShellInstruction
  | StopSignalInstruction
  | UserInstruction
  | VolumeInstruction
  | WorkdirInstruction;

/** A FROM with the instructions behind it. */
export interface Stage {
  readonly kind: "stage";
  /** Lower case; empty without AS. */
  readonly name: string;
  /** FROM as written. */
  readonly keyword: string;
  readonly baseName: string;
  readonly platform: string;
  readonly description: string;
  readonly code: string;
  readonly location: readonly Range[];
  readonly comments: readonly string[];
  readonly instructions: readonly Instruction[];
}

/** A Dockerfile as it is meant. */
export interface Dockerfile {
  readonly stages: readonly Stage[];
  /** ARGs before the first FROM. */
  readonly globalArgs: readonly ArgInstruction[];
}
