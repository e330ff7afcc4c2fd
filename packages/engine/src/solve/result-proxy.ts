import type { Definition } from "@kiln/api/pb";
import {
  BuildError,
  codeOfNodeError,
  createDeferred,
  errorMessage,
  isCanceled,
  type WireDetail,
  withSignal,
} from "@kiln/base";
import { newId } from "@kiln/formats";
import type { CachedResult } from "@kiln/solver";
import type { Capture } from "../attestations/provenance/capture.ts";
import type { ResultProxy } from "../frontends/frontend.ts";
import type { OpResult } from "../op-context.ts";
import { sourceDetail } from "./wire-details.ts";

type Build = (signal: AbortSignal) => Promise<CachedResult<OpResult>>;

type State =
  | { readonly kind: "idle" }
  | {
      readonly kind: "building";
      readonly done: Promise<CachedResult<OpResult>>;
      readonly abort: AbortController;
      waiting: number;
    }
  | { readonly kind: "built"; readonly result: CachedResult<OpResult> }
  | { readonly kind: "failed"; readonly error: unknown }
  | { readonly kind: "released" };

/**
 * A {@link ResultProxy} over one definition. The build starts when the first caller asks and goes on while
 * at least one waits; when the last has given up it is cancelled, and the next one starts it anew.
 */
export class LazyResult implements ResultProxy {
  readonly id = newId();
  readonly definition: Definition | undefined;
  capture: Capture | undefined;
  readonly #build: Build;
  #state: State = { kind: "idle" };

  constructor(definition: Definition, build: Build) {
    this.definition = definition;
    this.#build = build;
  }

  async result(signal: AbortSignal): Promise<CachedResult<OpResult>> {
    signal.throwIfAborted();
    const state = this.#state;
    switch (state.kind) {
      case "built":
        return state.result;
      case "failed":
        throw state.error;
      case "released":
        throw new BuildError("failed_precondition", "evaluating released result");
      case "idle":
        return await this.#wait(this.#start(), signal);
      case "building":
        return await this.#wait(state, signal);
    }
  }

  async release(): Promise<void> {
    const state = this.#state;
    this.#state = { kind: "released" };
    if (state.kind === "built") state.result.release();
    if (state.kind !== "building") return;
    state.abort.abort(new BuildError("canceled", "evaluating released result"));
    await state.done.then(
      (result) => result.release(),
      () => undefined,
    );
  }

  #start(): Extract<State, { kind: "building" }> {
    const abort = new AbortController();
    const deferred = createDeferred<CachedResult<OpResult>>();
    const state: State = { kind: "building", done: deferred.promise, abort, waiting: 0 };
    this.#state = state;
    this.#build(abort.signal).then(
      (result) => {
        if (this.#state === state) this.#state = { kind: "built", result };
        deferred.resolve(result);
      },
      (error: unknown) => {
        const located = withLocations(error, this.definition);
        if (this.#state === state) {
          this.#state = isCanceled(error) ? { kind: "idle" } : { kind: "failed", error: located };
        }
        deferred.reject(located);
      },
    );
    return state;
  }

  async #wait(
    state: Extract<State, { kind: "building" }>,
    signal: AbortSignal,
  ): Promise<CachedResult<OpResult>> {
    state.waiting++;
    try {
      return await withSignal(state.done, signal);
    } finally {
      state.waiting--;
      if (state.waiting === 0 && signal.aborted && this.#state === state) {
        state.abort.abort(signal.reason);
      }
    }
  }
}

/** Adds the places in the definition's source map that the failing vertex comes from. */
export function withLocations(error: unknown, definition: Definition | undefined): unknown {
  const source = definition?.Source;
  if (source === undefined || !(error instanceof Error)) return error;
  const digest = failedVertex(error);
  if (digest === undefined || !Object.hasOwn(source.locations, digest)) return error;
  const details: WireDetail[] = [];
  for (const location of source.locations[digest]?.locations ?? []) {
    const info = source.infos[location.sourceIndex];
    // the last location is the outermost, as BuildKit wraps them
    if (info !== undefined) details.unshift(sourceDetail(info, location.ranges));
  }
  if (details.length === 0) return error;
  const inner = error instanceof BuildError ? error.wire : [];
  return new BuildError(codeOfNodeError(error), errorMessage(error), {
    cause: error,
    wire: [...details, ...inner],
  });
}

const VERTEX_URL = "github.com/moby/buildkit/errdefs.Vertex+json";

/** Digest of the vertex that an error names. */
function failedVertex(error: Error): string | undefined {
  const wire = error instanceof BuildError ? error.wire : [];
  const found = wire.find((item) => item.typeUrl === VERTEX_URL);
  if (found === undefined) return undefined;
  const parsed: unknown = JSON.parse(new TextDecoder().decode(found.value));
  return typeof parsed === "object" && parsed !== null && "digest" in parsed
    ? String(parsed.digest)
    : undefined;
}
