import { CacheKey, type CacheRecord, contentKey } from "../cache/cache-key.ts";
import { postOrder, saveResult } from "../cache/cache-query.ts";
import type { Core, Task } from "./core.ts";
import { type EdgeState, inputLinks } from "./edge-state.ts";
import type { ContentKeyValue, OpState, WorkSlot } from "./op-state.ts";

/** Takes over what the op has made for this output, and stores it in the main cache. */
export function commitExec<TOp, TResult>(
  core: Core<TOp, TResult>,
  edge: EdgeState<TOp, TResult>,
  results: readonly TResult[],
): void {
  const { op, index } = edge;
  const value = results[index];
  if (value === undefined) {
    const error = new Error(
      `invalid response from exec need ${index} index but ${results.length} results received`,
    );
    edge.status = { kind: "failed", error };
    return;
  }
  const result = core.ports.results.clone(value);
  const keys = commitKeys(edge);
  const createdAtNs = core.ports.now();
  for (const key of keys) {
    const record = core.askCache(
      op,
      "failed to save cache",
      () =>
        saveResult(
          core.ports.main,
          { key, result, createdAtNs, supersede: op.ignoreCache },
          core.ports.newId,
        ),
      undefined,
    );
    if (record) key.records = [record, ...key.records.filter((r) => r.id !== record.id)];
    key.companions = [...keys.filter((other) => other !== key), ...op.builtKeys];
  }
  edge.status = { kind: "complete", result, keys };
  if (op.ignoreCache) return; // nobody may find old results through what was made anew
  for (const key of keys) if (!edge.keys.includes(key)) edge.keys.push(key);
}

function commitKeys<TOp, TResult>(edge: EdgeState<TOp, TResult>): CacheKey<TResult>[] {
  const { op, index } = edge;
  if (op.inputs.length === 0) return edge.rootKeys;
  const key = new CacheKey<TResult>({
    digest: op.maps[0]!.digest,
    output: index,
    vertex: op.vertex.digest,
    deps: edge.deps.map((dep) => inputLinks(dep)),
    exportCache: op.vertex.options.exportCache,
    origin: op,
  });
  key.alternates = edge.alternates;
  return [key];
}

/** Stores a result that was loaded from an imported cache, and what came with it, in the main one. */
export function adopt<TOp, TResult>(
  core: Core<TOp, TResult>,
  record: CacheRecord<TResult>,
  loaded: { readonly result: TResult; readonly parents?: ReadonlyMap<string, TResult> | undefined },
): void {
  const { source } = record;
  const { main, newId } = core.ports;
  for (const key of postOrder(record.key, (k) => k.deps.flat().map((link) => link.key))) {
    const id = key.ids.get(source);
    if (!id) continue;
    const result = key === record.key ? loaded.result : loaded.parents?.get(id);
    if (result === undefined) continue;
    const info = key === record.key ? record : source.keys.results(id)[0];
    if (info) saveResult(main, { key, result, createdAtNs: info.createdAtNs }, newId);
  }
}

/** The shared work that a task does. */
export function slotOf<TOp, TResult>(task: Task<TOp, TResult>): WorkSlot<TOp, TResult, unknown> {
  switch (task.what) {
    case "cacheMap":
      return task.op.map as WorkSlot<TOp, TResult, unknown>;
    case "exec":
      return task.op.exec as WorkSlot<TOp, TResult, unknown>;
    case "contentKey":
      return task.op.content[task.input!] as WorkSlot<TOp, TResult, unknown>;
    case "load":
      throw new Error("loading is no shared work");
  }
}

/** Notes the content digest of an input; `""` means that the op gave none. */
export function contentEnded<TOp, TResult>(
  slot: WorkSlot<TOp, TResult, ContentKeyValue<TResult>>,
  digest: string,
): void {
  slot.work = { kind: "done", value: digest === "" ? undefined : contentKey<TResult>(digest) };
}

/** Forgets everything of a vertex that its last holder has let go of. */
export function deleteOp<TOp, TResult>(core: Core<TOp, TResult>, op: OpState<TOp, TResult>): void {
  op.deleted = true;
  for (const edge of op.edges.values()) {
    core.index.remove(edge);
    for (const dep of edge.owner ? [] : edge.knownDeps) {
      if (dep.demand === 0) continue;
      dep.demand = 0;
      dep.edge.setDemand(dep, 0);
      core.touch(dep.edge);
    }
    if (edge.status.kind === "complete") core.release(edge.status.result);
    edge.status = { kind: "initial" };
  }
  if (op.exec.work.kind === "done") for (const result of op.exec.work.value) core.release(result);
  for (const task of core.tasks.values()) if (task.op === op) core.emit({ kind: "abort", task: task.id });
}
