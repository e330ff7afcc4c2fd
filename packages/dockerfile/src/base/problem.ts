import type { ErrorCode } from "@kiln/base";
import type { Range } from "@kiln/llb";

/**
 * Something wrong with the user's file. Thrown and caught inside this package only: callers get a
 * diagnostic, or (from the frontend) a `BuildError` with the positions.
 */
export class Problem extends Error {
  override readonly name = "Problem";
  readonly code: ErrorCode;
  /** Sets of ranges, the innermost first. */
  readonly locations: readonly (readonly Range[])[];

  constructor(message: string, options: ProblemOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = options.code ?? "unknown";
    this.locations = options.locations ?? [];
  }
}

interface ProblemOptions {
  readonly code?: ErrorCode | undefined;
  readonly locations?: readonly (readonly Range[])[] | undefined;
  readonly cause?: unknown;
}

/** Any error as a problem. */
export function problemOf(error: unknown): Problem {
  if (error instanceof Problem) return error;
  if (error instanceof RangeError && /call stack/i.test(error.message)) {
    return new Problem("nesting too deep", { code: "invalid_argument", cause: error });
  }
  throw error;
}

/** The error with one more set of ranges around it. Errors that aren't problems pass unchanged. */
export function withLocation(error: unknown, ranges: readonly Range[]): unknown {
  if (!(error instanceof Problem)) return error;
  const locations = [...error.locations, ranges];
  return new Problem(error.message, { code: error.code, locations, cause: error.cause });
}

/** The error with these ranges instead of any other. */
export function setLocation(error: unknown, ranges: readonly Range[]): unknown {
  if (!(error instanceof Problem)) return error;
  return new Problem(error.message, { code: error.code, locations: [ranges], cause: error.cause });
}

/** The error with `prefix: ` before its message. */
export function wrapProblem(error: unknown, prefix: string): unknown {
  if (!(error instanceof Problem)) return error;
  const { code, locations, cause } = error;
  return new Problem(`${prefix}: ${error.message}`, { code, locations, cause });
}

/** One range per line, as BuildKit marks an instruction. */
export function lineRanges(start: number, end: number): Range[] {
  const out: Range[] = [];
  for (let line = start; line <= Math.max(start, end); line++) {
    const position = { line, character: 0 };
    out.push({ start: position, end: position });
  }
  return out;
}
