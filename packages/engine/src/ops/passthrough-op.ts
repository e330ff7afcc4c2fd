import { type PassthroughOp, PassthroughOpSchema } from "@kiln/api/pb";
import { BuildError } from "@kiln/base";
import type { CacheMapAnswer } from "@kiln/solver";
import { goStruct } from "../cache-digest/go-json.ts";
import type { LlbOp, Op, OpResult } from "../op-context.ts";
import { jsonDigest } from "./json-digest.ts";

/** Hands some of its inputs on; the others only have to have been built. */
export class PassthroughOperation implements Op {
  readonly #op: PassthroughOp;
  readonly #inputCount: number;

  /** @throws BuildError `invalid_argument` without an id or outputs. */
  constructor(op: PassthroughOp, inputCount: number) {
    if (op.id === "") throw new BuildError("invalid_argument", "passthrough op must have an id");
    if (op.outputs.length === 0) {
      throw new BuildError("invalid_argument", "passthrough op must have at least one output");
    }
    for (const index of op.outputs) {
      if (index < 0n || index >= BigInt(inputCount)) {
        throw new BuildError("invalid_argument", `invalid passthrough output input index ${index}`);
      }
    }
    this.#op = op;
    this.#inputCount = inputCount;
  }

  async cacheMap(): Promise<CacheMapAnswer<LlbOp, OpResult>> {
    const digest = jsonDigest({
      Type: "buildkit.passthrough.v0",
      Passthrough: goStruct(PassthroughOpSchema, this.#op),
    });
    return { cacheMap: { digest, deps: Array.from({ length: this.#inputCount }, () => ({})) }, done: true };
  }

  async acquire(): Promise<() => void> {
    return () => undefined;
  }

  async exec(inputs: readonly OpResult[]): Promise<readonly OpResult[]> {
    return this.#op.outputs.map((index) => ({ ref: inputs[Number(index)]?.ref?.clone() }));
  }
}
