/** Places the nodes of a graph in columns, in four steps: columns, lanes for long lines, few crossings, done. */
import { compareStrings } from "@kiln/hcl";

/** A node with those that stand left of it. */
export interface LayoutNode {
  readonly id: string;
  readonly needs: readonly { readonly id: string }[];
}

/** A place in a column: a node's, or without one a lane for a line that passes. */
export interface Slot<T> {
  readonly id: string;
  readonly node: T | undefined;
}

/** Columns from left to right, and the lanes of lines that pass columns. */
export interface Layout<T> {
  readonly columns: readonly (readonly Slot<T>[])[];
  /** Ids of slots by the ids of a line's ends. */
  lanes(from: string, to: string): readonly string[];
}

const SWEEPS = 8;
/** Further long lines go straight, behind boxes: a picture of so many is no help anyway. */
const MAX_LANES = 5000;

/** Lays a graph out. Cycles are cut somewhere. */
export function layOut<T extends LayoutNode>(nodes: readonly T[]): Layout<T> {
  const depth = depthsOf(nodes);
  const columns: Slot<T>[][] = [];
  const put = (at: number, slot: Slot<T>): void => {
    columns[at] ??= [];
    columns[at].push(slot);
  };
  for (const node of [...nodes].sort((a, b) => compareStrings(a.id, b.id)))
    put(depth.get(node.id)!, { id: node.id, node });
  const neighbours = new Map<string, string[]>();
  const lanes = new Map<string, readonly string[]>();
  let laneCount = 0;
  for (const { id: to, needs } of nodes) {
    for (const { id: from } of needs) {
      const path: string[] = [];
      for (let at = depth.get(from)! + 1; at < depth.get(to)! && laneCount < MAX_LANES; at++) {
        const id = `lane ${laneCount++}`;
        path.push(id);
        put(at, { id, node: undefined });
      }
      lanes.set(`${from}\n${to}`, path);
      connect(neighbours, [from, ...path, to]);
    }
  }
  const filled = Array.from(columns, (column) => column ?? []);
  order(filled, neighbours);
  return { columns: filled, lanes: (from, to) => lanes.get(`${from}\n${to}`) ?? [] };
}

function connect(neighbours: Map<string, string[]>, path: readonly string[]): void {
  for (const [i, id] of path.entries()) {
    if (i === 0) continue;
    const before = path[i - 1]!;
    neighbours.set(id, [...(neighbours.get(id) ?? []), before]);
    neighbours.set(before, [...(neighbours.get(before) ?? []), id]);
  }
}

/** The column of each node: right of all that it needs, and as near to what needs it as that allows. */
function depthsOf(nodes: readonly LayoutNode[]): Map<string, number> {
  const byId = new Map(nodes.map((node) => [node.id, node]));
  const depth = new Map<string, number>();
  const done: LayoutNode[] = [];
  const open = nodes.map((node) => ({ node, entered: false }));
  while (open.length > 0) {
    const step = open.pop()!;
    const { id, needs } = step.node;
    if (step.entered) {
      depth.set(id, Math.max(-1, ...needs.map((other) => depth.get(other.id) ?? 0)) + 1);
      done.push(step.node);
      continue;
    }
    if (depth.has(id)) continue;
    depth.set(id, 0);
    open.push({ node: step.node, entered: true });
    for (const other of needs)
      if (!depth.has(other.id)) open.push({ node: byId.get(other.id)!, entered: false });
  }
  const limit = new Map<string, number>();
  // Whoever needs a node comes after it in `done`.
  for (const { id, needs } of done.toReversed()) {
    const right = limit.get(id);
    if (right !== undefined && right - 1 > depth.get(id)!) depth.set(id, right - 1);
    for (const other of needs) {
      const at = depth.get(id)!;
      limit.set(other.id, Math.min(limit.get(other.id) ?? at, at));
    }
  }
  return depth;
}

/** Brings each column in the order of what its slots are connected with, so that few lines cross. */
function order<T>(columns: Slot<T>[][], neighbours: ReadonlyMap<string, readonly string[]>): void {
  const middle = (column: readonly Slot<T>[], row: number): number => row - (column.length - 1) / 2;
  const place = new Map<string, number>();
  const note = (column: readonly Slot<T>[]): void => {
    for (const [row, { id }] of column.entries()) place.set(id, middle(column, row));
  };
  for (const column of columns) note(column);
  for (let sweep = 0; sweep < SWEEPS; sweep++) {
    for (const column of sweep % 2 === 0 ? columns : columns.toReversed()) {
      const weight = new Map(
        column.map(({ id }) => {
          const places = (neighbours.get(id) ?? []).map((other) => place.get(other)!);
          const sum = places.reduce((a, b) => a + b, 0);
          return [id, places.length === 0 ? place.get(id)! : sum / places.length] as const;
        }),
      );
      column.sort((a, b) => weight.get(a.id)! - weight.get(b.id)! || place.get(a.id)! - place.get(b.id)!);
      note(column);
    }
  }
}
