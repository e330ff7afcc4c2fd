import { BuildError, codeOfNodeError, type ErrorCode, errorMessage } from "@kiln/base";

/** From the pool to a thread. */
export type ToWorker = { readonly kind: "run"; readonly job: unknown } | { readonly kind: "cancel" };

/** From a thread to the pool. */
export type FromWorker =
  | { readonly kind: "progress"; readonly bytes: number }
  | { readonly kind: "done"; readonly result: unknown }
  | { readonly kind: "failed"; readonly error: PlainError };

/** A `BuildError` as plain data. */
export interface PlainError {
  readonly code: ErrorCode;
  readonly message: string;
  readonly hint?: string;
  /** `ENOSPC` and the like. */
  readonly errno?: string;
}

/** An error for the way between threads. */
export function toPlainError(error: unknown): PlainError {
  const hint = error instanceof Error && "hint" in error ? error.hint : undefined;
  const errno =
    error instanceof Error && "errno" in error && "code" in error ? String(error.code) : undefined;
  return {
    code: codeOfNodeError(error),
    message: errorMessage(error),
    ...(typeof hint === "string" ? { hint } : {}),
    ...(errno === undefined ? {} : { errno }),
  };
}

/** The error on the other side. */
export function fromPlainError(error: PlainError): BuildError {
  const opts = error.hint === undefined ? {} : { hint: error.hint };
  const cause =
    error.errno === undefined
      ? {}
      : { cause: Object.assign(new Error(error.message), { code: error.errno }) };
  return new BuildError(error.code, error.message, { ...opts, ...cause });
}
