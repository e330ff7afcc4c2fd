import type { Range } from "@kiln/llb";

const RULER = "--------------------\n";
/** Lines around a single line, and around a longer stretch. */
const AROUND_ONE = 4;
const AROUND_MORE = 2;

/** An excerpt of a file with the ranges marked, as BuildKit prints it; empty without ranges. */
export function printSource(filename: string, text: string, ranges: readonly Range[]): string {
  if (ranges.length === 0) return "";
  const lines = text.split("\n");
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
