import { createHash } from "node:crypto";
import type { CacheMapAnswer } from "@kiln/solver";
import type { LlbOp, Op, OpContext, OpResult } from "../op-context.ts";
import type { SourceInstance } from "../sources/source.ts";

/** Called with what a source was resolved to, for provenance. */
export type PinListener = (pin: string) => void;

/** Fetches a tree from somewhere: LLB's `SourceOp`. */
export class SourceOperation implements Op {
  readonly #source: SourceInstance;
  readonly #acquire: (ctx: OpContext) => Promise<() => void>;
  #pin = "";

  constructor(source: SourceInstance, acquire: (ctx: OpContext) => Promise<() => void>) {
    this.#source = source;
    this.#acquire = acquire;
  }

  /** What the source was resolved to; "" before its first cache key. */
  get pin(): string {
    return this.#pin;
  }

  async cacheMap(index: number, ctx: OpContext): Promise<CacheMapAnswer<LlbOp, OpResult>> {
    const { key, pin, done } = await this.#source.cacheKey(index, ctx);
    if (this.#pin === "") this.#pin = pin;
    const hash = createHash("sha256").update(`buildkit.source.v0:${key}`).digest("hex");
    // what is bound to a session never matches another build's
    const algorithm = key.startsWith("session:") ? "random" : "sha256";
    return { cacheMap: { digest: `${algorithm}:${hash}`, deps: [] }, done };
  }

  acquire(ctx: OpContext): Promise<() => void> {
    return this.#acquire(ctx);
  }

  async exec(_inputs: readonly OpResult[], ctx: OpContext): Promise<readonly OpResult[]> {
    return [{ ref: await this.#source.snapshot(ctx) }];
  }
}
