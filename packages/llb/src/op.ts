import type { Digest } from "@kiln/oci";

/** The output `index` of the vertex `digest`. */
export interface OpInput {
  readonly digest: Digest;
  readonly index: number;
}

/** Platform as LLB spells it. */
export interface OpPlatform {
  readonly architecture: string;
  readonly os: string;
  readonly variant?: string | undefined;
  readonly osVersion?: string | undefined;
  readonly osFeatures?: readonly string[] | undefined;
}

/** One operation. Field names follow `pb.Op`; indexes of -1 mean "none". */
export interface Op {
  readonly inputs: readonly OpInput[];
  readonly body?: OpBody | undefined;
  readonly platform?: OpPlatform | undefined;
  /** Absent only on the head of a definition. */
  readonly constraints?: readonly string[] | undefined;
}

export type OpBody =
  | { readonly kind: "exec"; readonly exec: ExecBody }
  | { readonly kind: "source"; readonly source: SourceBody }
  | { readonly kind: "file"; readonly actions: readonly FileActionBody[] }
  | { readonly kind: "build"; readonly build: BuildBody }
  | { readonly kind: "merge"; readonly inputs: readonly number[] }
  | { readonly kind: "diff"; readonly lower: number; readonly upper: number }
  | { readonly kind: "passthrough"; readonly id: string; readonly outputs: readonly number[] };

export interface SourceBody {
  readonly identifier: string;
  readonly attrs: ReadonlyMap<string, string>;
}

export interface BuildBody {
  readonly builder: number;
  readonly inputs: ReadonlyMap<string, number>;
  readonly attrs: ReadonlyMap<string, string>;
}

/** `sandbox` is the default network of the worker. */
export type NetworkMode = "sandbox" | "host" | "none";
export type SecurityMode = "sandbox" | "insecure";
export type MountKind = "bind" | "secret" | "ssh" | "cache" | "tmpfs";
export type CacheSharing = "shared" | "private" | "locked";
/** Whether the content of a read-only mount, or only its identity, is part of the cache key. */
export type ContentCache = "default" | "on" | "off";

export interface HostIp {
  readonly host: string;
  readonly ip: string;
}

export interface Ulimit {
  readonly name: string;
  readonly soft: number | bigint;
  readonly hard: number | bigint;
}

export interface ProxyEnv {
  readonly httpProxy?: string | undefined;
  readonly httpsProxy?: string | undefined;
  readonly ftpProxy?: string | undefined;
  readonly noProxy?: string | undefined;
  readonly allProxy?: string | undefined;
}

export interface ExecBody {
  readonly args: readonly string[];
  readonly env: readonly string[];
  readonly cwd: string;
  readonly user: string;
  readonly proxyEnv?: ProxyEnv | undefined;
  readonly extraHosts: readonly HostIp[];
  readonly hostname: string;
  readonly ulimits: readonly Ulimit[];
  readonly cgroupParent: string;
  readonly validExitCodes: readonly number[];
  readonly mounts: readonly MountBody[];
  readonly network: NetworkMode;
  readonly security: SecurityMode;
  readonly secretEnv: readonly SecretEnvBody[];
  readonly cdiDevices: readonly CdiDevice[];
}

export interface SecretEnvBody {
  readonly id: string;
  readonly name: string;
  readonly optional: boolean;
}

export interface CdiDevice {
  readonly name: string;
  readonly optional?: boolean | undefined;
}

/** A secret file or a socket in a container. */
export interface FileAccess {
  readonly id: string;
  readonly uid: number;
  readonly gid: number;
  readonly mode: number;
  readonly optional: boolean;
}

export interface MountBody {
  readonly input: number;
  readonly selector: string;
  readonly dest: string;
  readonly output: number;
  readonly readonly: boolean;
  readonly kind: MountKind;
  readonly tmpfsSize?: number | bigint | undefined;
  readonly cache?: { readonly id: string; readonly sharing: CacheSharing } | undefined;
  readonly access?: FileAccess | undefined;
  readonly contentCache: ContentCache;
}

/** A user or group: a number, or a name to look up in the file system of input `input`. */
export type UserBody =
  | { readonly kind: "id"; readonly id: number }
  | { readonly kind: "name"; readonly name: string; readonly input: number };

export interface OwnerBody {
  readonly user?: UserBody | undefined;
  readonly group?: UserBody | undefined;
}

export type FileActionBody = {
  readonly input: number;
  readonly secondaryInput: number;
  readonly output: number;
} & (
  | ({ readonly kind: "copy" } & CopyBody)
  | ({ readonly kind: "mkfile" } & MkfileBody)
  | ({ readonly kind: "mkdir" } & MkdirBody)
  | {
      readonly kind: "rm";
      readonly path: string;
      readonly allowNotFound: boolean;
      readonly allowWildcard: boolean;
    }
  | ({ readonly kind: "symlink" } & SymlinkBody)
);

/** Nanoseconds since the epoch; -1 for "as it comes". */
export type TimestampNs = bigint | -1;

export interface CopyBody {
  readonly src: string;
  readonly dest: string;
  readonly owner?: OwnerBody | undefined;
  /** -1 keeps the source's. */
  readonly mode: number;
  readonly followSymlink: boolean;
  readonly dirCopyContents: boolean;
  readonly attemptUnpack: boolean;
  readonly createDestPath: boolean;
  readonly allowWildcard: boolean;
  readonly allowEmptyWildcard: boolean;
  readonly timestamp: TimestampNs;
  readonly includePatterns: readonly string[];
  readonly excludePatterns: readonly string[];
  readonly alwaysReplaceExistingDestPaths: boolean;
  readonly modeStr: string;
  readonly requiredPaths: readonly string[];
}

export interface MkfileBody {
  readonly path: string;
  readonly mode: number;
  readonly data: Uint8Array;
  readonly owner?: OwnerBody | undefined;
  readonly timestamp: TimestampNs;
}

export interface MkdirBody {
  readonly path: string;
  readonly mode: number;
  readonly makeParents: boolean;
  readonly owner?: OwnerBody | undefined;
  readonly timestamp: TimestampNs;
}

export interface SymlinkBody {
  readonly oldPath: string;
  readonly newPath: string;
  readonly owner?: OwnerBody | undefined;
  readonly timestamp: TimestampNs;
}
