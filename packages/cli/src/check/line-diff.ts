const AROUND = 3;

/** A unified diff of two texts with as many lines; empty when they are equal. Names as `diff -u` has them. */
export function lineDiff(name: string, before: string, after: string): string {
  if (before === after) return "";
  const [old, now] = [linesOf(before), linesOf(after)];
  const changed = old.flatMap((line, i) => (line === now[i] ? [] : [i]));
  let out = `--- ${name}\n+++ ${name}\n`;
  for (let at = 0; at < changed.length; ) {
    let end = at;
    while (end + 1 < changed.length && changed[end + 1]! - changed[end]! <= 2 * AROUND) end++;
    const from = Math.max(0, changed[at]! - AROUND);
    const to = Math.min(old.length, changed[end]! + AROUND + 1);
    out += `@@ -${from + 1},${to - from} +${from + 1},${to - from} @@\n`;
    out += hunk(old.slice(from, to), now.slice(from, to));
    at = end + 1;
  }
  return out;
}

function hunk(old: readonly string[], now: readonly string[]): string {
  let out = "";
  for (let i = 0; i < old.length; ) {
    let end = i;
    while (end < old.length && old[end] !== now[end]) end++;
    for (const line of old.slice(i, end)) out += marked("-", line);
    for (const line of now.slice(i, end)) out += marked("+", line);
    if (end < old.length) out += marked(" ", old[end]!);
    i = end + 1;
  }
  return out;
}

function marked(mark: string, line: string): string {
  return line.endsWith("\n") ? mark + line : `${mark}${line}\n\\ No newline at end of file\n`;
}

/** Lines with their ends. */
function linesOf(text: string): string[] {
  return text.match(/[^\n]*\n|[^\n]+$/g) ?? [];
}
