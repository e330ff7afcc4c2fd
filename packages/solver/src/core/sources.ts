import type { CacheKey } from "../cache/cache-key.ts";
import { findRecords, findRoot } from "../cache/cache-query.ts";
import type { CacheSource, PendingCacheSource } from "../cache/cache-source.ts";
import type { Core } from "./core.ts";
import type { EdgeState } from "./edge-state.ts";
import type { OpState } from "./op-state.ts";

/** What questions to caches are called in warnings. */
export const QUERY = "error on cache query";

/** Notes a name that caches may know an edge's result under, with the results that they have. */
export function addKey<TOp, TResult>(
  core: Core<TOp, TResult>,
  edge: EdgeState<TOp, TResult>,
  key: CacheKey<TResult>,
): void {
  key.records = core.askCache(edge.op, QUERY, () => findRecords(key, core.ports.main), []);
  for (const record of key.records) if (!edge.tried.has(record.id)) edge.records.set(record.id, record);
  edge.keys.push(key);
}

/** Lets the vertex be answered by further caches; edges that aren't settled look into them. */
export function addSources<TOp, TResult>(
  core: Core<TOp, TResult>,
  op: OpState<TOp, TResult>,
  sources: readonly CacheSource<TResult>[],
): void {
  const fresh = sources.filter((source) => !op.sources.some((known) => known.id === source.id));
  if (fresh.length === 0) return;
  op.sources.push(...fresh);
  for (const edge of op.edges.values()) {
    if (edge.owner || edge.settled) continue;
    for (const key of edge.rootKeys) {
      if (op.ignoreCache || !core.askCache(op, QUERY, () => findRoot(fresh, key), false)) continue;
      if (edge.keys.includes(key)) edge.keys.splice(edge.keys.indexOf(key), 1);
      addKey(core, edge, key);
    }
    for (const dep of op.inputs.length > 0 ? edge.deps : []) {
      dep.seenKeys = 0;
      dep.seenContent = false;
      edge.dirtyDeps.add(dep);
    }
    core.touch(edge);
  }
}

/**
 * Lets the vertex be answered by caches that are still being opened. What nobody has begun to look at waits
 * for them before it decides that no cache has it; what is being looked at or made already goes on, and takes
 * from them what comes in time.
 */
export function awaitSources<TOp, TResult>(
  core: Core<TOp, TResult>,
  op: OpState<TOp, TResult>,
  pending: readonly PendingCacheSource<TResult>[],
): void {
  const untouched = [...op.edges.values()].every(
    (edge) => edge.owner || (edge.demand === 0 && edge.status.kind === "initial"),
  );
  const waits = op.waits || (untouched && !op.ignoreCache);
  for (const source of pending) {
    if (op.sources.some((known) => known.id === source.id)) continue;
    core.expected.get(source)?.add(op);
    if (waits) op.awaited.add(source);
  }
}

/** Event: a cache has been opened, or there is none. */
export function sourceOpened<TOp, TResult>(
  core: Core<TOp, TResult>,
  pending: PendingCacheSource<TResult>,
  source: CacheSource<TResult> | undefined,
): void {
  const ops = [...(core.expected.get(pending) ?? [])].sort((a, b) => a.serial - b.serial);
  core.expected.delete(pending);
  for (const op of ops) {
    if (op.deleted) continue;
    const waited = op.awaited.delete(pending);
    if (source !== undefined) addSources(core, op, [source]);
    if (!waited || op.waits) continue;
    for (const edge of op.edges.values()) {
      for (const dep of edge.owner ? [] : edge.knownDeps) edge.dirtyDeps.add(dep);
      core.touch(edge);
    }
  }
}

/** Lets `into` be answered by all caches that may answer for `from`. */
export function joinSources<TOp, TResult>(
  core: Core<TOp, TResult>,
  from: OpState<TOp, TResult>,
  into: OpState<TOp, TResult>,
): void {
  addSources(core, into, from.sources);
  for (const ops of core.expected.values()) if (ops.has(from)) ops.add(into);
}
