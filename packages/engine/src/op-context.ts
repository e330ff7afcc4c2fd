import type { LinuxResources, Op as LlbOperation } from "@kiln/api/pb";
import type { OpRunner, ProgressWriter, OpContext as SolverOpContext, Vertex } from "@kiln/solver";
import type { ImmutableRef } from "@kiln/store";

/** One output of an op: a file tree, or (without ref) the empty one. The holder releases it. */
export interface OpResult {
  readonly ref: ImmutableRef | undefined;
}

/** What a vertex of a build graph carries for the engine. */
export interface LlbOp {
  /** As received; never marshalled again. */
  readonly op: LlbOperation;
  /** Digest in the definition that the client sent, before any rewriting. */
  readonly originalDigest: string;
  readonly linuxResources: LinuxResources | undefined;
  /** A step of a build with a proxy network, which is to go out through the proxy. */
  readonly proxied?: boolean | undefined;
}

/** A vertex of a build graph. */
export type LlbVertex = Vertex<LlbOp>;

/** What everything gets that works on behalf of builds (see the solver's type). */
export type OpContext = SolverOpContext<LlbOp, OpResult>;

/** An op bound to a worker; what the solver calls. */
export type Op = OpRunner<LlbOp, OpResult>;

/** Reports `id` as started, runs `work`, and reports its end, whatever that is. */
export async function withStatus<T>(
  progress: ProgressWriter,
  id: string,
  work: () => Promise<T>,
): Promise<T> {
  const startedMs = Date.now();
  progress.status({ id, startedMs });
  try {
    return await work();
  } finally {
    progress.status({ id, startedMs, completedMs: Date.now() });
  }
}
