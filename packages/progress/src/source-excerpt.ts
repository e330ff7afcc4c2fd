import { sanitizeName, sanitizeText } from "./sanitize.ts";
import type { SourceFile, SourceRange } from "./status.ts";

const RULER = "--------------------";

/**
 * The place in a file that an error is about: a header with file and line, then the lines with `>>>` before those
 * of the ranges and some lines of context. Empty when no range lies in the file.
 */
export function sourceExcerpt(source: SourceFile, ranges: readonly SourceRange[]): string {
  const lines = new TextDecoder().decode(source.data).split("\n");
  const joined = joinRanges(ranges);
  if (joined === undefined || joined.start > lines.length || joined.start < 1) return "";
  const [from, to] = withContext(joined.start, Math.min(joined.end, lines.length), lines.length);
  let out = `${sanitizeName(source.filename)}:${joined.start}\n${RULER}\n`;
  for (let line = from; line <= to; line++) {
    const mark = contains(ranges, line) ? ">>>" : "   ";
    const text = sanitizeText(lines[line - 1] as string).replaceAll("\n", "");
    out += ` ${String(line).padStart(3)} | ${mark} ${text}\n`;
  }
  return `${out}${RULER}\n`;
}

/** Some lines around a range: about four in all around a single line, about two around a longer range. */
function withContext(start: number, end: number, count: number): [number, number] {
  const padding = end === start ? 4 : 2;
  let [from, to] = [start, end];
  for (let added = 0; added < padding; added++) {
    if (from > 1) {
      from--;
      added++;
    }
    if (to !== count) {
      to++;
      added++;
    }
  }
  return [from, to];
}

function joinRanges(ranges: readonly SourceRange[]): { start: number; end: number } | undefined {
  if (ranges.length === 0) return undefined;
  return {
    start: Math.min(...ranges.map((range) => range.start.line)),
    end: Math.max(...ranges.map((range) => Math.max(range.start.line, range.end.line))),
  };
}

function contains(ranges: readonly SourceRange[], line: number): boolean {
  return ranges.some((range) => {
    const end = Math.max(range.end.line, range.start.line);
    return line >= range.start.line && line <= end;
  });
}
