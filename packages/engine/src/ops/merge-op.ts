import { type MergeOp, MergeOpSchema } from "@kiln/api/pb";
import type { CacheMapAnswer } from "@kiln/solver";
import type { RefManager } from "@kiln/store";
import { goStruct } from "../cache-digest/go-json.ts";
import type { LlbOp, Op, OpResult } from "../op-context.ts";
import { jsonDigest } from "./json-digest.ts";

/** Lays trees over each other; nothing happens on disk until somebody looks. */
export class MergeOperation implements Op {
  readonly #op: MergeOp;
  readonly #inputCount: number;
  readonly #name: string;
  readonly #refs: RefManager;

  constructor(op: MergeOp, opts: { inputCount: number; name: string; refs: RefManager }) {
    this.#op = op;
    this.#inputCount = opts.inputCount;
    this.#name = opts.name;
    this.#refs = opts.refs;
  }

  async cacheMap(): Promise<CacheMapAnswer<LlbOp, OpResult>> {
    const digest = jsonDigest({ Type: "buildkit.merge.v0", Merge: goStruct(MergeOpSchema, this.#op) });
    return { cacheMap: { digest, deps: Array.from({ length: this.#inputCount }, () => ({})) }, done: true };
  }

  async acquire(): Promise<() => void> {
    return () => undefined;
  }

  async exec(inputs: readonly OpResult[]): Promise<readonly OpResult[]> {
    const parents = inputs.flatMap((input) => (input.ref === undefined ? [] : [input.ref]));
    if (parents.length === 0) return [{ ref: undefined }];
    return [{ ref: await this.#refs.merge(parents, { description: this.#name }) }];
  }
}
