import type { Range } from "@kiln/llb";

/** Ranges by line, with those that share a line made one. */
export function mergeRanges(ranges: readonly Range[]): Range[] {
  const out: Range[] = [];
  for (const range of ranges.toSorted((a, b) => a.start.line - b.start.line)) {
    const last = out.at(-1);
    if (last === undefined || range.start.line > last.end.line) out.push(range);
    else if (range.end.line > last.end.line) {
      out[out.length - 1] = { start: last.start, end: { ...last.end, line: range.end.line } };
    }
  }
  return out;
}
