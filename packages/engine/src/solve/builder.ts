import type {
  BuildOptions,
  CachedResult,
  Edge,
  InternalVertex,
  RanVertex,
  WarningUpdate,
} from "@kiln/solver";
import type { LlbOp, OpContext, OpResult } from "../op-context.ts";

/**
 * Who builds on behalf of whom: a job, or an op that solves a nested definition. Both can do the same
 * things.
 */
export interface Builder {
  build(edge: Edge<LlbOp>, opts?: BuildOptions<OpResult>): Promise<CachedResult<OpResult>>;
  /** Runs `fn` as a vertex of its own in the progress. */
  inVertex<T>(vertex: InternalVertex, fn: (ctx: OpContext) => Promise<T>, signal?: AbortSignal): Promise<T>;
  /** The vertices that an edge was built with, inputs first; none when they are another's. */
  runners(edge: Edge<LlbOp>): readonly RanVertex<LlbOp, OpResult>[];
  /** What the jobs behind it have stored under a key. */
  jobValues(key: string): readonly unknown[];
  /** Reports a warning for any vertex. */
  warn(update: WarningUpdate & { readonly vertex: string }): void;
}

/** Keys of the values that the engine keeps with a job. */
export const JOB_ENTITLEMENTS = "llb.entitlements";
export const JOB_POLICY = "llb.sourcepolicy";
export const JOB_POLICY_SESSION = "llb.sourcepolicysession";
export const JOB_PROXY_NETWORK = "llb.proxy-network";
/** W3C's trace context for what a build's steps do, set by whoever records it. */
export const JOB_TRACE_PARENT = "trace-parent";
export const JOB_COMPATIBILITY = "llb.compatibility-version";
