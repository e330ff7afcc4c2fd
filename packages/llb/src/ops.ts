import { BuildError } from "@kiln/base";
import { Cap } from "./caps.ts";
import type { OpOptions } from "./metadata.ts";
import { State } from "./state.ts";
import {
  BuilderVertex,
  type Draft,
  fixedOutput,
  inputOf,
  type MarshalOptions,
  type Output,
} from "./vertex.ts";

class MergeVertex extends BuilderVertex {
  readonly #inputs: readonly Output[];

  constructor(inputs: readonly Output[], options: OpOptions) {
    super(options);
    this.#inputs = inputs;
  }

  override inputs(): readonly Output[] {
    return this.#inputs;
  }

  protected override draft(options: MarshalOptions): Draft {
    const inputs = this.#inputs.map((input) => inputOf(input, options));
    return {
      body: { kind: "merge", inputs: inputs.map((_, i) => i) },
      inputs,
      caps: [Cap.mergeOp],
      anyPlatform: true,
    };
  }
}

/**
 * Lays file systems over each other, later ones above; empty ones are left out. The settings are those of
 * the first that isn't empty.
 */
export function merge(states: readonly State[], options: OpOptions = {}): State {
  const filled = states.filter((state) => state.output !== undefined);
  const first = filled[0];
  if (first === undefined) return scratch();
  if (filled.length === 1) return first;
  const vertex = new MergeVertex(
    filled.map((state) => state.output!),
    options,
  );
  return first.withOutput(fixedOutput(vertex, () => 0));
}

class DiffVertex extends BuilderVertex {
  readonly #lower: Output | undefined;
  readonly #upper: Output | undefined;

  constructor(lower: Output | undefined, upper: Output | undefined, options: OpOptions) {
    super(options);
    this.#lower = lower;
    this.#upper = upper;
  }

  override inputs(): readonly Output[] {
    return [this.#lower, this.#upper].filter((output) => output !== undefined);
  }

  protected override draft(options: MarshalOptions): Draft {
    const inputs = this.inputs().map((input) => inputOf(input, options));
    const lower = this.#lower === undefined ? -1 : 0;
    const upper = this.#upper === undefined ? -1 : lower + 1;
    return { body: { kind: "diff", lower, upper }, inputs, caps: [Cap.diffOp], anyPlatform: true };
  }
}

/** What `upper` changes in `lower`, as a file system with the settings of `lower`. */
export function diff(lower: State, upper: State, options: OpOptions = {}): State {
  if (lower.output === undefined) return upper.output === undefined ? scratch() : upper;
  return lower.withOutput(fixedOutput(new DiffVertex(lower.output, upper.output, options), () => 0));
}

/** The empty file system. */
export function scratch(): State {
  return State.of();
}

/** An input of {@link passthrough}; with `output` it is handed on. */
export interface PassthroughInput {
  readonly state: State;
  readonly output?: boolean | undefined;
}

class PassthroughVertex extends BuilderVertex {
  readonly #id: string;
  readonly #inputs: readonly Output[];
  readonly #outputs: readonly number[];

  constructor(id: string, inputs: readonly PassthroughInput[], options: OpOptions) {
    super(options);
    this.#id = id;
    const filled = inputs.filter(({ state }) => state.output !== undefined);
    this.#inputs = filled.map(({ state }) => state.output!);
    this.#outputs = filled.flatMap(({ output }, i) => (output ? [i] : []));
  }

  get outputCount(): number {
    return this.#outputs.length;
  }

  override inputs(): readonly Output[] {
    return this.#inputs;
  }

  protected override draft(options: MarshalOptions): Draft {
    if (this.#inputs.length === 0) throw invalid("passthrough must have at least one input");
    if (this.#id === "") throw invalid("passthrough requires an id");
    if (this.#outputs.length === 0) throw invalid("passthrough must have at least one output");
    return {
      body: { kind: "passthrough", id: this.#id, outputs: this.#outputs },
      inputs: this.#inputs.map((input) => inputOf(input, options)),
      caps: [Cap.passthroughOp],
      anyPlatform: true,
    };
  }
}

/** Hands file systems on once all inputs are there; one state per input with `output`, in order. */
export function passthrough(
  id: string,
  inputs: readonly PassthroughInput[],
  options: OpOptions = {},
): readonly State[] {
  const vertex = new PassthroughVertex(id, inputs, options);
  const handed = inputs.filter(({ state, output }) => output && state.output !== undefined);
  return handed.map(({ state }, i) => state.withOutput(fixedOutput(vertex, () => i)));
}

/** What {@link build} takes. */
export interface BuildOptions extends OpOptions {
  /** Name of the file with the definition; `buildkit.llb.definition` by default. */
  readonly filename?: string | undefined;
}

class BuildVertex extends BuilderVertex {
  readonly #source: Output;
  readonly #filename: string;

  constructor(source: Output, options: BuildOptions) {
    super(options);
    this.#source = source;
    this.#filename = options.filename ?? "";
  }

  override inputs(): readonly Output[] {
    return [this.#source];
  }

  protected override draft(options: MarshalOptions): Draft {
    const attrs = new Map<string, string>();
    if (this.#filename !== "") attrs.set("llbbuild.filename", this.#filename);
    return {
      body: {
        kind: "build",
        build: { builder: -1, inputs: new Map([["buildkit.llb.definition", 0]]), attrs },
      },
      inputs: [inputOf(this.#source, options)],
      caps: [Cap.buildOpLlbFileName],
    };
  }
}

/** Solves the definition that lies as a file in `source`. */
export function build(source: State, options: BuildOptions = {}): State {
  if (source.output === undefined) throw invalid("a build needs a source");
  return source.withOutput(fixedOutput(new BuildVertex(source.output, options), () => 0));
}

function invalid(message: string): BuildError {
  return new BuildError("invalid_argument", message);
}
