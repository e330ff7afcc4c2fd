import { type Layout, layOut, type Slot } from "./graph-layout.ts";

/** One target of a graph. */
export interface GraphTarget {
  readonly name: string;
  readonly description?: string;
  readonly platforms?: readonly string[];
  /** Named contexts; `target:NAME` links to another target. */
  readonly contexts?: ReadonlyMap<string, unknown>;
  readonly inherits?: readonly string[];
  /** False for a target that is only inherited from. */
  readonly built?: boolean;
}

/** One group of a graph. */
export interface GraphGroup {
  readonly name: string;
  readonly description?: string;
  readonly targets: readonly string[];
}

/** What a graph is drawn of; a `BakePlan` has it. */
export interface GraphSource {
  readonly targets: readonly GraphTarget[];
  readonly groups?: readonly GraphGroup[];
}

type EdgeKind = "link" | "inherits" | "member";

interface Node {
  /** Groups and targets may have the same name. */
  readonly id: string;
  readonly kind: "target" | "ancestor" | "group";
  readonly name: string;
  readonly note: string;
  readonly description: string;
  readonly needs: readonly { readonly id: string; readonly kind: EdgeKind }[];
}

interface Box {
  readonly x: number;
  readonly y: number;
  readonly width: number;
  readonly node: Node;
}

const ROW = 64;
const BOX = 40;
const GAP = 70;
const MARGIN = 16;
const LETTER = 8;
const LEGEND = 34;
const PREFIX = "target:";
/** Room for a line between boxes. */
const LANE = 22;

/** Where a line passes a column: from the left edge to the right one, at a height. */
interface Lane {
  readonly x: number;
  readonly y: number;
  readonly width: number;
}

interface Picture {
  readonly boxes: ReadonlyMap<string, Box>;
  readonly points: ReadonlyMap<string, Lane>;
  readonly lanes: Layout<Node>["lanes"];
  readonly width: number;
  /** Where the boxes end. */
  readonly below: number;
}

/** Strokes by kind of edge. */
const EDGES: Readonly<Record<EdgeKind, { readonly style: string; readonly label: string }>> = {
  link: { style: 'stroke="#1f6feb" stroke-width="1.6"', label: "context" },
  inherits: { style: 'stroke="#8250df" stroke-width="1.4" stroke-dasharray="6 4"', label: "inherits" },
  member: { style: 'stroke="#8c959f" stroke-width="1.2"', label: "in group" },
};

const BOXES: Readonly<Record<Node["kind"], string>> = {
  target: 'fill="#ffffff" stroke="#24292f"',
  ancestor: 'fill="#fbfaff" stroke="#8250df" stroke-dasharray="6 4"',
  group: 'fill="#f3f4f6" stroke="#8c959f"',
};

const XML_NAMES: Readonly<Record<string, string>> = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  '"': "&quot;",
  "'": "&#39;",
};

/** Text for XML 1.0: markup is escaped, characters that no document may have become `?`. */
function escapeXml(text: string): string {
  return text
    .toWellFormed()
    .replaceAll(/[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]/g, "?")
    .replaceAll(/[&<>"']/g, (char) => XML_NAMES[char]!);
}

function contextText(value: unknown): string {
  if (typeof value === "string") return value;
  const path = typeof value === "object" && value !== null ? (value as { path?: unknown }).path : undefined;
  return typeof path === "string" ? path : "";
}

function nodesOf({ targets, groups = [] }: GraphSource): Node[] {
  const targetNames = new Set(targets.map(({ name }) => name));
  const groupNames = new Set(groups.map(({ name }) => name));
  const targetNodes = targets.map((target): Node => {
    const { name, description = "", platforms = [], contexts = new Map(), inherits = [], built } = target;
    const links = [...contexts.values()]
      .map(contextText)
      .filter((text) => text.startsWith(PREFIX))
      .map((text) => text.slice(PREFIX.length));
    const edges = (names: readonly string[], kind: EdgeKind): { id: string; kind: EdgeKind }[] =>
      [...new Set(names)]
        .filter((other) => targetNames.has(other) && other !== name)
        .map((other) => ({ id: `target ${other}`, kind }));
    return {
      id: `target ${name}`,
      kind: built === false ? "ancestor" : "target",
      name,
      note: platforms.join(" "),
      description,
      needs: [...edges(links, "link"), ...edges(inherits, "inherits")],
    };
  });
  const groupNodes = groups.map(({ name, description = "", targets: members }): Node => {
    // A group is named before a target of the same name, except inside itself.
    const needs = [...new Set(members)].flatMap((member): { id: string; kind: EdgeKind }[] => {
      if (groupNames.has(member) && member !== name) return [{ id: `group ${member}`, kind: "member" }];
      return targetNames.has(member) ? [{ id: `target ${member}`, kind: "member" }] : [];
    });
    return { id: `group ${name}`, kind: "group", name, note: "group", description, needs };
  });
  return [...targetNodes, ...groupNodes];
}

function widthOf(text: string): number {
  return [...text].reduce((sum, char) => sum + (char.codePointAt(0)! >= 0x1100 ? 2 : 1), 0);
}

function boxWidth({ name, note }: Node): number {
  return Math.max(widthOf(name), widthOf(note), 8) * LETTER + 24;
}

/** Gives every node its box, and every edge the points between its ends. */
function placed(nodes: readonly Node[]): Picture {
  const { columns, lanes } = layOut(nodes);
  const boxes = new Map<string, Box>();
  const points = new Map<string, Lane>();
  const heightOf = (column: readonly Slot<Node>[]): number =>
    column.reduce((sum, { node }) => sum + (node === undefined ? LANE : ROW), 0);
  const tallest = Math.max(0, ...columns.map(heightOf));
  let x = MARGIN;
  for (const column of columns) {
    const width = Math.max(0, ...column.map(({ node }) => (node === undefined ? 0 : boxWidth(node))));
    let y = MARGIN + (tallest - heightOf(column)) / 2;
    for (const { id, node } of column) {
      if (node === undefined) points.set(id, { x, y: y + LANE / 2, width });
      else boxes.set(id, { x, y: y + (ROW - BOX) / 2, width, node });
      y += node === undefined ? LANE : ROW;
    }
    x += width + GAP;
  }
  return { boxes, points, lanes, width: Math.max(x - GAP + MARGIN, 340), below: MARGIN + tallest };
}

/** A curve from the right of one box to the left of another, straight through the lanes between them. */
function drawEdge(
  from: Box,
  to: Box,
  edge: { readonly kind: EdgeKind; readonly lanes: readonly Lane[] },
): string {
  let [x, y] = [from.x + from.width, from.y + BOX / 2];
  let path = `M${x} ${y}`;
  const curve = (x2: number, y2: number): void => {
    const middle = (x + x2) / 2;
    path += `C${middle} ${y} ${middle} ${y2} ${x2} ${y2}`;
    [x, y] = [x2, y2];
  };
  for (const lane of edge.lanes) {
    curve(lane.x, lane.y);
    x += lane.width;
    path += `H${x}`;
  }
  curve(to.x, to.y + BOX / 2);
  return `<path d="${path}" fill="none" ${EDGES[edge.kind].style} marker-end="url(#${edge.kind})"/>`;
}

function drawBox({ x, y, width, node }: Box): string {
  const middle = x + width / 2;
  const text = (content: string, at: number, size: number): string =>
    `<text x="${middle}" y="${at}" font-size="${size}" text-anchor="middle" fill="#24292f">${escapeXml(content)}</text>`;
  const lines =
    node.note === ""
      ? [text(node.name, y + 25, 13)]
      : [text(node.name, y + 18, 13), text(node.note, y + 33, 10)];
  const title = node.description === "" ? node.name : `${node.name}: ${node.description}`;
  const radius = node.kind === "group" ? BOX / 2 : 6;
  return `<g><title>${escapeXml(title)}</title><rect x="${x}" y="${y}" width="${width}" height="${BOX}" rx="${radius}" ${BOXES[node.kind]}/>${lines.join("")}</g>`;
}

function drawLegend(kinds: ReadonlySet<EdgeKind>, y: number): string[] {
  return [...kinds].map((kind, i) => {
    const x = MARGIN + i * 105;
    return `<path d="M${x} ${y}H${x + 30}" fill="none" ${EDGES[kind].style} marker-end="url(#${kind})"/><text x="${x + 36}" y="${y + 4}" font-size="11" fill="#57606a">${EDGES[kind].label}</text>`;
  });
}

/** Draws groups, targets, the contexts that link them and what they inherit, as SVG. Arrows go with the data. */
export function graphSvg(source: GraphSource): string {
  const { boxes, points, lanes, width, below } = placed(nodesOf(source));
  const edges = [...boxes.values()].flatMap((to) =>
    to.node.needs.map(({ id, kind }) => ({ from: boxes.get(id)!, to, kind })),
  );
  const lanesOf = (from: Box, to: Box): Lane[] =>
    lanes(from.node.id, to.node.id).flatMap((id) => {
      const lane = points.get(id);
      return lane === undefined ? [] : [lane];
    });
  const order: readonly EdgeKind[] = ["link", "inherits", "member"];
  const kinds = new Set(order.filter((kind) => edges.some((edge) => edge.kind === kind)));
  const height = below + (kinds.size === 0 ? MARGIN : LEGEND);
  const markers = [...kinds].map((kind) => {
    const color = /stroke="(#\w+)"/.exec(EDGES[kind].style)![1];
    return `<marker id="${kind}" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" markerUnits="userSpaceOnUse" orient="auto"><path d="M0 0L8 4L0 8z" fill="${color}"/></marker>`;
  });
  const parts = [
    ...(markers.length === 0 ? [] : [`<defs>${markers.join("")}</defs>`]),
    `<rect width="${width}" height="${height}" fill="#ffffff"/>`,
    ...edges.map(({ from, to, kind }) => drawEdge(from, to, { kind, lanes: lanesOf(from, to) })),
    ...[...boxes.values()].map(drawBox),
    ...drawLegend(kinds, below + 8),
  ];
  const open = `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}" font-family="ui-monospace, monospace">`;
  return `${open}\n${parts.join("\n")}\n</svg>\n`;
}
