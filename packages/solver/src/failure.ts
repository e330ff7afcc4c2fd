import { BuildError, isBuildError, isCanceled } from "@kiln/base";
import { CANCELED_TEXT } from "./progress/vertex-stream.ts";

const vertexOf = new WeakMap<object, string>();

/** Remembers at which vertex an error arose, unless one nearer to it is known. */
export function attachVertex(error: unknown, digest: string): void {
  if (typeof error === "object" && error !== null && failedVertex(error) === undefined)
    vertexOf.set(error, digest);
}

/** Digest, in the definition that the client sent, of the vertex at which `error` arose. */
export function failedVertex(error: unknown): string | undefined {
  let at: unknown = error;
  for (let depth = 0; depth < 32 && typeof at === "object" && at !== null; depth++) {
    const digest = vertexOf.get(at);
    if (digest !== undefined) return digest;
    at = "cause" in at ? at.cause : undefined;
  }
  return undefined;
}

/** Somebody gave up, or nobody needs the work any more. */
export function canceledError(): BuildError {
  return new BuildError("canceled", CANCELED_TEXT);
}

/** Error text of a vertex in progress: that of cancellations is what BuildKit's clients look for. */
export function progressErrorText(error: unknown): string {
  if (isCanceled(error)) return CANCELED_TEXT;
  return isBuildError(error) || error instanceof Error ? error.message : String(error);
}
