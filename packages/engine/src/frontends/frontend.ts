import type { Definition, Range, SourceInfo, SourceOp } from "@kiln/api/pb";
import type { Policy } from "@kiln/api/sourcepolicy";
import type { Platform } from "@kiln/oci";
import type { CachedResult } from "@kiln/solver";
import type { Capture } from "../attestations/provenance/capture.ts";
import type { OpResult } from "../op-context.ts";
import type { BuildResult } from "../solve/build-results.ts";
import type { SourceMetadata, SourceMetadataOptions } from "../sources/source-metadata.ts";

/** One import of a cache, as in `CacheOptionsEntry`. */
export interface CacheImport {
  readonly type: string;
  readonly attrs: ReadonlyMap<string, string>;
}

/**
 * A tree that a frontend has asked for but that isn't built before somebody needs it. The holder of the
 * result it came in releases it once.
 */
export interface ResultProxy {
  readonly id: string;
  readonly definition: Definition | undefined;
  /** What went into it; undefined before it is built. */
  readonly capture?: Capture | undefined;
  /**
   * Builds it (once, however often it is asked). The value stays the proxy's: clone what must outlive it.
   *
   * @throws the build's error, with the places in the source that the failing vertex came from.
   */
  result(signal: AbortSignal): Promise<CachedResult<OpResult>>;
  release(): Promise<void>;
}

/** What frontends and clients get from a solve. */
export type FrontendResult = BuildResult<ResultProxy>;

/** `LLBBridge.Solve`. Exactly one of `definition` and `frontend` is set; neither gives an empty result. */
export interface FrontendSolveRequest {
  readonly definition: Definition | undefined;
  readonly frontend: string;
  readonly frontendAttrs: ReadonlyMap<string, string>;
  readonly frontendInputs: ReadonlyMap<string, Definition>;
  readonly cacheImports: readonly CacheImport[];
  readonly sourcePolicies: readonly Policy[];
  /** Build every tree before answering. */
  readonly evaluate: boolean;
}

/** A warning for a vertex; fields as in BuildKit's `VertexWarning`. */
export interface FrontendWarning {
  readonly vertex: string;
  readonly level: number;
  readonly short: string;
  readonly detail: readonly string[];
  readonly url: string;
  readonly sourceInfo: SourceInfo | undefined;
  readonly ranges: readonly Range[];
}

/** The frontend's handle on the solver, for one build. */
export interface FrontendBridge {
  readonly sessionId: string;
  solve(request: FrontendSolveRequest, signal: AbortSignal): Promise<FrontendResult>;
  resolveSourceMetadata(
    source: SourceOp,
    opts: SourceMetadataOptions,
    signal: AbortSignal,
  ): Promise<SourceMetadata>;
  warn(warning: FrontendWarning): void;
  /** Platforms that can be run, the machine's own first. */
  readonly platforms: readonly Platform[];
}

/** What a frontend is started with. */
export interface FrontendRequest {
  readonly bridge: FrontendBridge;
  readonly attrs: ReadonlyMap<string, string>;
  readonly inputs: ReadonlyMap<string, Definition>;
  readonly signal: AbortSignal;
}

/** Turns a user's file into trees. */
export interface Frontend {
  /** `dockerfile.v0`, `gateway.v0`. */
  readonly name: string;
  solve(request: FrontendRequest): Promise<FrontendResult>;
}
