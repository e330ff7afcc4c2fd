import { BuildError, type ErrorCode, isBuildError } from "@kiln/base";

/**
 * Kinds of failure that BuildKit doesn't tell its clients: its build errors carry a gRPC code only where a
 * status of a peer is passed on, where a call was cancelled, and for internal errors (upstream
 * `util/grpcerrors`). Clients print any other code in front of the message, so scripts that match on
 * messages would miss them.
 */
const HIDDEN: ReadonlySet<ErrorCode> = new Set([
  "invalid_argument",
  "not_found",
  "already_exists",
  "permission_denied",
  "resource_exhausted",
  "failed_precondition",
  "aborted",
  "out_of_range",
  "data_loss",
  "unavailable",
  "unauthenticated",
]);

/** Runs `call`; what fails in it leaves with the code that BuildKit's clients expect of a failed build. */
export async function withBuildCode<T>(call: () => Promise<T>): Promise<T> {
  try {
    return await call();
  } catch (error) {
    throw buildFailure(error);
  }
}

/** Errors that a frontend has returned, as the status of a peer. */
const returned = new WeakSet<Error>();
/** Wrappings that a returned error may have got on its way. */
const MAX_WRAPPINGS = 16;

/** Marks an error that a frontend has returned: its code reaches the client. */
export function keepCode(error: BuildError): BuildError {
  returned.add(error);
  return error;
}

function hasKeptCode(error: BuildError): boolean {
  let at: unknown = error;
  for (let i = 0; i < MAX_WRAPPINGS && isBuildError(at, error.code); i++) {
    if (returned.has(at)) return true;
    at = at.cause;
  }
  return false;
}

/** The error as the wire shows it. */
export function buildFailure(error: unknown): unknown {
  if (!isBuildError(error) || !HIDDEN.has(error.code) || hasKeptCode(error)) return error;
  return new BuildError("unknown", error.message, {
    wire: error.wire,
    cause: error,
    ...(error.hint === undefined ? {} : { hint: error.hint }),
  });
}
