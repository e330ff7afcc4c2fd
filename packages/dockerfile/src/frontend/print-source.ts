import type { Range } from "@kiln/llb";

const RULER = "--------------------\n";
/** Lines around a single line, and around a longer stretch. */
const AROUND_ONE = 4;
const AROUND_MORE = 2;

/** Makes excerpts of one file. */
export type SourcePrinter = (ranges: readonly Range[]) => string;

/** Excerpts of a file with ranges marked, as BuildKit prints them; empty without ranges. */
export function sourcePrinter(filename: string, text: string): SourcePrinter {
  let lines: readonly string[] | undefined;
  return (ranges) => {
    if (ranges.length === 0) return "";
    lines ??= text.split("\n");
    return excerpt(filename, lines, ranges);
  };
}

/** One excerpt of {@link sourcePrinter}. */
export function printSource(filename: string, text: string, ranges: readonly Range[]): string {
  return sourcePrinter(filename, text)(ranges);
}

function excerpt(filename: string, lines: readonly string[], ranges: readonly Range[]): string {
  const lastOf = ({ start, end }: Range): number => Math.max(start.line, end.line);
  const first = ranges.reduce((least, { start }) => Math.min(least, start.line), Number.POSITIVE_INFINITY);
  if (first > lines.length || first < 1) return "";
  let end = Math.min(
    ranges.reduce((most, range) => Math.max(most, lastOf(range)), 0),
    lines.length,
  );
  let start = first;
  const around = end === start ? AROUND_ONE : AROUND_MORE;
  for (let shown = 0; shown < around; shown++) {
    if (start > 1) {
      start--;
      shown++;
    }
    if (end !== lines.length) {
      end++;
      shown++;
    }
  }
  const marked = new Set<number>();
  for (const range of ranges) {
    for (let line = Math.max(range.start.line, start); line <= Math.min(lastOf(range), end); line++) {
      marked.add(line);
    }
  }
  let out = `${filename}:${first}\n${RULER}`;
  for (let line = start; line <= end; line++) {
    out += ` ${String(line).padStart(3)} | ${marked.has(line) ? ">>>" : "   "} ${lines[line - 1]}\n`;
  }
  return out + RULER;
}
