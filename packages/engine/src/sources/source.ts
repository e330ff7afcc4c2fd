import type { Platform } from "@kiln/oci";
import type { ImmutableRef } from "@kiln/store";
import type { Capture } from "../attestations/provenance/capture.ts";
import type { OpContext } from "../op-context.ts";

/** A source op as it stands in LLB: `<scheme>://<ref>` and its attributes. */
export interface SourceRequest {
  readonly identifier: string;
  readonly attrs: ReadonlyMap<string, string>;
  /** Platform of the op; only image and layout sources look at it. */
  readonly platform: Platform | undefined;
}

/** One of the cache keys of a source, in the words of BuildKit's `SourceInstance.CacheKey`. */
export interface SourceCacheKey {
  /** The text that the vertex's cache digest is made from; `session:…` never matches another build. */
  readonly key: string;
  /** What the source was resolved to (digest, commit): goes into provenance as the material's pin. */
  readonly pin: string;
  /** No further key: the last index. */
  readonly done: boolean;
}

/**
 * One source of one vertex. `cacheKey` is asked for index 0, 1, … until one says `done`; `snapshot` is
 * called at most once, after the keys, and only when no cached result serves. Both may be called again by
 * other builds later: nothing of one client's session may be kept in it beyond what `ctx.sessions` gives.
 */
export interface SourceInstance {
  cacheKey(index: number, ctx: OpContext): Promise<SourceCacheKey>;
  /** The tree; undefined for one without any layer. The caller owns the ref. */
  snapshot(ctx: OpContext): Promise<ImmutableRef | undefined>;
  /**
   * Notes the source as something that went into a build, resolved to `pin`.
   *
   * @throws BuildError `data_loss` for a pin that contradicts what the source names.
   */
  capture(into: Capture, pin: string): void;
}

/** A kind of source. */
export interface Source {
  /** Schemes it serves, without `://`. */
  readonly schemes: readonly string[];
  /**
   * Checks the request and binds it.
   *
   * @throws BuildError `invalid_argument` for a malformed identifier or attribute.
   */
  resolve(request: SourceRequest): SourceInstance;
  /**
   * The one way to write what an identifier names, which policies are matched against; identifiers of
   * sources without it are taken as they are.
   *
   * @throws BuildError `invalid_argument` for a malformed identifier.
   */
  canonical?(identifier: string): string;
}
