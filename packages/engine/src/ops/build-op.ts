import { fromBinary } from "@bufbuild/protobuf";
import { type BuildOp, BuildOpSchema, type Definition, DefinitionSchema } from "@kiln/api/pb";
import { BuildError } from "@kiln/base";
import type { CacheMapAnswer } from "@kiln/solver";
import { localMount } from "@kiln/sys";
import { goStruct } from "../cache-digest/go-json.ts";
import type { LlbOp, Op, OpContext, OpResult } from "../op-context.ts";
import { readRegularFile } from "../regular-file.ts";
import { jsonDigest } from "./json-digest.ts";

/** Solves a nested definition on behalf of a vertex; the caller releases the result. */
export type NestedSolve = (definition: Definition, ctx: OpContext) => Promise<OpResult>;

const DEFINITION_INPUT = "buildkit.llb.definition";
const DEFAULT_FILE_NAME = "buildkit.llb.definition";
const FILE_NAME_ATTR = "llbbuild.filename";
/** Definitions over this size are refused. */
const MAX_DEFINITION_BYTES = 64 << 20;

/** Builds the definition that lies in a file of an input: LLB's `BuildOp`. */
export class BuildOperation implements Op {
  readonly #op: BuildOp;
  readonly #inputCount: number;
  readonly #solve: NestedSolve;

  constructor(op: BuildOp, opts: { inputCount: number; solve: NestedSolve }) {
    if (op.builder !== -1n) {
      throw new BuildError("invalid_argument", "only LLB builder is currently allowed");
    }
    this.#op = op;
    this.#inputCount = opts.inputCount;
    this.#solve = opts.solve;
  }

  async cacheMap(): Promise<CacheMapAnswer<LlbOp, OpResult>> {
    const digest = jsonDigest({ Type: "buildkit.build.v0", Exec: goStruct(BuildOpSchema, this.#op) });
    return { cacheMap: { digest, deps: Array.from({ length: this.#inputCount }, () => ({})) }, done: true };
  }

  async acquire(): Promise<() => void> {
    return () => undefined;
  }

  async exec(inputs: readonly OpResult[], ctx: OpContext): Promise<readonly OpResult[]> {
    const named = Object.hasOwn(this.#op.inputs, DEFINITION_INPUT)
      ? this.#op.inputs[DEFINITION_INPUT]
      : undefined;
    if (named === undefined) {
      throw new BuildError("invalid_argument", `no llb definition input ${DEFINITION_INPUT} found`);
    }
    const input = inputs[Number(named.input)];
    if (input === undefined) throw new BuildError("invalid_argument", `invalid index ${named.input}`);
    const definition = fromBinary(DefinitionSchema, await this.#readDefinition(input, ctx));
    return [await this.#solve(definition, ctx)];
  }

  async #readDefinition(input: OpResult, ctx: OpContext): Promise<Uint8Array> {
    const name = this.#op.attrs[FILE_NAME_ATTR] ?? DEFAULT_FILE_NAME;
    if (input.ref === undefined) {
      throw new BuildError("not_found", `open ${name}: no such file or directory`);
    }
    await using mountable = await input.ref.mount(true, { signal: ctx.signal, session: ctx.sessions });
    using dir = localMount(mountable.mounts);
    return readRegularFile(dir.path, name, MAX_DEFINITION_BYTES);
  }
}
