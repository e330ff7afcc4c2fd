/** Aligned columns as Go's text/tabwriter makes them. */
export interface TabOptions {
  /** Least width of a column, its padding included. */
  readonly minWidth: number;
  readonly padding: number;
  /** Pads with tabs of this many columns instead of spaces. */
  readonly tabWidth?: number;
}

/** What a terminal would act upon: cells hold names from anywhere. Line ends and tabs are ours. */
const CONTROLS = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/g;

/** Cells are separated by tabs; a column is as wide as its widest cell in a run of lines that have it. */
export function alignColumns(text: string, options: TabOptions): string {
  const hasEnd = text.endsWith("\n");
  const lines = (hasEnd ? text.slice(0, -1) : text)
    .replace(CONTROLS, "")
    .split("\n")
    .map((line) => line.split("\t"));
  const out: string[] = [];
  formatBlock({ lines, options, widths: [], out }, 0, lines.length);
  return out.join("\n") + (hasEnd ? "\n" : "");
}

interface Block {
  readonly lines: readonly (readonly string[])[];
  readonly options: TabOptions;
  readonly widths: number[];
  readonly out: string[];
}

function formatBlock(block: Block, from: number, to: number): void {
  const column = block.widths.length;
  const hasColumn = (line: number): boolean => column < (block.lines[line] as readonly string[]).length - 1;
  let start = from;
  for (let line = from; line < to; line++) {
    if (!hasColumn(line)) continue;
    writeLines(block, start, line);
    start = line;
    let width = block.options.minWidth;
    for (; line < to && hasColumn(line); line++) {
      const cell = (block.lines[line] as readonly string[])[column] as string;
      width = Math.max(width, [...cell].length + block.options.padding);
    }
    block.widths.push(width);
    formatBlock(block, start, line);
    block.widths.pop();
    start = line;
  }
  writeLines(block, start, to);
}

function writeLines(block: Block, from: number, to: number): void {
  for (const cells of block.lines.slice(from, to)) {
    block.out.push(cells.map((cell, i) => cell + padding(cell, block.widths[i], block.options)).join(""));
  }
}

function padding(cell: string, width: number | undefined, { tabWidth }: TabOptions): string {
  if (width === undefined) return "";
  const used = [...cell].length;
  if (tabWidth === undefined) return " ".repeat(Math.max(0, width - used));
  const full = Math.ceil(width / tabWidth) * tabWidth;
  return "\t".repeat(Math.ceil((full - used) / tabWidth));
}

/** Columns as BuildKit's tools print them: tabs of eight. */
export const BUILDKIT_TABS: TabOptions = { minWidth: 1, padding: 1, tabWidth: 8 };

/** Columns as Docker's tools print tables. */
export const DOCKER_TABLE: TabOptions = { minWidth: 10, padding: 3 };
