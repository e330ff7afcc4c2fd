import { type DiffOp, DiffOpSchema } from "@kiln/api/pb";
import { BuildError } from "@kiln/base";
import type { CacheMapAnswer } from "@kiln/solver";
import type { RefManager } from "@kiln/store";
import { goStruct } from "../cache-digest/go-json.ts";
import type { LlbOp, Op, OpResult } from "../op-context.ts";
import { jsonDigest } from "./json-digest.ts";

/** What turns the lower tree into the upper; nothing happens on disk until somebody looks. */
export class DiffOperation implements Op {
  readonly #op: DiffOp;
  readonly #name: string;
  readonly #refs: RefManager;

  /** @throws BuildError `invalid_argument` when a side isn't named. */
  constructor(op: DiffOp, opts: { name: string; refs: RefManager }) {
    if (op.lower === undefined) throw new BuildError("invalid_argument", "invalid nil lower diff input");
    if (op.upper === undefined) throw new BuildError("invalid_argument", "invalid nil upper diff input");
    this.#op = op;
    this.#name = opts.name;
    this.#refs = opts.refs;
  }

  async cacheMap(): Promise<CacheMapAnswer<LlbOp, OpResult>> {
    const digest = jsonDigest({ Type: "buildkit.diff.v0", Diff: goStruct(DiffOpSchema, this.#op) });
    const sides = [this.#op.lower, this.#op.upper].filter((side) => side?.input !== -1n);
    return { cacheMap: { digest, deps: sides.map(() => ({})) }, done: true };
  }

  async acquire(): Promise<() => void> {
    return () => undefined;
  }

  async exec(inputs: readonly OpResult[]): Promise<readonly OpResult[]> {
    const rest = [...inputs];
    const side = (input: bigint | undefined, which: string): OpResult["ref"] => {
      if (input === -1n) return undefined;
      const result = rest.shift();
      if (result === undefined) {
        throw new BuildError("invalid_argument", `invalid ${which} input index for diff op`);
      }
      return result.ref;
    };
    const lower = side(this.#op.lower?.input, "lower");
    const upper = side(this.#op.upper?.input, "upper");
    if (lower === undefined) return [{ ref: upper?.clone() }];
    if (lower.id === upper?.id) return [{ ref: undefined }];
    return [{ ref: await this.#refs.diff(lower, upper, { description: this.#name }) }];
  }
}
