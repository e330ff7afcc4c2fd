import { errorMessage, isBuildError } from "@kiln/base";
import {
  ConversionError,
  type Diagnostic,
  DiagnosticsError,
  errorAt,
  FunctionError,
  hasErrors,
  JsonError,
  type Range,
} from "@kiln/hcl";

/** Undefined names are complained about where they are used. */
export class UndefinedName extends Error {}

/** Runs `work`; errors among its diagnostics are thrown. */
export function checked<T>(work: (diagnostics: Diagnostic[]) => T): T {
  const diagnostics: Diagnostic[] = [];
  const result = work(diagnostics);
  if (hasErrors(diagnostics)) throw new DiagnosticsError(diagnostics);
  return result;
}

/** What went wrong as diagnostics; other failures get a summary and a place. */
export function asDiagnostics(
  error: unknown,
  summary: string,
  subject: Range | undefined,
  context = subject,
): readonly Diagnostic[] {
  if (error instanceof DiagnosticsError) return error.diagnostics;
  const expected =
    error instanceof UndefinedName ||
    error instanceof ConversionError ||
    error instanceof JsonError ||
    error instanceof FunctionError ||
    isBuildError(error);
  if (!expected) throw error;
  return [errorAt(summary, errorMessage(error), subject, context)];
}
