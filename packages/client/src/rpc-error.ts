import { BuildError, errorMessage, isBuildError } from "@kiln/base";
import { goCodeName } from "@kiln/grpc/client";

const seen = new WeakSet<Error>();
const received = new WeakMap<Error, BuildError>();

/** A status as BuildKit's clients print it: with the code's name in front, unless that says nothing. */
export function fromRpc(error: unknown): unknown {
  if (!isBuildError(error) || seen.has(error) || error.code === "unknown") return error;
  const named = prefixed(error, goCodeName(error.code));
  received.set(named, error);
  return named;
}

/** The error to send back for one that may have come from the peer: then it's the peer's own, without a code's name. */
export function toRpc(error: unknown): unknown {
  for (let at = error; at instanceof Error; at = at.cause) {
    const original = received.get(at);
    if (original !== undefined) return original;
  }
  return error;
}

/** The same error with `prefix: ` before its text, cancellation included. */
export function prefixed(error: unknown, prefix: string): BuildError {
  const known = isBuildError(error) ? error : undefined;
  const wrapped = new BuildError(known?.code ?? "unknown", `${prefix}: ${errorMessage(error)}`, {
    cause: error,
    wire: known?.wire ?? [],
    ...(known?.hint === undefined ? {} : { hint: known.hint }),
  });
  seen.add(wrapped);
  return wrapped;
}

/** Waits for a call; what it throws is passed through {@link fromRpc}. */
export async function rpc<T>(call: Promise<T>): Promise<T> {
  try {
    return await call;
  } catch (error) {
    throw fromRpc(error);
  }
}

/** The messages of a stream; what it throws is passed through {@link fromRpc}. */
export async function* rpcStream<T>(stream: AsyncIterable<T>): AsyncGenerator<T, void, undefined> {
  try {
    yield* stream;
  } catch (error) {
    throw fromRpc(error);
  }
}
