import type { Definition, Range, SourceMap } from "@kiln/llb";
import type { Digest, Platform } from "@kiln/oci";

/**
 * What the Dockerfile frontend needs of the daemon that it works for. It mirrors BuildKit's gateway client:
 * the daemon implements it in-process, a frontend image over the gateway's gRPC on stdin and stdout, a
 * browser however it likes.
 *
 * Life cycle: one backend serves one request. {@link buildDockerfile} reads the settings, calls the methods
 * (some of them at the same time) and returns a result whose refs belong to the caller. Methods throw
 * `BuildError`; the frontend adds source positions and passes them on.
 */
export interface FrontendBackend {
  /** Frontend attributes of the request (`target`, `build-arg:X`, `context:name` …). */
  readonly opts: ReadonlyMap<string, string>;
  /** Session that has the client's files. */
  readonly sessionId: string;
  /** Workers; the first platform of the first one is the build platform. */
  readonly workers: readonly FrontendWorker[];
  /** Gateway capabilities of the daemon. */
  readonly caps: ReadonlySet<string>;
  /** LLB capabilities of the daemon. */
  readonly llbCaps: ReadonlySet<string>;
  /** Platform of the machine, used where workers name none; linux/amd64 by default. */
  readonly defaultPlatform?: Platform | undefined;

  /** Definitions that the client sent along, by name. */
  inputs(): Promise<ReadonlyMap<string, Definition>>;
  /** Finds an image and its config for a platform. Equal requests may be answered from a cache. */
  resolveImageConfig(ref: string, options: ResolveImageOptions): Promise<ResolvedImage>;
  /** Finds out about a source without fetching it. */
  resolveSourceMetadata(source: SourceRequest, options: ResolveSourceOptions): Promise<SourceMetadata>;
  /** Solves a definition, or hands the request to another frontend. */
  solve(request: SolveRequest): Promise<FrontendResult>;
  /** Reports a warning on a vertex. */
  warn(vertex: Digest, message: string, options: WarnOptions): void | Promise<void>;
  /**
   * Uncompresses gzip, bzip2, xz or zstd; returns plain data as it is. Only used to find the newest file of
   * an archive for `SOURCE_DATE_EPOCH`; without it such an archive leaves the epoch unset.
   */
  decompress?(data: Uint8Array): Promise<Uint8Array>;
}

/** A worker of the daemon. */
export interface FrontendWorker {
  readonly id: string;
  readonly platforms: readonly Platform[];
}

/** How an image is looked up. */
export interface ResolveImageOptions {
  readonly platform?: Platform | undefined;
  /** `default`, `pull` or `local`. */
  readonly resolveMode?: string | undefined;
  /** Name of the vertex that shows the look-up. */
  readonly logName?: string | undefined;
  /** The image is in an OCI layout of the client. */
  readonly store?: { readonly sessionId: string; readonly storeId: string } | undefined;
}

/** An image, or what a source policy says to take instead of one. */
export type ResolvedImage =
  | {
      /** The name, changed if a policy changed it. */
      readonly ref: string;
      readonly digest: Digest | undefined;
      /** The config blob, byte for byte. */
      readonly config: Uint8Array;
    }
  | {
      /** Identifier of another kind of source: `https://…`, `git://…`. */
      readonly redirect: string;
    };

/** A source op's identifier and attributes. */
export interface SourceRequest {
  readonly identifier: string;
  readonly attrs: ReadonlyMap<string, string>;
}

export interface ResolveSourceOptions {
  readonly logName?: string | undefined;
  /** Asks for the raw commit object of a git source. */
  readonly gitObject?: boolean | undefined;
}

/** What is known about a source. */
export interface SourceMetadata {
  readonly git?: { readonly commitObject?: Uint8Array | undefined } | undefined;
  /** Milliseconds since the epoch. */
  readonly http?: { readonly lastModifiedMs?: number | undefined } | undefined;
}

/** A request to the solver, or to another frontend when `frontend` is set. */
export interface SolveRequest {
  readonly definition?: Definition | undefined;
  readonly frontend?: string | undefined;
  readonly opts?: ReadonlyMap<string, string> | undefined;
  readonly inputs?: ReadonlyMap<string, Definition> | undefined;
  readonly cacheImports?: readonly CacheImport[] | undefined;
  /** Finishes the work before it answers. */
  readonly evaluate?: boolean | undefined;
}

/** A cache to read from. */
export interface CacheImport {
  readonly type: string;
  readonly attrs: ReadonlyMap<string, string>;
}

/** Files of a result, which is evaluated on first use. */
export interface FrontendRef {
  /** Throws `not_found`. At most `length` bytes from `offset`. */
  readFile(path: string, range?: { readonly offset?: number; readonly length?: number }): Promise<Uint8Array>;
  /** Throws `not_found`. */
  statFile(path: string): Promise<{ readonly size: number }>;
}

/** What a frontend returns. */
export interface FrontendResult {
  /** The one result; undefined for an empty file system, or when there are {@link refs}. */
  readonly ref?: FrontendRef | undefined;
  /** Results by platform id. */
  readonly refs?: ReadonlyMap<string, FrontendRef | undefined> | undefined;
  readonly metadata: ReadonlyMap<string, Uint8Array>;
  /** By platform id. */
  readonly attestations?: ReadonlyMap<string, readonly FrontendAttestation[]> | undefined;
}

/** A statement about a result, or a bundle of them. The built-in frontend makes bundles only. */
export interface FrontendAttestation {
  readonly kind: "bundle" | "in-toto";
  readonly ref: FrontendRef | undefined;
  readonly metadata: ReadonlyMap<string, Uint8Array>;
  readonly predicateType: string;
  /** File of the tree; "" when absent. */
  readonly path?: string | undefined;
  /** What it speaks of; the result when there are none. */
  readonly subjects?: readonly FrontendSubject[] | undefined;
}

/** What a statement speaks of; `self` is the result. */
export interface FrontendSubject {
  readonly kind: "self" | "raw";
  readonly name: string;
  readonly digests: readonly string[];
}

/** Where a warning points. */
export interface WarnOptions {
  readonly level: number;
  readonly detail: readonly Uint8Array[];
  readonly url: string;
  readonly source: SourceMap;
  readonly ranges: readonly Range[];
}
