import type { Job } from "@kiln/solver";
import type { LlbOp, OpContext, OpResult } from "../op-context.ts";
import type { Builder } from "./builder.ts";

/** Builds on behalf of a job. */
export function builderOfJob(job: Job<LlbOp, OpResult>): Builder {
  return {
    build: (edge, opts) => job.build(edge, opts),
    inVertex: (vertex, fn, signal) => job.inVertex(vertex, fn, signal),
    runners: (edge) => job.runners(edge),
    jobValues: (key) => {
      const value = job.getValue(key);
      return value === undefined ? [] : [value];
    },
    warn: (update) => job.progress.push({ kind: "warning", value: { ...update, level: update.level ?? 1 } }),
  };
}

/** Builds on behalf of an op that is running. */
export function builderOfContext(ctx: OpContext): Builder {
  return {
    build: (edge, opts) => ctx.build(edge, opts),
    inVertex: (vertex, fn) => ctx.inVertex(vertex, fn),
    // a nested build's steps aren't told of: whoever nests it says that its materials are incomplete
    runners: () => [],
    jobValues: (key) => ctx.jobValues(key),
    warn: (update) => ctx.progress.warning(update),
  };
}
