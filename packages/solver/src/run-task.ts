import { isCanceled, wrapError } from "@kiln/base";
import type { Command, TaskEnd } from "./core/core.ts";
import type { OpState } from "./core/op-state.ts";
import { attachVertex, progressErrorText } from "./failure.ts";
import type { OpContexts } from "./op-contexts.ts";
import type { Failure } from "./types.ts";

/** The commands that are tasks. */
export type TaskCommand<TOp, TResult> = Of<
  Command<TOp, TResult>,
  "cacheMap" | "exec" | "contentKey" | "load"
>;
type Of<C, K> = C extends { readonly kind: K } ? C : never;

/** Runs one task of the core; never rejects. Vertices start and complete in here. */
export async function runTask<TOp, TResult>(
  contexts: OpContexts<TOp, TResult>,
  command: TaskCommand<TOp, TResult>,
  signal: AbortSignal,
): Promise<TaskEnd<TOp, TResult>> {
  try {
    switch (command.kind) {
      case "cacheMap":
        return await runCacheMap(contexts, command, signal);
      case "exec":
        return await runExec(contexts, command, signal);
      case "contentKey":
        return await runContentKey(contexts, command, signal);
      case "load":
        return await runLoad(contexts, command, signal);
    }
  } catch (error) {
    return { kind: "failed", error };
  }
}

async function runCacheMap<TOp, TResult>(
  contexts: OpContexts<TOp, TResult>,
  { op, index }: Of<Command<TOp, TResult>, "cacheMap">,
  signal: AbortSignal,
): Promise<TaskEnd<TOp, TResult>> {
  const source = contexts.sourceOf(op);
  const visible = op.inputs.length === 0; // asking a source for its key is work that people wait for
  try {
    const runner = contexts.runnerOf(op);
    if (visible) source.start(false);
    const answer = await runner.cacheMap(index, contexts.of(op, signal));
    if (visible) source.complete(false);
    return { kind: "cacheMap", answer };
  } catch (error) {
    // a further key that nobody waits for any more: the source isn't told of as cancelled for that
    const isUnneeded = index > 0 && signal.aborted;
    if (visible) source.complete(false, isUnneeded ? undefined : progressErrorText(error));
    throw wrapError(described(contexts, op, error, { phase: "cacheMap" }), "failed to load cache key");
  }
}

async function runExec<TOp, TResult>(
  contexts: OpContexts<TOp, TResult>,
  { op, inputs }: Of<Command<TOp, TResult>, "exec">,
  signal: AbortSignal,
): Promise<TaskEnd<TOp, TResult>> {
  const source = contexts.sourceOf(op);
  try {
    const runner = contexts.runnerOf(op);
    const ctx = contexts.of(op, signal);
    const release = await acquire(() => runner.acquire(ctx));
    try {
      signal.throwIfAborted();
      source.start(false);
      const results = await runner.exec(inputs, ctx);
      source.complete(false);
      return { kind: "exec", results };
    } catch (error) {
      source.complete(false, progressErrorText(error));
      throw error;
    } finally {
      release();
    }
  } catch (error) {
    throw described(contexts, op, error, { phase: "exec" });
  }
}

async function acquire(fn: () => Promise<() => void>): Promise<() => void> {
  try {
    return await fn();
  } catch (error) {
    throw wrapError(error, "acquire op resources");
  }
}

async function runContentKey<TOp, TResult>(
  contexts: OpContexts<TOp, TResult>,
  command: Of<Command<TOp, TResult>, "contentKey">,
  signal: AbortSignal,
): Promise<TaskEnd<TOp, TResult>> {
  const { op, inputOp, input, spec, result } = command;
  try {
    await spec.preprocess?.(result, contexts.of(inputOp, signal));
    const digest = (await spec.computeContentKey?.(result, contexts.of(op, signal))) ?? "";
    return { kind: "contentKey", digest };
  } catch (error) {
    const source = contexts.sourceOf(op);
    source.start(false);
    source.complete(false, progressErrorText(error));
    const where = { phase: "contentKey", input, result } as const;
    throw wrapError(described(contexts, op, error, where), "failed to compute cache key");
  }
}

async function runLoad<TOp, TResult>(
  contexts: OpContexts<TOp, TResult>,
  { op, record, withParents }: Of<Command<TOp, TResult>, "load">,
  signal: AbortSignal,
): Promise<TaskEnd<TOp, TResult>> {
  const source = contexts.sourceOf(op);
  const { results, keys } = record.source;
  const id = record.key.ids.get(record.source) ?? "";
  source.start(true);
  try {
    const info = keys.result(id, record.id) ?? record;
    const ctx = contexts.of(op, signal);
    if (withParents && results.loadWithParents) {
      const parents = new Map(await results.loadWithParents(id, info, ctx));
      const result = parents.get(id);
      if (result !== undefined) {
        parents.delete(id);
        source.complete(true);
        return { kind: "load", result, parents };
      }
      for (const other of parents.values()) void contexts.options.results.release(other);
      throw new Error("failed to load deleted cache");
    }
    const result = await results.load(info, ctx);
    source.complete(true);
    return { kind: "load", result };
  } catch (error) {
    // the op runs instead: no failure of the vertex; the core warns. What nobody waits for any more was cached.
    if (isCanceled(error) || signal.aborted) source.complete(true);
    throw error;
  }
}

const NEVER = new AbortController().signal;

function described<TOp, TResult>(
  contexts: OpContexts<TOp, TResult>,
  op: OpState<TOp, TResult>,
  error: unknown,
  where: Pick<Failure<TOp, TResult>, "phase" | "input" | "result">,
): unknown {
  const { vertex, originalDigest } = op;
  const { describeFailure } = contexts.options;
  // the signal is of no interest to who only leaves things to clean up
  const { cleanup } = contexts.of(op, NEVER);
  const out = describeFailure ? describeFailure(error, { vertex, originalDigest, cleanup, ...where }) : error;
  attachVertex(out, originalDigest);
  return out;
}
