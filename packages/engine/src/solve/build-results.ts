import type { Digest } from "@kiln/oci";

/** Kinds of attestation that a frontend or the engine attaches to a result. */
export type AttestationKind = "in-toto" | "bundle";

/** What an attestation speaks of; `self` is the thing that it is attached to. */
export interface AttestationSubject {
  readonly kind: "self" | "raw";
  readonly name: string;
  readonly digests: readonly string[];
}

/**
 * One attestation of a result (BuildKit's `result.Attestation`). Its predicate is a file of a tree, or what
 * `content` gives.
 */
export interface Attestation<TRef> {
  readonly kind: AttestationKind;
  /** `reason`, `inline-only`, `sbom-core` … */
  readonly metadata: ReadonlyMap<string, Uint8Array>;
  readonly ref: TRef | undefined;
  readonly path: string;
  readonly predicateType: string;
  readonly subjects: readonly AttestationSubject[];
  readonly content?: (opts: { readonly signal: AbortSignal }) => Promise<Uint8Array>;
}

/**
 * What a frontend returns and exporters get: one tree, or one per key (usually a platform), with metadata
 * such as `containerimage.config` and `refs.platforms` (buildkit.md §6.3). Of `ref` and `refs` at most one
 * is set; a missing tree is the empty one.
 */
export interface BuildResult<TRef> {
  readonly ref: TRef | undefined;
  readonly refs: ReadonlyMap<string, TRef | undefined> | undefined;
  readonly metadata: Map<string, Uint8Array>;
  /** By key of `refs`. */
  readonly attestations: ReadonlyMap<string, readonly Attestation<TRef>[]>;
}

/** A result with neither trees nor metadata. */
export function emptyResult<TRef>(): BuildResult<TRef> {
  return { ref: undefined, refs: undefined, metadata: new Map(), attestations: new Map() };
}

/** Every tree of a result, those of attestations too. */
export function* eachRef<TRef>(result: BuildResult<TRef>): Iterable<TRef> {
  if (result.ref !== undefined) yield result.ref;
  for (const ref of result.refs?.values() ?? []) if (ref !== undefined) yield ref;
  for (const list of result.attestations.values()) {
    for (const attestation of list) if (attestation.ref !== undefined) yield attestation.ref;
  }
}

/** The same result over other handles; `convert` is called once per handle. */
export function mapRefs<A, B>(result: BuildResult<A>, convert: (ref: A) => B | undefined): BuildResult<B> {
  const done = new Map<A, B | undefined>();
  const once = (ref: A | undefined): B | undefined => {
    if (ref === undefined) return undefined;
    if (!done.has(ref)) done.set(ref, convert(ref));
    return done.get(ref);
  };
  return {
    ref: once(result.ref),
    refs: result.refs && new Map([...result.refs].map(([key, ref]) => [key, once(ref)])),
    metadata: result.metadata,
    attestations: new Map(
      [...result.attestations].map(([key, list]) => [
        key,
        list.map((attestation) => ({ ...attestation, ref: once(attestation.ref) })),
      ]),
    ),
  };
}

/** Digest of a finished artefact, for history records. */
export interface ResultDescriptor {
  readonly mediaType: string;
  readonly digest: Digest;
  readonly size: number;
  readonly annotations?: Readonly<Record<string, string>> | undefined;
}
