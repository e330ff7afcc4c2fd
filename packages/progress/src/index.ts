export { type ProgressColors, readProgressColors } from "./colors.ts";
export { createDisplay, type ProgressMode } from "./create-display.ts";
export {
  createQuietDisplay,
  DISPLAY_LIMIT_MS,
  type Display,
  type DisplayOptions,
  type ProgressOutput,
  REFRESH_INTERVAL_MS,
  type TerminalSize,
} from "./display.ts";
export { formatBytes, formatTransfer } from "./format-bytes.ts";
export { createPlainDisplay } from "./plain-display.ts";
export { createRawJsonDisplay, statusJson, warningJson } from "./rawjson-display.ts";
export { LogSanitizer, sanitizeName, sanitizeText } from "./sanitize.ts";
export { sourceExcerpt } from "./source-excerpt.ts";
export {
  type ProgressGroup,
  type SolveStatus,
  type SourceFile,
  type SourcePosition,
  type SourceRange,
  secondsBetween,
  solveStatus,
  type TimeNs,
  timeNsFromMs,
  type VertexLog,
  type VertexStatusUpdate,
  type VertexUpdate,
  type VertexWarning,
} from "./status.ts";
export { createTtyDisplay, type TerminalOutput } from "./tty-display.ts";
export { dedupeWarnings, warningSummary } from "./warnings.ts";
