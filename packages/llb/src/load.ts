import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { type Definition as DefinitionMessage, type Op, type OpMetadata, OpSchema } from "@kiln/api/pb";
import { BuildError } from "@kiln/base";
import { type Digest, sha256 } from "@kiln/oci";
import { concatBytes } from "./bytes.ts";
import { opName } from "./op-name.ts";
import { checkOp } from "./validate-op.ts";
import { compareUtf8 } from "./wire.ts";

/** Vertices that a definition may have; more are refused unread. */
const MAX_VERTICES = 4_000_000;

/** A vertex of a definition from outside, checked. */
export interface LoadedVertex {
  readonly digest: Digest;
  readonly op: Op;
  /** Undefined when the definition says nothing about it. */
  readonly metadata: OpMetadata | undefined;
  readonly inputs: readonly LoadedEdge[];
  /** `llb.customname`, else what the op does. */
  readonly name: string;
}

/** One output of a vertex. */
export interface LoadedEdge {
  readonly vertex: LoadedVertex;
  readonly index: number;
}

/** An op between decoding and linking, which may still be changed. */
export interface DecodedOp {
  /** Changes count only together with {@link DecodedOp.changed}. */
  readonly op: Op;
  readonly metadata: OpMetadata | undefined;
  readonly bytes: Uint8Array;
  /** Says that `op` no longer is what `bytes` say, so that digests are computed anew. */
  changed: boolean;
  /** Goes into the digest beside the op's bytes. */
  digestSuffix?: Uint8Array | undefined;
}

/** The ops of a definition by digest, and the one that names the result. */
export interface DecodedDefinition {
  readonly ops: ReadonlyMap<Digest, DecodedOp>;
  readonly head: Digest;
}

/** Options of {@link loadDefinition}. */
export interface LoadOptions {
  /** Sees every op that the result needs, inputs first; may throw to refuse it, and normalise it. */
  readonly check?: ((op: Op, metadata: OpMetadata | undefined) => void) | undefined;
}

/**
 * Loads a definition: decodes, checks and links it. Throws `invalid_argument` with BuildKit's texts. Runs in
 * linear time and without recursion, whatever the definition looks like.
 */
export function loadDefinition(definition: DefinitionMessage, options: LoadOptions = {}): LoadedEdge {
  return linkDefinition(decodeDefinition(definition), options);
}

/** Decodes the ops. A source policy changes them here, before {@link linkDefinition}. */
export function decodeDefinition(definition: DefinitionMessage): DecodedDefinition {
  if (definition.def.length === 0) throw invalid("invalid empty definition");
  if (definition.def.length > MAX_VERTICES)
    throw invalid(`invalid LLB with ${definition.def.length} vertexes`);
  checkSource(definition);
  const ops = new Map<Digest, DecodedOp>();
  let head: Digest | undefined;
  for (const bytes of definition.def) {
    const op = decodeOp(bytes);
    op.inputs.forEach((input, i) => {
      if (input.index < 0n) throw invalid(`invalid input ${i} output index ${input.index}`);
    });
    head = sha256(bytes);
    const metadata = Object.hasOwn(definition.metadata, head) ? definition.metadata[head] : undefined;
    ops.set(head, { op, metadata, bytes, changed: false });
  }
  return { ops, head: head! };
}

function decodeOp(bytes: Uint8Array): Op {
  try {
    return fromBinary(OpSchema, bytes);
  } catch (error) {
    throw new BuildError("invalid_argument", "failed to parse llb proto op", { cause: error });
  }
}

function checkSource(definition: DefinitionMessage): void {
  const source = definition.Source;
  if (source === undefined) return;
  for (const digest of Object.keys(source.locations)) {
    for (const location of source.locations[digest]!.locations) {
      if (location.sourceIndex < 0 || location.sourceIndex >= source.infos.length) {
        throw invalid(`invalid source index ${location.sourceIndex} for vertex ${digest}`);
      }
    }
  }
}

/** Checks the ops that the result needs and connects them. */
export function linkDefinition(decoded: DecodedDefinition, options: LoadOptions = {}): LoadedEdge {
  if (decoded.ops.size < 2) throw invalid(`invalid LLB with ${decoded.ops.size} vertexes`);
  const input = decoded.ops.get(decoded.head)!.op.inputs[0];
  if (input === undefined) throw invalid("invalid LLB with no inputs on last vertex");
  const done = new Map<Digest, LoadedVertex>();
  const linker = new Linker(decoded, options, done);
  return { vertex: linker.load(input.digest as Digest), index: Number(input.index) };
}

interface Frame {
  readonly digest: Digest;
  readonly decoded: DecodedOp;
  next: number;
}

class Linker {
  readonly #decoded: DecodedDefinition;
  readonly #options: LoadOptions;
  /** By the digest in the definition. */
  readonly #done: Map<Digest, LoadedVertex>;
  readonly #unique = new Map<Digest, LoadedVertex>();

  constructor(decoded: DecodedDefinition, options: LoadOptions, done: Map<Digest, LoadedVertex>) {
    this.#decoded = decoded;
    this.#options = options;
    this.#done = done;
  }

  load(root: Digest): LoadedVertex {
    const open = new Set<Digest>();
    const stack: Frame[] = [this.#enter(root, open)];
    for (let top = stack.at(-1); top !== undefined; top = stack.at(-1)) {
      const inputs = top.decoded.op.inputs;
      if (top.next === inputs.length) {
        this.#done.set(top.digest, this.#finish(top));
        open.delete(top.digest);
        stack.pop();
        continue;
      }
      const digest = inputs[top.next++]!.digest as Digest;
      if (!this.#done.has(digest)) stack.push(this.#enter(digest, open));
    }
    return this.#done.get(root)!;
  }

  #enter(digest: Digest, open: Set<Digest>): Frame {
    // The head only names the result, and a digest of oneself can't be had.
    const decoded = digest === this.#decoded.head ? undefined : this.#decoded.ops.get(digest);
    if (decoded === undefined || open.has(digest)) throw invalid(`invalid missing input digest ${digest}`);
    checkOp(decoded.op);
    open.add(digest);
    return { digest, decoded, next: 0 };
  }

  #finish(frame: Frame): LoadedVertex {
    const { op, metadata, bytes, digestSuffix } = frame.decoded;
    const inputs = op.inputs.map((input) => ({
      vertex: this.#done.get(input.digest as Digest)!,
      index: Number(input.index),
    }));
    let changed = frame.decoded.changed;
    op.inputs.forEach((input, i) => {
      const digest = inputs[i]!.vertex.digest;
      if (digest === input.digest) return;
      input.digest = digest;
      changed = true;
    });
    const encoded = changed ? encodeMessage(op) : bytes;
    const digest = sha256(digestSuffix === undefined ? encoded : concatBytes(encoded, digestSuffix));
    const known = this.#unique.get(digest);
    if (known !== undefined) return known;
    this.#options.check?.(op, metadata);
    const names = inputs.map((input) => input.vertex.name);
    const vertex = { digest, op, metadata, inputs, name: opName(op, metadata, names) };
    this.#unique.set(digest, vertex);
    return vertex;
  }
}

/** Bytes of a changed op, in the order of fields that digests are made from. */
function encodeMessage({ inputs, platform, constraints, op }: Op): Uint8Array {
  if (op.case === "source") op.value.attrs = sortedRecord(op.value.attrs);
  const front = create(OpSchema, {
    inputs,
    ...(platform === undefined ? {} : { platform }),
    ...(constraints === undefined ? {} : { constraints }),
  });
  return concatBytes(toBinary(OpSchema, front), toBinary(OpSchema, create(OpSchema, { op })));
}

function sortedRecord(record: Record<string, string>): Record<string, string> {
  return Object.fromEntries(Object.entries(record).sort(([a], [b]) => compareUtf8(a, b)));
}

function invalid(message: string): BuildError {
  return new BuildError("invalid_argument", message);
}
