import { createHash } from "node:crypto";
import type { CacheMapAnswer } from "@kiln/solver";
import type { Capture } from "../attestations/provenance/capture.ts";
import type { LlbOp, Op, OpContext, OpResult } from "../op-context.ts";
import type { SourceInstance } from "../sources/source.ts";

/** Fetches a tree from somewhere: LLB's `SourceOp`. */
export class SourceOperation implements Op {
  readonly #source: SourceInstance;
  readonly #acquire: (ctx: OpContext) => Promise<() => void>;
  #pin = "";

  constructor(source: SourceInstance, acquire: (ctx: OpContext) => Promise<() => void>) {
    this.#source = source;
    this.#acquire = acquire;
  }

  /** Notes the source among what went into a build; nothing before its first cache key. */
  capture(into: Capture): void {
    if (this.#pin !== "") this.#source.capture(into, this.#pin);
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
