import type { Op as LlbOperation } from "@kiln/api/pb";
import { BuildError, codeOfNodeError, errorMessage, type WireDetail } from "@kiln/base";
import type { OpResult } from "../op-context.ts";

/** What a failed op leaves for whoever wants to look into it. */
export interface FailureState {
  /** Inputs of the op, cloned: `undefined` entries had nothing. */
  readonly inputs: readonly (OpResult | undefined)[];
  /** By mount (exec) or action (file) index: the tree as it was when the op failed. */
  readonly mounts: readonly (OpResult | undefined)[];
  /** Index of the file action that failed. */
  readonly fileAction?: number;
  /** Number of the input whose content couldn't be hashed; it is then the only one in `inputs`. */
  readonly cacheInput?: number;
}

/**
 * Failure of an op with the trees it was working on, so that a debugger can mount them. Whoever catches it
 * last calls {@link OpFailure.release}; a gateway that hands the trees to its client clones them first.
 */
export class OpFailure extends BuildError {
  readonly state: FailureState;
  #released = false;

  constructor(cause: unknown, state: FailureState, wire: readonly WireDetail[] = []) {
    super(codeOfNodeError(cause), errorMessage(cause), {
      cause,
      wire: [...wire, ...(cause instanceof BuildError ? cause.wire : [])],
    });
    this.state = state;
  }

  /** Gives up the trees; later calls do nothing. */
  async release(): Promise<void> {
    if (this.#released) return;
    this.#released = true;
    const refs = new Set([...this.state.inputs, ...this.state.mounts]);
    for (const result of refs) await result?.ref?.release();
  }
}

/** Failure of a vertex, with the op that failed. */
export class OpError extends BuildError {
  readonly op: LlbOperation;
  readonly description: Readonly<Record<string, string>>;

  constructor(
    message: string,
    failed: { readonly op: LlbOperation; readonly description: Readonly<Record<string, string>> },
    opts: { readonly cause: unknown; readonly wire: readonly WireDetail[] },
  ) {
    const { cause } = opts;
    const hint = cause instanceof BuildError ? cause.hint : undefined;
    super(cause instanceof BuildError ? cause.code : "unknown", message, {
      ...opts,
      ...(hint === undefined ? {} : { hint }),
    });
    this.op = failed.op;
    this.description = failed.description;
  }
}

/** The {@link OpFailure} in an error's chain of causes. */
export function findOpFailure(error: unknown): OpFailure | undefined {
  return findCause(error, (one) => (one instanceof OpFailure ? one : undefined));
}

/** The {@link OpError} in an error's chain of causes. */
export function findOpError(error: unknown): OpError | undefined {
  return findCause(error, (one) => (one instanceof OpError ? one : undefined));
}

function findCause<T>(error: unknown, match: (error: Error) => T | undefined): T | undefined {
  let at: unknown = error;
  for (let depth = 0; depth < 32 && at instanceof Error; depth++) {
    const found = match(at);
    if (found !== undefined) return found;
    at = at.cause;
  }
  return undefined;
}
