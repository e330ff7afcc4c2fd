/**
 * Closed set of failure kinds. Each maps 1:1 to a gRPC status code (grpc's `codes.ts`) and so to what
 * BuildKit's clients see.
 */
export type ErrorCode =
  | "canceled"
  | "unknown"
  | "invalid_argument"
  | "deadline_exceeded"
  | "not_found"
  | "already_exists"
  | "permission_denied"
  | "resource_exhausted"
  | "failed_precondition"
  | "aborted"
  | "out_of_range"
  | "unimplemented"
  | "internal"
  | "unavailable"
  | "data_loss"
  | "unauthenticated";

/**
 * One typed detail that travels with an error. On the wire it is a `google.protobuf.Any` whose type URL
 * is `typeUrl` and whose value is `value`, kept byte for byte (BuildKit's details are JSON texts).
 */
export interface WireDetail {
  readonly typeUrl: string;
  readonly value: Uint8Array;
}

/** What an error carries besides its message. */
export interface ErrorDetails {
  /** What the user can do about it; one sentence. */
  readonly hint?: string;
  /** Typed details, outermost first, as they go over the wire. */
  readonly wire?: readonly WireDetail[];
}

/** The only error class that crosses a package boundary. Recognise it with {@link isBuildError}. */
export class BuildError extends Error {
  override readonly name = "BuildError";
  readonly code: ErrorCode;
  readonly hint: string | undefined;
  readonly wire: readonly WireDetail[];

  constructor(code: ErrorCode, message: string, opts: ErrorOptions & ErrorDetails = {}) {
    super(redactUrls(message), opts.cause === undefined ? undefined : { cause: opts.cause });
    this.code = code;
    this.hint = opts.hint;
    this.wire = opts.wire ?? [];
  }
}

/** True for a {@link BuildError}, also one of another installed copy; with `code`, only of that kind. */
export function isBuildError(error: unknown, code?: ErrorCode): error is BuildError {
  return (
    error instanceof Error &&
    error.name === "BuildError" &&
    "code" in error &&
    (code === undefined || error.code === code)
  );
}

/** The same error with `prefix: ` before its message; code and details stay. Cancellation passes unwrapped. */
export function wrapError(error: unknown, prefix: string): unknown {
  if (isCanceled(error)) return error;
  const message = `${prefix}: ${errorMessage(error)}`;
  if (isBuildError(error)) {
    return new BuildError(error.code, message, {
      cause: error,
      wire: error.wire,
      ...(error.hint === undefined ? {} : { hint: error.hint }),
    });
  }
  return new BuildError(codeOfNodeError(error), message, { cause: error });
}

/** Text of anything thrown, with credentials in URLs masked. */
export function errorMessage(error: unknown): string {
  return redactUrls(error instanceof Error ? error.message : String(error));
}

/** True when `error` means that somebody gave up: an abort reason or a `canceled` error. */
export function isCanceled(error: unknown): boolean {
  if (isBuildError(error, "canceled")) return true;
  return error instanceof Error && error.name === "AbortError";
}

/** The code that stands for an error of Node's standard library (`errno` names), `unknown` for the rest. */
export function codeOfNodeError(error: unknown): ErrorCode {
  if (isBuildError(error)) return error.code;
  if (isCanceled(error)) return "canceled";
  const code = error instanceof Error && "code" in error ? error.code : undefined;
  switch (code) {
    case "ENOENT":
      return "not_found";
    case "EEXIST":
      return "already_exists";
    case "ENOSPC":
    case "EDQUOT":
    case "EMFILE":
    case "ENFILE":
      return "resource_exhausted";
    case "ECONNREFUSED":
    case "ECONNRESET":
    case "EPIPE":
      return "unavailable";
    case "ETIMEDOUT":
      return "deadline_exceeded";
    default:
      return "unknown";
  }
}

/** Masks the password in every `scheme://user:password@` of a text (Go's `url.Redacted` writes `xxxxx`). */
export function redactUrls(text: string): string {
  if (!text.includes("@")) return text;
  return text.replace(/([a-z][a-z0-9+.-]{0,30}:\/\/[^\s/:@]{0,256}):[^\s/]{1,4096}@/gi, "$1:xxxxx@");
}

/** Throws for a state that only a bug can produce. Never caught below a request handler. */
export function unreachable(value: never, what = "value"): never {
  throw new Error(`unreachable ${what}: ${String(value)}`);
}

/** The words that a Go program has for a failed system call. */
export function nodeReason(error: unknown): string {
  const code = error instanceof Error && "code" in error ? error.code : undefined;
  switch (code) {
    case "ENOENT":
      return "no such file or directory";
    case "EACCES":
      return "permission denied";
    case "ENOTDIR":
      return "not a directory";
    case "EISDIR":
    case "ERR_FS_EISDIR":
      return "is a directory";
    case "ECONNREFUSED":
      return "connection refused";
    default:
      return errorMessage(error);
  }
}
