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

/** The {@link OpFailure} in an error's chain of causes. */
export function findOpFailure(error: unknown): OpFailure | undefined {
  let at: unknown = error;
  for (let depth = 0; depth < 32 && at instanceof Error; depth++) {
    if (at instanceof OpFailure) return at;
    at = at.cause;
  }
  return undefined;
}
