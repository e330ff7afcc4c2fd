import { BuildError } from "@kiln/base";
import { type Digest, normalizePlatform, type Platform, sha256 } from "@kiln/oci";
import { encodeOp } from "./encode-op.ts";
import { locationsOf, metadataOf, type OpMetadata, type OpOptions } from "./metadata.ts";
import type { OpBody, OpInput, OpPlatform } from "./op.ts";
import type { SourceLocation } from "./source-map.ts";

/** What the marshalling of a whole definition decides for ops that say nothing themselves. */
export interface MarshalOptions {
  /** Platform of ops without one of their own; linux/amd64 by default. */
  readonly platform?: Platform | undefined;
  /**
   * Capabilities of the server. They change what is written where an old server would not understand the
   * new form. Undefined writes for a server that has them all but names none that depends on the server.
   */
  readonly caps?: ReadonlySet<string> | undefined;
  /** Value of `local.unique` for local sources without session. */
  readonly localUniqueId?: string | undefined;
}

/** A vertex in its final form. */
export interface MarshaledVertex {
  readonly digest: Digest;
  readonly bytes: Uint8Array;
  readonly metadata: OpMetadata;
  readonly locations: readonly SourceLocation[];
}

/** One op of a graph under construction. */
export interface Vertex {
  /** Every vertex that must be marshalled before this one. */
  inputs(): readonly Output[];
  /** The vertex in wire form; its inputs are asked for their digests. The same options give the same object. */
  marshal(options: MarshalOptions): MarshaledVertex;
}

/** One output of a vertex. */
export interface Output {
  readonly platform?: Platform | undefined;
  /** Undefined stands for an empty file system, found out late. */
  vertex(): Vertex | undefined;
  index(): number;
}

/** Digest and index of an output. */
export function inputOf(output: Output, options: MarshalOptions): OpInput {
  const vertex = output.vertex();
  if (vertex === undefined)
    throw new BuildError("invalid_argument", "an empty file system can't be an input");
  return { digest: vertex.marshal(options).digest, index: output.index() };
}

/** An op with what goes beside it, before encoding. */
export interface Draft {
  readonly body: OpBody;
  readonly inputs: readonly OpInput[];
  readonly caps: readonly string[];
  /** Leaves the platform out. */
  readonly anyPlatform?: boolean | undefined;
  /** Platform when the options name none. */
  readonly platform?: Platform | undefined;
}

/** A vertex made by the builders of this package. */
export abstract class BuilderVertex implements Vertex {
  readonly options: OpOptions;
  #for: MarshalOptions | undefined;
  #result: MarshaledVertex | undefined;

  constructor(options: OpOptions) {
    this.options = options;
  }

  abstract inputs(): readonly Output[];
  protected abstract draft(options: MarshalOptions): Draft;

  marshal(options: MarshalOptions): MarshaledVertex {
    if (this.#result !== undefined && this.#for === options) return this.#result;
    const draft = this.draft(options);
    const bytes = encodeOp({
      inputs: draft.inputs,
      body: draft.body,
      platform: draft.anyPlatform ? undefined : platformOf(this.options, draft, options),
      constraints: this.options.constraints ?? [],
    });
    this.#result = {
      digest: sha256(bytes),
      bytes,
      metadata: metadataOf(this.options, draft.caps),
      locations: locationsOf(this.options),
    };
    this.#for = options;
    return this.#result;
  }
}

const DEFAULT_PLATFORM: OpPlatform = { architecture: "amd64", os: "linux" };

function platformOf(own: OpOptions, draft: Draft, options: MarshalOptions): OpPlatform {
  const platform = own.platform ?? draft.platform ?? options.platform;
  return platform === undefined ? DEFAULT_PLATFORM : opPlatform(platform);
}

/** LLB's spelling of a platform. */
export function opPlatform(platform: Platform): OpPlatform {
  return {
    architecture: platform.architecture,
    os: platform.os,
    variant: platform.variant,
    osVersion: platform["os.version"],
    osFeatures: platform["os.features"],
  };
}

/** An output that is known from the start. */
export function fixedOutput(vertex: Vertex, index: () => number, platform?: Platform): Output {
  return { vertex: () => vertex, index, platform };
}

/** An output decided on first use: the build context, for example, whose filter depends on the whole build. */
export class LazyOutput implements Output {
  readonly #resolve: () => Output | undefined;
  #target: Output | undefined;
  #known = false;

  /** `resolve` is called once; undefined stands for an empty file system. */
  constructor(resolve: () => Output | undefined) {
    this.#resolve = resolve;
  }

  vertex(): Vertex | undefined {
    return this.#get()?.vertex();
  }

  index(): number {
    return this.#get()?.index() ?? 0;
  }

  #get(): Output | undefined {
    if (!this.#known) {
      this.#target = this.#resolve();
      this.#known = true;
    }
    return this.#target;
  }
}

/** The normalised form that states keep. */
export function statePlatform(platform: Platform): Platform {
  return normalizePlatform(platform);
}
