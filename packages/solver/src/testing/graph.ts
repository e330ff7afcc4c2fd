import { digestOfText } from "../digest.ts";
import type { Edge, Vertex, VertexOptions } from "../types.ts";

/** What a vertex made by {@link graph} does. */
export interface GraphOp {
  readonly name: string;
  /** Its cache map digests are made from these. */
  readonly seeds: readonly string[];
  readonly inputs: readonly { readonly content: boolean; readonly selector?: string | undefined }[];
  /** Outputs from inputs. */
  readonly values: (inputs: readonly string[]) => readonly string[];
  /** Solved by the vertex when it runs; its result is the vertex's. */
  readonly build?: Edge<GraphOp> | undefined;
}

/** What differs from what the notation says, by vertex name. */
export interface GraphChange {
  readonly seeds?: readonly string[];
  readonly options?: VertexOptions;
  readonly values?: (inputs: readonly string[]) => readonly string[];
  readonly build?: Edge<GraphOp>;
  /** Makes another vertex (another digest) of the same op. */
  readonly variant?: string;
}

/**
 * Makes vertices from a text: `;` or a line break between vertices, `name: inputs`, and
 *
 * - `name=seed` for the seed of the op's digest, which is the name otherwise,
 * - `name!` for a vertex that ignores the cache,
 * - `input~` for an input with a content key,
 * - `input/1` for output 1 of an input, `input@sel` for a selector.
 *
 * A vertex has two outputs: `seed(inputs…)` and the same with `'`.
 */
export function graph(
  text: string,
  changes: Readonly<Record<string, GraphChange>> = {},
): Readonly<Record<string, Vertex<GraphOp>>> {
  const out: Record<string, Vertex<GraphOp>> = Object.create(null);
  for (const line of text.split(/[;\n]/)) {
    if (line.trim() === "") continue;
    const [head = "", inputs = ""] = line.split(":");
    const [, name = "", bang, , seed] = /^\s*([^\s=!]+)(!?)(=(\S+))?\s*$/.exec(head) ?? [];
    const change = changes[name] ?? {};
    out[name] = makeVertex(
      { name, seed: seed ?? name, ignoreCache: bang === "!" },
      inputs
        .trim()
        .split(/\s+/)
        .filter((s) => s !== "")
        .map((s) => parseInput(s, out)),
      change,
    );
  }
  return out;
}

interface Head {
  readonly name: string;
  readonly seed: string;
  readonly ignoreCache: boolean;
}

interface ParsedInput {
  readonly edge: Edge<GraphOp>;
  readonly content: boolean;
  readonly selector: string | undefined;
}

function parseInput(text: string, known: Readonly<Record<string, Vertex<GraphOp>>>): ParsedInput {
  const [, name = "", , index, , selector, tilde] = /^([^/@~]+)(\/(\d+))?(@([^~]+))?(~?)$/.exec(text) ?? [];
  const vertex = known[name];
  if (!vertex) throw new Error(`no vertex ${name}`);
  return { edge: { vertex, index: Number(index ?? 0) }, content: tilde === "~", selector };
}

function makeVertex(head: Head, inputs: readonly ParsedInput[], change: GraphChange): Vertex<GraphOp> {
  const { name, seed } = head;
  const identity = inputs.map((i) => `${i.edge.vertex.digest}/${i.edge.index}${i.selector}${i.content}`);
  const values = (given: readonly string[]): string[] => {
    const value = given.length === 0 ? seed : `${seed}(${given.join(",")})`;
    return [value, `${value}'`];
  };
  return {
    name,
    digest: digestOfText(`${name} ${seed} ${change.variant ?? ""} ${identity.join(" ")}`),
    inputs: inputs.map((input) => input.edge),
    options: change.options ?? (head.ignoreCache ? { ignoreCache: true } : {}),
    op: {
      name,
      seeds: change.seeds ?? [seed],
      inputs: inputs.map(({ content, selector }) => ({ content, selector })),
      values: change.values ?? values,
      build: change.build,
    },
  };
}

/** What an edge must give, worked out without any cache. */
export function referenceValue(edge: Edge<GraphOp>): string {
  const known = new Map<Vertex<GraphOp>, readonly string[]>();
  const valuesOf = (vertex: Vertex<GraphOp>): readonly string[] => {
    let values = known.get(vertex);
    if (!values) {
      values = vertex.op.values(vertex.inputs.map((input) => valuesOf(input.vertex)[input.index]!));
      known.set(vertex, values);
    }
    return values;
  };
  return valuesOf(edge.vertex)[edge.index]!;
}
