import { BuildError } from "@kiln/base";
import { postOrder } from "./cache/cache-query.ts";
import type { CacheSource, PendingCacheSource } from "./cache/cache-source.ts";
import type { Core } from "./core/core.ts";
import { type Holder, OpState } from "./core/op-state.ts";
import { addSources, awaitSources } from "./core/sources.ts";
import { hold } from "./core/step.ts";
import { digestOfText } from "./digest.ts";
import type { Vertex } from "./types.ts";

/** Most vertices in one graph. */
const MAX_GRAPH_VERTICES = 1_000_000;

/** What loading works on. */
export interface GraphLoader<TOp, TResult> {
  readonly core: Core<TOp, TResult>;
  readonly actives: Map<string, OpState<TOp, TResult>>;
  readonly mergeMetadata?: ((a: unknown, b: unknown) => unknown) | undefined;
  /** Told of each vertex that `holder` has now. */
  readonly onHeld: (op: OpState<TOp, TResult>) => void;
}

/** For whom vertices are loaded. */
export interface LoadRequest<TOp, TResult> {
  readonly holder: Holder<TOp, TResult>;
  readonly sources: readonly CacheSource<TResult>[];
  /** Expected by the core. */
  readonly pending: readonly PendingCacheSource<TResult>[];
}

/**
 * Makes all vertices below `root` active for a holder, and returns the state of `root`.
 *
 * A vertex that ignores the cache is kept apart from one of the same digest that doesn't, under the digest
 * of `<digest>-ignorecache`; a later vertex that doesn't ignore it joins the one that does.
 *
 * @throws invalid_argument for cycles and negative indexes, resource_exhausted for oversized graphs.
 */
export function loadGraph<TOp, TResult>(
  loader: GraphLoader<TOp, TResult>,
  root: Vertex<TOp>,
  request: LoadRequest<TOp, TResult>,
): OpState<TOp, TResult> {
  const order = postOrder(root, (vertex) => vertex.inputs.map((edge) => edge.vertex));
  if (order.length > MAX_GRAPH_VERTICES) {
    throw new BuildError("resource_exhausted", `build graph has more than ${MAX_GRAPH_VERTICES} vertices`);
  }
  checkGraph(order);
  const loaded = new Map<Vertex<TOp>, OpState<TOp, TResult>>();
  for (const vertex of order) loaded.set(vertex, loadVertex(loader, vertex, { request, loaded }));
  return loaded.get(root)!;
}

/** Name among the active vertices of one that ignores the cache and is kept apart; its digest is that of this. */
export function apartName(digest: string): string {
  return `${digest}-ignorecache`;
}

function checkGraph<TOp>(order: readonly Vertex<TOp>[]): void {
  const seen = new Set<Vertex<TOp>>();
  for (const vertex of order) {
    for (const { vertex: input, index } of vertex.inputs) {
      if (!seen.has(input))
        throw new BuildError("invalid_argument", `cycle in build graph at ${vertex.digest}`);
      if (!Number.isSafeInteger(index) || index < 0) {
        throw new BuildError("invalid_argument", `invalid input index ${index} of ${vertex.digest}`);
      }
    }
    seen.add(vertex);
  }
}

interface Loading<TOp, TResult> {
  readonly request: LoadRequest<TOp, TResult>;
  readonly loaded: ReadonlyMap<Vertex<TOp>, OpState<TOp, TResult>>;
}

function loadVertex<TOp, TResult>(
  loader: GraphLoader<TOp, TResult>,
  vertex: Vertex<TOp>,
  { request, loaded }: Loading<TOp, TResult>,
): OpState<TOp, TResult> {
  const { actives, core } = loader;
  const apart = apartName(vertex.digest);
  let op = actives.get(apart);
  if (!op) {
    op = actives.get(vertex.digest);
    const keepApart = op !== undefined && !op.ignoreCache && vertex.options.ignoreCache === true;
    if (!op || keepApart) {
      const digest = keepApart ? digestOfText(apart) : vertex.digest;
      const name = keepApart ? apart : vertex.digest;
      const inputs = vertex.inputs.map((edge) => ({ op: loaded.get(edge.vertex)!, index: edge.index }));
      const own = {
        ...vertex,
        digest,
        inputs: inputs.map((input) => ({ vertex: input.op.vertex, index: input.index })),
      };
      op = new OpState({ vertex: own, name, originalDigest: vertex.digest, inputs, main: core.ports.main });
      actives.set(name, op);
    } else if (vertex.inputs.length !== op.inputs.length) {
      throw new BuildError("invalid_argument", `two different vertices have the digest ${vertex.digest}`);
    }
  }
  const { metadata } = vertex.options;
  if (metadata !== undefined && metadata !== op.metadata) {
    op.metadata =
      op.metadata === undefined ? metadata : (loader.mergeMetadata?.(op.metadata, metadata) ?? metadata);
  }
  addSources(core, op, request.sources);
  if (request.pending.length > 0) awaitSources(core, op, request.pending);
  hold(request.holder, op);
  loader.onHeld(op);
  return op;
}
