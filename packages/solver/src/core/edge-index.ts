import { isContentKey } from "../cache/cache-key.ts";
import { type EdgeState, inputLinks, resolve } from "./edge-state.ts";

/**
 * Finds edges of active vertices that are bound to give the same result: the same op digest, and per input
 * either the same edge and selector, or the same content. That another output is wanted makes no
 * difference: all outputs come from one run.
 *
 * Edges are filed under the names of their first input only; the others are compared. That keeps filing
 * linear, and the lists short, since edges with equal op and first input are mostly equal.
 */
export class EdgeIndex<TOp, TResult> {
  readonly #byName = new Map<string, Set<EdgeState<TOp, TResult>>>();

  /**
   * Files `edge` under what it is known as by now, and returns edges of other vertices that give the same
   * output, oldest first.
   */
  update(edge: EdgeState<TOp, TResult>): EdgeState<TOp, TResult>[] {
    const found = new Set<EdgeState<TOp, TResult>>();
    for (const name of namesOf(edge)) {
      let filed = this.#byName.get(name);
      if (!filed) {
        filed = new Set();
        this.#byName.set(name, filed);
      }
      for (const other of filed) {
        if (other.op !== edge.op && sameInputs(edge, other)) found.add(resolve(other.op.edge(edge.index)));
      }
      filed.add(edge);
      edge.indexed.add(name);
    }
    found.delete(edge);
    return [...found].sort((a, b) => a.uid - b.uid);
  }

  remove(edge: EdgeState<TOp, TResult>): void {
    for (const name of edge.indexed) {
      const filed = this.#byName.get(name);
      filed?.delete(edge);
      if (filed?.size === 0) this.#byName.delete(name);
    }
    edge.indexed.clear();
  }

  /** Number of names in use, for tests. */
  get size(): number {
    return this.#byName.size;
  }
}

function namesOf<TOp, TResult>(edge: EdgeState<TOp, TResult>): string[] {
  const { op } = edge;
  if (op.inputs.length === 0) return op.maps.map((map) => `root ${map.digest}`);
  const map = op.maps[0];
  const first = edge.deps[0];
  if (!map || !first) return [];
  const selector = map.deps[0]!.selector ?? "";
  const names = [`edge ${resolve(first.edge).uid} ${selector} ${map.digest}`];
  const content = contentDigest(edge, 0);
  if (content !== undefined) names.push(`content ${content} ${map.digest}`);
  return names;
}

function sameInputs<TOp, TResult>(a: EdgeState<TOp, TResult>, b: EdgeState<TOp, TResult>): boolean {
  if (a.op.inputs.length !== b.op.inputs.length) return false;
  return a.op.inputs.every((_, i) => {
    const content = contentDigest(a, i);
    if (content !== undefined && content === contentDigest(b, i)) return true;
    const selector = (e: EdgeState<TOp, TResult>): string => e.op.maps[0]?.deps[i]?.selector ?? "";
    return resolve(a.deps[i]!.edge) === resolve(b.deps[i]!.edge) && selector(a) === selector(b);
  });
}

function contentDigest<TOp, TResult>(edge: EdgeState<TOp, TResult>, input: number): string | undefined {
  const { work } = edge.op.content[input]!;
  return work.kind === "done" ? work.value?.digest : undefined;
}

/**
 * Which of two equal edges the other is to be merged into, if they may be merged at all: the one that is
 * further, or else that of the older vertex, so that all outputs of equal vertices end up at one. An edge
 * that ignores the cache never gives way to one that doesn't, and nothing may come to wait for itself.
 */
export function mergeOf<TOp, TResult>(
  a: EdgeState<TOp, TResult>,
  b: EdgeState<TOp, TResult>,
): { from: EdgeState<TOp, TResult>; into: EdgeState<TOp, TResult> } | undefined {
  const ahead = progress(a) - progress(b) || b.op.serial - a.op.serial;
  const tries = ahead > 0 ? [{ from: b, into: a }] : [{ from: a, into: b }];
  if (progress(a) === progress(b)) tries.push({ from: tries[0]!.into, into: tries[0]!.from });
  for (const { from, into } of tries) {
    if (from.op.ignoreCache && !into.op.ignoreCache) continue;
    if (from.settled || into.status.kind === "failed") continue;
    if (into.status.kind !== "complete" && (reaches(into, from) || reaches(from, into))) return undefined;
    return { from, into };
  }
  return undefined;
}

/** How much would be lost by giving an edge up. */
function progress<TOp, TResult>(edge: EdgeState<TOp, TResult>): number {
  if (edge.settled) return 3;
  const { work } = edge.op.exec;
  if (work.kind === "done" || work.kind === "running") return 2;
  return edge.load ? 1 : 0;
}

/** Whether `from` needs `target`. Inputs that both have in common can't lead to either. */
function reaches<TOp, TResult>(from: EdgeState<TOp, TResult>, target: EdgeState<TOp, TResult>): boolean {
  const shared = new Set(target.deps.map((dep) => resolve(dep.edge)));
  const waiting = [from];
  const seen = new Set<EdgeState<TOp, TResult>>(shared);
  for (let edge = waiting.pop(); edge !== undefined; edge = waiting.pop()) {
    if (edge === target || edge.op === target.op) return true;
    if (edge.status.kind === "complete" && edge !== from) continue;
    for (const next of neededBy(edge)) {
      if (seen.has(next)) continue;
      seen.add(next);
      waiting.push(next);
    }
  }
  return false;
}

/** What an edge waits for: its inputs, and what its op solves while it runs. */
function* neededBy<TOp, TResult>(edge: EdgeState<TOp, TResult>): Iterable<EdgeState<TOp, TResult>> {
  for (const input of edge.op.inputs) yield resolve(input.op.edge(input.index));
  for (const op of edge.op.held) for (const built of op.edges.values()) yield resolve(built);
}

/** The names of `edge`'s inputs that `into` does not have, for exports. */
export function moveAlternates<TOp, TResult>(
  edge: EdgeState<TOp, TResult>,
  into: EdgeState<TOp, TResult>,
): void {
  for (const dep of edge.deps) {
    if (resolve(dep.edge) === resolve(into.deps[dep.index]!.edge)) continue;
    for (const link of inputLinks(dep)) {
      if (!isContentKey(link.key)) into.alternates.push({ input: dep.index, link });
    }
  }
  into.alternates.push(...edge.alternates);
}
