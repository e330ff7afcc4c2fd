/** A place in a source text. Lines and columns count from 1, columns in grapheme clusters, offsets in UTF-16 units. */
export interface Pos {
  readonly line: number;
  readonly column: number;
  readonly offset: number;
}

/** A stretch of a file, `end` exclusive. */
export interface Range {
  readonly filename: string;
  readonly start: Pos;
  readonly end: Pos;
}

/** One problem in a user's file. */
export interface Diagnostic {
  readonly severity: "error" | "warning";
  readonly summary: string;
  readonly detail: string;
  /** What is wrong. */
  readonly subject?: Range | undefined;
  /** What to show around it. */
  readonly context?: Range | undefined;
}

export const INITIAL_POS: Pos = { line: 1, column: 1, offset: 0 };

/** From the start of one range to the end of another. */
export function rangeBetween(start: Range, end: Range): Range {
  return { filename: start.filename, start: start.start, end: end.end };
}

/** `file:line,column-column`, or `file:line,column-line,column` over several lines. */
export function formatRange(range: Range): string {
  const { start, end } = range;
  const tail = start.line === end.line ? `${end.column}` : `${end.line},${end.column}`;
  return `${range.filename}:${start.line},${start.column}-${tail}`;
}

/** An error diagnostic. */
export function errorAt(
  summary: string,
  detail: string,
  subject: Range | undefined,
  context?: Range,
): Diagnostic {
  return { severity: "error", summary, detail, subject, context };
}

/** One diagnostic in a line: place, summary and detail. */
export function formatDiagnostic(diagnostic: Diagnostic): string {
  const place = diagnostic.subject === undefined ? "<nil>" : formatRange(diagnostic.subject);
  return `${place}: ${diagnostic.summary}; ${diagnostic.detail}`;
}

/** All diagnostics in a line, as HCL's errors read: the first, and how many more there are. */
export function formatDiagnostics(diagnostics: readonly Diagnostic[]): string {
  const [first] = diagnostics;
  if (first === undefined) return "no diagnostics";
  const text = formatDiagnostic(first);
  return diagnostics.length === 1 ? text : `${text}, and ${diagnostics.length - 1} other diagnostic(s)`;
}

export function hasErrors(diagnostics: readonly Diagnostic[]): boolean {
  return diagnostics.some((diagnostic) => diagnostic.severity === "error");
}

/** Carries diagnostics through code that can't return them. */
export class DiagnosticsError extends Error {
  readonly diagnostics: readonly Diagnostic[];

  constructor(diagnostics: readonly Diagnostic[]) {
    super(formatDiagnostics(diagnostics));
    this.diagnostics = diagnostics;
  }
}

const RULER = "--------------------";

/**
 * The source around a range as buildx prints it: `FILE:LINE`, a ruler, numbered lines with `>>>` before the
 * affected ones, a ruler. Empty when the range lies outside the text.
 */
export function formatExcerpt(text: string, range: Range): string {
  const lines = text.split("\n");
  const first = range.start.line;
  const last = Math.min(Math.max(range.end.line, first), lines.length);
  if (first < 1 || first > lines.length) return "";
  let [start, end] = [first, last];
  const padding = first === last ? 4 : 2;
  for (let shown = 0; shown < padding; shown++) {
    if (start > 1) {
      start--;
      shown++;
    }
    if (end < lines.length) {
      end++;
      shown++;
    }
  }
  const out = [`${range.filename}:${first}`, RULER];
  for (let line = start; line <= end; line++) {
    const mark = line >= first && line <= last ? ">>>" : "   ";
    out.push(`${String(line).padStart(4)} | ${mark} ${lines[line - 1] ?? ""}`);
  }
  return `${[...out, RULER].join("\n")}\n`;
}

/** The closest of some names, when one is near enough to be a typing error. */
export function suggestName(given: string, names: Iterable<string>): string | undefined {
  let best: string | undefined;
  let bestDistance = 3;
  for (const name of names) {
    if (Math.abs(name.length - given.length) >= bestDistance) continue;
    const distance = editDistance(given, name);
    if (distance < bestDistance) {
      best = name;
      bestDistance = distance;
    }
  }
  return best;
}

/** ` Did you mean "x"?`, or nothing. */
export function didYouMean(given: string, names: Iterable<string>): string {
  const suggestion = suggestName(given, names);
  return suggestion === undefined ? "" : ` Did you mean ${JSON.stringify(suggestion)}?`;
}

function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const same = a.charAt(i - 1) === b.charAt(j - 1);
      next.push(Math.min((next[j - 1] ?? 0) + 1, (row[j] ?? 0) + 1, (row[j - 1] ?? 0) + (same ? 0 : 1)));
    }
    row = next;
  }
  return row[b.length] ?? 0;
}
