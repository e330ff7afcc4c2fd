import { createHash } from "node:crypto";
import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { type Definition, NetMode, type Op, type OpMetadata, OpSchema, PlatformSchema } from "@kiln/api/pb";
import { BuildError, errorMessage, wrapError } from "@kiln/base";
import { normalizePlatform, type Platform } from "@kiln/oci";
import type { Edge, VertexOptions } from "@kiln/solver";
import type { LlbOp, LlbVertex } from "../op-context.ts";
import { hostPlatform } from "../worker/host-platform.ts";
import { validateOp } from "./validate-op.ts";
import { vertexName } from "./vertex-name.ts";

/** Vertices of one definition; more are refused. */
const MAX_VERTICES = 1_000_000;

/** An op while it is being loaded. */
export interface LoadingOp {
  readonly op: Op;
  readonly metadata: OpMetadata | undefined;
  /** Digest of the bytes as they came. */
  readonly originalDigest: string;
}

/** What is done to ops on the way. */
export interface LoadOptions {
  /** May change a source op (policies). Called for every source, several at a time. */
  readonly onSource?: (op: Op) => Promise<boolean>;
  /** Checks an op, or throws. */
  readonly onOp?: (loading: LoadingOp) => void;
}

const PROXY_NETWORK_SUFFIX = Buffer.from("\0buildkit.proxy-network.v0");

/**
 * Turns a definition into vertices and returns the edge that it asks for.
 *
 * A vertex's digest is that of the bytes that came: an op is marshalled again only when a policy has changed
 * it or one of its inputs.
 *
 * @throws BuildError `invalid_argument` in BuildKit's words for a malformed graph, whatever is wrong with it.
 */
export async function loadDefinition(
  definition: Definition,
  opts: LoadOptions & { readonly proxyNetwork?: boolean },
): Promise<Edge<LlbOp>> {
  const ops = decodeOps(definition);
  checkLocations(definition);
  const changed = new Set<string>();
  if (opts.onSource !== undefined) {
    const sources = [...ops.entries()].filter(([, loading]) => loading.op.op.case === "source");
    await Promise.all(
      sources.map(async ([digest, { op }]) => {
        try {
          if (await opts.onSource?.(op)) changed.add(digest);
        } catch (error) {
          throw wrapError(error, "error evaluating the source policy");
        }
      }),
    );
  }
  if (ops.size < 2) throw invalid(`invalid LLB with ${ops.size} vertexes`);
  const last = digestOf(definition.def.at(-1) as Uint8Array);
  const terminal = ops.get(last) as LoadingOp;
  const first = terminal.op.inputs[0];
  if (first === undefined) throw invalid("invalid LLB with no inputs on last vertex");
  const graph = new GraphBuilder(ops, changed, opts);
  const vertex = graph.vertex(first.digest, last);
  return { vertex, index: Number(first.index) };
}

function decodeOps(definition: Definition): Map<string, LoadingOp> {
  if (definition.def.length === 0) throw invalid("invalid empty definition");
  if (definition.def.length > MAX_VERTICES)
    throw invalid(`invalid LLB with ${definition.def.length} vertexes`);
  const ops = new Map<string, LoadingOp>();
  for (const bytes of definition.def) {
    let op: Op;
    try {
      op = fromBinary(OpSchema, bytes);
    } catch (error) {
      throw invalid(`failed to parse llb proto op: ${errorMessage(error)}`);
    }
    for (const [at, input] of op.inputs.entries()) {
      if (input.index < 0n || input.index > 0xffffffffn) {
        throw invalid(`invalid input ${at} output index ${input.index}`);
      }
    }
    const digest = digestOf(bytes);
    const metadata = Object.hasOwn(definition.metadata, digest) ? definition.metadata[digest] : undefined;
    ops.set(digest, { op, metadata, originalDigest: digest });
  }
  return ops;
}

function checkLocations(definition: Definition): void {
  const source = definition.Source;
  if (source === undefined) return;
  for (const [digest, locations] of Object.entries(source.locations)) {
    for (const location of locations.locations) {
      if (location.sourceIndex < 0 || location.sourceIndex >= source.infos.length) {
        throw invalid(`invalid source index ${location.sourceIndex} for vertex ${digest}`);
      }
    }
  }
}

/** Builds vertices bottom-up without recursion: graphs may be very deep. */
class GraphBuilder {
  readonly #ops: ReadonlyMap<string, LoadingOp>;
  readonly #changed: ReadonlySet<string>;
  readonly #opts: LoadOptions & { readonly proxyNetwork?: boolean };
  readonly #done = new Map<string, LlbVertex>();

  constructor(
    ops: ReadonlyMap<string, LoadingOp>,
    changed: ReadonlySet<string>,
    opts: LoadOptions & { readonly proxyNetwork?: boolean },
  ) {
    this.#ops = ops;
    this.#changed = changed;
    this.#opts = opts;
  }

  vertex(root: string, terminal: string): LlbVertex {
    const stack = [root];
    const open = new Set<string>();
    while (stack.length > 0) {
      const digest = stack.at(-1) as string;
      if (this.#done.has(digest)) {
        stack.pop();
        continue;
      }
      const loading = digest === terminal ? undefined : this.#ops.get(digest);
      if (loading === undefined) throw invalid(`invalid missing input digest ${digest}`);
      const missing = loading.op.inputs
        .map((input) => input.digest)
        .filter((input) => !this.#done.has(input));
      if (missing.length === 0) {
        this.#done.set(digest, this.#build(digest, loading));
        stack.pop();
        continue;
      }
      // a graph of hashes has no loops; one that pretends to has is malformed
      if (open.has(digest)) throw invalid(`invalid loop at vertex ${digest}`);
      open.add(digest);
      stack.push(...missing);
    }
    return this.#done.get(root) as LlbVertex;
  }

  #build(digest: string, loading: LoadingOp): LlbVertex {
    const { op, metadata } = loading;
    validateOp(op);
    const inputs = op.inputs.map((input) => ({
      vertex: this.#done.get(input.digest) as LlbVertex,
      index: Number(input.index),
    }));
    const finalDigest = this.#digest(digest, loading, inputs);
    normalizeOpPlatform(op);
    this.#opts.onOp?.(loading);
    const description = metadata?.description ?? {};
    return {
      digest: finalDigest,
      inputs,
      name: vertexName(op, description, (input) => inputs[input]?.vertex.name ?? ""),
      options: vertexOptions(op, metadata),
      op: {
        op,
        originalDigest: loading.originalDigest,
        linuxResources: op.op.case === "exec" ? metadata?.linuxResources : undefined,
        proxied: op.op.case === "exec" && this.#isProxied(op),
      },
    };
  }

  /** True where a proxy network makes a difference. */
  #isProxied(op: Op): boolean {
    if (this.#opts.proxyNetwork !== true) return false;
    return op.op.case === "build" || (op.op.case === "exec" && op.op.value.network !== NetMode.NONE);
  }

  #digest(digest: string, { op }: LoadingOp, inputs: readonly Edge<LlbOp>[]): string {
    let changed = this.#changed.has(digest);
    for (const [at, input] of op.inputs.entries()) {
      const now = inputs[at]?.vertex.digest as string;
      if (now === input.digest) continue;
      input.digest = now;
      changed = true;
    }
    const proxied = this.#isProxied(op);
    if (!changed && !proxied) return digest;
    const hash = createHash("sha256").update(toBinary(OpSchema, op));
    if (proxied) hash.update(PROXY_NETWORK_SUFFIX);
    return `sha256:${hash.digest("hex")}`;
  }
}

function vertexOptions(op: Op, metadata: OpMetadata | undefined): VertexOptions {
  const group = metadata?.progressGroup;
  return {
    ignoreCache: metadata?.ignoreCache ?? false,
    exportCache: metadata?.exportCache?.Value,
    description: metadata?.description,
    progressGroup: group && { id: group.id, name: group.name, weak: group.weak },
    metadata: op.op.case === "exec" ? metadata?.linuxResources : undefined,
  };
}

function normalizeOpPlatform(op: Op): void {
  const given = op.platform;
  const host = hostPlatform();
  const platform: Platform = normalizePlatform(
    given === undefined
      ? host
      : {
          os: given.OS,
          architecture: given.Architecture,
          variant: given.Variant,
          "os.version": given.OSVersion,
          "os.features": given.OSFeatures,
        },
  );
  op.platform = create(PlatformSchema, {
    OS: platform.os,
    Architecture: platform.architecture,
    Variant: platform.variant ?? "",
    OSVersion: platform["os.version"] ?? "",
    OSFeatures: [...(platform["os.features"] ?? [])],
  });
}

function digestOf(bytes: Uint8Array): string {
  return `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
}

function invalid(message: string): BuildError {
  return new BuildError("invalid_argument", message);
}
