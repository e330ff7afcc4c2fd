import { fromBinary } from "@bufbuild/protobuf";
import { type Op, OpSchema } from "@kiln/api/pb";
import { BuildError } from "@kiln/base";
import { type Digest, type Platform, sha256 } from "@kiln/oci";
import type { Definition } from "./definition.ts";
import type { OpMetadata } from "./metadata.ts";
import type { SourceLocation } from "./source-map.ts";
import { State } from "./state.ts";
import type { MarshaledVertex, Output, Vertex } from "./vertex.ts";

const NO_METADATA: OpMetadata = { ignoreCache: false, description: new Map(), caps: new Set() };

/** A vertex of a definition that was made elsewhere; its bytes stay as they are. */
class ForeignVertex implements Vertex {
  readonly result: MarshaledVertex;
  readonly #op: Op;
  readonly #graph: Map<Digest, ForeignVertex>;

  constructor(op: Op, result: MarshaledVertex, graph: Map<Digest, ForeignVertex>) {
    this.#op = op;
    this.result = result;
    this.#graph = graph;
  }

  get platform(): Platform | undefined {
    const p = this.#op.platform;
    if (p === undefined) return undefined;
    return {
      architecture: p.Architecture,
      os: p.OS,
      variant: p.Variant || undefined,
      "os.version": p.OSVersion || undefined,
      "os.features": p.OSFeatures.length === 0 ? undefined : p.OSFeatures,
    };
  }

  inputs(): readonly Output[] {
    return this.#op.inputs.map((input) => {
      const vertex = this.#graph.get(input.digest as Digest);
      if (vertex === undefined) {
        throw new BuildError("invalid_argument", `invalid missing input digest ${input.digest}`);
      }
      return { vertex: () => vertex, index: () => Number(input.index) };
    });
  }

  marshal(): MarshaledVertex {
    return this.result;
  }
}

/**
 * The state that a definition describes, to build on. Throws `invalid_argument` with BuildKit's texts for
 * malformed definitions.
 */
export function stateFromDefinition(definition: Definition): State {
  const graph = new Map<Digest, ForeignVertex>();
  let head: Op | undefined;
  for (const bytes of definition.def) {
    head = decodeOp(bytes);
    const digest = sha256(bytes);
    const metadata = definition.metadata.get(digest) ?? NO_METADATA;
    const result = { digest, bytes, metadata, locations: locationsFor(definition, digest) };
    graph.set(digest, new ForeignVertex(head, result, graph));
  }
  if (head === undefined) return State.of();
  const input = head.inputs[0];
  if (input === undefined) {
    throw new BuildError("invalid_argument", "invalid definition with no inputs on last vertex");
  }
  const vertex = graph.get(input.digest as Digest);
  if (vertex === undefined) {
    throw new BuildError("invalid_argument", `invalid definition op with unknown op "${input.digest}"`);
  }
  return State.of({ vertex: () => vertex, index: () => Number(input.index), platform: vertex.platform });
}

function decodeOp(bytes: Uint8Array): Op {
  try {
    return fromBinary(OpSchema, bytes);
  } catch (error) {
    throw new BuildError("invalid_argument", "failed to parse llb proto op", { cause: error });
  }
}

function locationsFor(definition: Definition, digest: Digest): SourceLocation[] {
  const source = definition.source;
  return (source?.locations.get(digest) ?? []).map((location) => {
    const map = source!.infos[location.sourceIndex];
    if (map === undefined) {
      throw new BuildError(
        "invalid_argument",
        `failed to find source map with index ${location.sourceIndex}`,
      );
    }
    return { map, ranges: location.ranges };
  });
}
