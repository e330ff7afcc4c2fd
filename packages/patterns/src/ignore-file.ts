import { BuildError } from "@kiln/base";
import { cleanPath, trimSpace } from "./clean.ts";

const MAX_LINE_BYTES = 64 * 1024;

/** One pattern of an ignore file and where it stands. */
export interface IgnoreLine {
  /** Cleaned pattern, with its `!`. */
  readonly pattern: string;
  /** Counts from 1. */
  readonly line: number;
}

/**
 * Patterns of a `.dockerignore`, in order (moby/patternmatcher's `ignorefile`): `#` lines and blank ones are
 * skipped, the rest is trimmed, cleaned, and loses a leading `/`.
 */
export function readIgnoreFile(text: string): string[] {
  return readIgnoreLines(text).map((entry) => entry.pattern);
}

/** {@link readIgnoreFile} with line numbers, for messages that name the line that excluded a path. */
export function readIgnoreLines(text: string): IgnoreLine[] {
  const found: IgnoreLine[] = [];
  const lines = text.replace(/^\ufeff/, "").split("\n");
  for (const [index, raw] of lines.entries()) {
    if (raw.length >= MAX_LINE_BYTES)
      throw new BuildError("invalid_argument", "bufio.Scanner: token too long");
    if (raw.startsWith("#")) continue;
    const line = trimSpace(raw);
    if (line === "") continue;
    const invert = line.startsWith("!");
    let pattern = invert ? trimSpace(line.slice(1)) : line;
    if (pattern !== "") {
      pattern = cleanPath(pattern);
      if (pattern.length > 1 && pattern.startsWith("/")) pattern = pattern.slice(1);
    }
    found.push({ pattern: invert ? `!${pattern}` : pattern, line: index + 1 });
  }
  return found;
}
