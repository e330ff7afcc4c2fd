import type { CompressionOptions, ImmutableRef } from "@kiln/store";
import type { OpContext } from "../op-context.ts";
import type { BuildResult, ResultDescriptor } from "../solve/build-results.ts";

/** What exporters get: trees as refs, which they only borrow. */
export type ExportSource = BuildResult<ImmutableRef>;

/** The layers of one image, as they were before anything was rewritten. */
export interface InlineLayers {
  /** Base first. */
  readonly digests: readonly string[];
  readonly compression: CompressionOptions;
}

/**
 * Gives the records of an inline cache for one image: the JSON that goes into the image's config
 * (`moby.buildkit.cache.v0`), or nothing.
 */
export type InlineCache = (
  ref: ImmutableRef | undefined,
  layers: InlineLayers,
  ctx: OpContext,
) => Promise<Uint8Array | undefined>;

/** What an export may use besides its source. */
export interface ExportOptions {
  /** Ref of the build (`SolveRequest.Ref`). */
  readonly buildRef: string;
  /** Session of the client that gets files and tarballs. */
  readonly sessionId: string;
  readonly inlineCache: InlineCache | undefined;
  /** 10, 20 or 30 (buildkit.md §4.9). */
  readonly compatibilityVersion: number;
}

/** What an export gives. */
export interface ExportOutcome {
  /** Goes into `SolveResponse.ExporterResponse`. */
  readonly response: ReadonlyMap<string, string>;
  /** The artefact in the content store, for the history; kept from collection until `release`. */
  readonly descriptor?: ResultDescriptor;
  /** Rest of the work, done beside the cache exports: pushing. Called at most once. */
  readonly finalize?: (ctx: OpContext) => Promise<void>;
  readonly release?: () => void;
}

/** An exporter bound to its attributes: one `--output` of one build. */
export interface ExporterInstance {
  readonly type: string;
  /** Number of the output in the request. */
  readonly id: number;
  /** Name of its vertex, e.g. `exporting to image`. */
  readonly name: string;
  readonly attrs: ReadonlyMap<string, string>;
  /** Reports to `ctx.progress`. @throws BuildError; nothing half-written is left then. */
  export(source: ExportSource, opts: ExportOptions, ctx: OpContext): Promise<ExportOutcome>;
}

/** A kind of output. */
export interface Exporter {
  /** `image`, `oci`, `docker`, `local`, `tar`. */
  readonly type: string;
  /** @throws BuildError `invalid_argument` for attributes it can't take. */
  resolve(id: number, attrs: ReadonlyMap<string, string>): ExporterInstance;
}
