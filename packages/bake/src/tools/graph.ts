import { compareStrings } from "@kiln/hcl";

/** What a graph is drawn of; a `BakePlan` has it. */
export interface GraphSource {
  readonly targets: readonly {
    readonly name: string;
    readonly description?: string;
    readonly platforms?: readonly string[];
    readonly contexts?: ReadonlyMap<string, unknown>;
  }[];
}

interface Node {
  readonly name: string;
  readonly note: string;
  readonly needs: readonly string[];
}

const ROW = 64;
const BOX = 40;
const GAP = 60;
const LETTER = 7.5;
const PREFIX = "target:";

function escapeXml(text: string): string {
  const names: Readonly<Record<string, string>> = {
    "&": "&amp;",
    "<": "&lt;",
    ">": "&gt;",
    '"': "&quot;",
    "'": "&#39;",
  };
  return text
    .replaceAll(/[\u0000-\u0008\u000b\u000c\u000e-\u001f]/g, "?")
    .replaceAll(/[&<>"']/g, (char) => names[char]!);
}

function contextText(value: unknown): string {
  if (typeof value === "string") return value;
  const path = typeof value === "object" && value !== null ? (value as { path?: unknown }).path : undefined;
  return typeof path === "string" ? path : "";
}

function nodesOf({ targets }: GraphSource): Node[] {
  const names = new Set(targets.map(({ name }) => name));
  return targets.map(({ name, platforms = [], contexts = new Map() }) => ({
    name,
    note: platforms.join(" "),
    needs: [...contexts.values()]
      .map(contextText)
      .filter((text) => text.startsWith(PREFIX))
      .map((text) => text.slice(PREFIX.length))
      .filter((other) => names.has(other) && other !== name),
  }));
}

/** Columns: a target stands right of all that it needs. Cycles are cut. */
function columnsOf(nodes: readonly Node[]): Node[][] {
  const byName = new Map(nodes.map((node) => [node.name, node]));
  const depth = new Map<string, number>();
  const open = nodes.map((node) => ({ node, entered: false }));
  while (open.length > 0) {
    const step = open.pop()!;
    const { name, needs } = step.node;
    if (step.entered) {
      depth.set(name, Math.max(-1, ...needs.map((other) => depth.get(other) ?? 0)) + 1);
      continue;
    }
    if (depth.has(name)) continue;
    depth.set(name, 0);
    open.push({ node: step.node, entered: true });
    for (const other of needs) if (!depth.has(other)) open.push({ node: byName.get(other)!, entered: false });
  }
  const columns: Node[][] = [];
  for (const node of [...nodes].sort((a, b) => compareStrings(a.name, b.name))) {
    const at = depth.get(node.name) ?? 0;
    columns[at] ??= [];
    columns[at].push(node);
  }
  return Array.from(columns, (column) => column ?? []);
}

/** Draws targets and the contexts that link them, as SVG. */
export function graphSvg(source: GraphSource): string {
  const columns = columnsOf(nodesOf(source));
  const boxes = new Map<
    string,
    { readonly x: number; readonly y: number; readonly width: number; readonly node: Node }
  >();
  let x = 10;
  for (const column of columns) {
    const width =
      Math.ceil(Math.max(...column.map(({ name, note }) => Math.max(name.length, note.length)), 8) * LETTER) +
      24;
    for (const [row, node] of column.entries()) boxes.set(node.name, { x, y: 10 + row * ROW, width, node });
    x += width + GAP;
  }
  const height = 20 + Math.max(0, ...columns.map(({ length }) => length)) * ROW;
  const parts: string[] = [];
  for (const to of boxes.values()) {
    for (const need of to.node.needs) {
      const from = boxes.get(need)!;
      const [x1, y1, y2] = [from.x + from.width, from.y + BOX / 2, to.y + BOX / 2];
      const middle = (x1 + to.x) / 2;
      parts.push(
        `<path d="M${x1} ${y1}C${middle} ${y1} ${middle} ${y2} ${to.x} ${y2}" fill="none" stroke="#888"/>`,
      );
    }
  }
  for (const { x: left, y, width, node } of boxes.values()) {
    const middle = left + width / 2;
    const lines =
      node.note === ""
        ? [[node.name, y + 25]]
        : [
            [node.name, y + 18],
            [node.note, y + 33],
          ];
    parts.push(
      `<rect x="${left}" y="${y}" width="${width}" height="${BOX}" rx="6" fill="#fff" stroke="#444"/>`,
    );
    for (const [i, [text, at]] of lines.entries()) {
      const size = i === 0 ? 13 : 10;
      parts.push(
        `<text x="${middle}" y="${at}" font-size="${size}" text-anchor="middle">${escapeXml(String(text))}</text>`,
      );
    }
  }
  const open = `<svg xmlns="http://www.w3.org/2000/svg" width="${Math.max(x - GAP + 10, 20)}" height="${height}" font-family="monospace">`;
  return `${open}\n${parts.join("\n")}\n</svg>\n`;
}
