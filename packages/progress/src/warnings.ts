import { sanitizeText } from "./sanitize.ts";
import { sourceExcerpt } from "./source-excerpt.ts";
import type { VertexWarning } from "./status.ts";

/** The warnings without those that another vertex repeats. */
export function dedupeWarnings(warnings: readonly VertexWarning[]): VertexWarning[] {
  const decode = (bytes: Uint8Array): string => new TextDecoder().decode(bytes);
  const seen = new Map<string, VertexWarning>();
  for (const warning of warnings) {
    const key = JSON.stringify([
      warning.level,
      decode(warning.short),
      warning.detail.map(decode),
      warning.url,
      warning.source?.filename,
      warning.ranges,
    ]);
    if (!seen.has(key)) seen.set(key, warning);
  }
  return [...seen.values()];
}

/** The summary after a build; with `debug` every warning is shown in full. Empty without warnings. */
export function warningSummary(warnings: readonly VertexWarning[], debug: boolean): string {
  if (warnings.length === 0) return "";
  const decode = (bytes: Uint8Array): string => sanitizeText(new TextDecoder().decode(bytes));
  const count = warnings.length === 1 ? "1 warning found" : `${warnings.length} warnings found`;
  let out = `\n \x1b[33m${count}${debug ? "" : " (use docker --debug to expand)"}:\n\x1b[0m`;
  for (const warning of warnings) {
    out += ` - ${decode(warning.short)}\n`;
    if (!debug) continue;
    for (const detail of warning.detail) out += `${decode(detail)}\n`;
    if (warning.url !== "") out += `More info: ${sanitizeText(warning.url)}\n`;
    if (warning.source && warning.ranges.length > 0) {
      out += `${sourceExcerpt(warning.source, warning.ranges)}`;
    }
    out += "\n";
  }
  return out;
}
