import { create } from "@bufbuild/protobuf";
import {
  AttestationKind,
  type Attestation as AttestationMessage,
  InTotoSubjectKind,
  type Ref,
  type Result,
  ResultSchema,
  type SolveResponse,
} from "@kiln/api/gateway";
import { BuildError } from "@kiln/base";
import type { FrontendAttestation, FrontendRef } from "@kiln/dockerfile";
import { formatPlatformAll, normalizePlatform, type Platform, platformJson } from "@kiln/oci";
import { refMessage } from "./frontend-ref.ts";

/** What a frontend gives back. Without `ref` and `refs` it is the empty file system. */
export interface ReturnedResult {
  readonly ref?: FrontendRef | undefined;
  /** By the ids that the metadata `refs.platforms` has. */
  readonly refs?: ReadonlyMap<string, FrontendRef | undefined> | undefined;
  /** Such as `containerimage.config`; texts are sent as UTF-8. */
  readonly metadata?: ReadonlyMap<string, Uint8Array | string> | undefined;
  /** By the ids of `refs`. */
  readonly attestations?: ReadonlyMap<string, readonly FrontendAttestation[]> | undefined;
}

/** An image for one platform. */
export interface PlatformImage {
  readonly platform: Platform;
  readonly ref: FrontendRef | undefined;
  /** The image config: an object, or its JSON. */
  readonly config: object | string;
}

/**
 * The result for one or several images: their file systems, configs and platforms. One image gives a plain
 * result, unless `multi` asks for a list with one entry.
 */
export function imageResult(images: readonly PlatformImage[], multi = images.length > 1): ReturnedResult {
  const metadata = new Map<string, string>();
  const refs = new Map<string, FrontendRef | undefined>();
  const platforms = [];
  for (const { platform, ref, config } of images) {
    const normal = normalizePlatform(platform);
    const id = formatPlatformAll(normal);
    const text = typeof config === "string" ? config : JSON.stringify(config);
    metadata.set(multi ? `containerimage.config/${id}` : "containerimage.config", text);
    refs.set(id, ref);
    platforms.push({ ID: id, Platform: platformJson(normal) });
  }
  metadata.set("refs.platforms", JSON.stringify({ Platforms: platforms }));
  return multi ? { refs, metadata } : { ref: images[0]?.ref, metadata };
}

/** The wire form of a result. `array`: the daemon takes refs with definitions. */
export function resultMessage(result: ReturnedResult, array: boolean): Result {
  const encoder = new TextEncoder();
  const message = create(ResultSchema, {});
  for (const [key, value] of result.metadata ?? []) {
    setKey(message.metadata, key, typeof value === "string" ? encoder.encode(value) : value);
  }
  for (const [key, list] of result.attestations ?? []) {
    setKey(message.attestations, key, {
      $typeName: "moby.buildkit.v1.frontend.Attestations",
      attestation: list.map(attestationMessage),
    });
  }
  message.result = refsMessage(result, array);
  return message;
}

function refsMessage({ ref, refs }: ReturnedResult, array: boolean): Result["result"] {
  if (refs === undefined) {
    const value = refMessage(ref);
    return array ? { case: "ref", value } : { case: "refDeprecated", value: value.id };
  }
  const all = [...refs].map(([key, item]) => [key, refMessage(item)] as const);
  if (array) {
    const value = { $typeName: "moby.buildkit.v1.frontend.RefMap" as const, refs: Object.fromEntries(all) };
    return { case: "refs", value };
  }
  const ids = Object.fromEntries(all.map(([key, item]) => [key, item.id]));
  return {
    case: "refsDeprecated",
    value: { $typeName: "moby.buildkit.v1.frontend.RefMapDeprecated", refs: ids },
  };
}

/** Sets a key that may be `__proto__`. */
function setKey<T>(record: Record<string, T>, key: string, value: T): void {
  Object.defineProperty(record, key, { value, enumerable: true, configurable: true, writable: true });
}

function attestationMessage(item: FrontendAttestation): AttestationMessage {
  return {
    $typeName: "moby.buildkit.v1.frontend.Attestation",
    kind: item.kind === "bundle" ? AttestationKind.Bundle : AttestationKind.InToto,
    metadata: Object.fromEntries(item.metadata),
    ref: refMessage(item.ref),
    path: item.path ?? "",
    inTotoPredicateType: item.predicateType,
    inTotoSubjects: (item.subjects ?? []).map(({ kind, name, digests }) => ({
      $typeName: "moby.buildkit.v1.frontend.InTotoSubject",
      kind: kind === "raw" ? InTotoSubjectKind.Raw : InTotoSubjectKind.Self,
      name,
      digest: [...digests],
    })),
  };
}

/** What a solve gives. */
export interface SolvedResult<R extends FrontendRef> {
  readonly ref: R | undefined;
  readonly refs: ReadonlyMap<string, R | undefined> | undefined;
  readonly metadata: ReadonlyMap<string, Uint8Array>;
  readonly attestations: ReadonlyMap<string, readonly FrontendAttestation[]>;
}

/** Reads the answer to a solve. `open` makes a ref of an id and what came with it. */
export function solvedResult<R extends FrontendRef>(
  response: SolveResponse,
  open: (ref: Ref) => R,
): SolvedResult<R> {
  const refOf = (ref: Ref | undefined): R | undefined =>
    ref === undefined || ref.id === "" ? undefined : open(ref);
  const ofId = (id: string): R | undefined => refOf({ $typeName: "moby.buildkit.v1.frontend.Ref", id });
  const { result } = response;
  const refs = (entries: Iterable<readonly [string, R | undefined]>) => ({
    ref: undefined,
    refs: new Map(entries),
  });
  const trees = (() => {
    switch (result?.result.case) {
      case "ref":
        return { ref: refOf(result.result.value), refs: undefined };
      case "refDeprecated":
        return { ref: ofId(result.result.value), refs: undefined };
      case "refs":
        return refs(Object.entries(result.result.value.refs).map(([key, ref]) => [key, refOf(ref)] as const));
      case "refsDeprecated":
        return refs(Object.entries(result.result.value.refs).map(([key, id]) => [key, ofId(id)] as const));
      case undefined:
        return { ref: ofId(result === undefined ? response.ref : ""), refs: undefined };
    }
  })();
  return {
    ...trees,
    metadata: new Map(Object.entries(result?.metadata ?? {})),
    attestations: new Map(
      Object.entries(result?.attestations ?? {}).map(([key, { attestation }]) => [
        key,
        attestation.map((item) => attestationOf(item, refOf(item.ref))),
      ]),
    ),
  };
}

function attestationOf(message: AttestationMessage, ref: FrontendRef | undefined): FrontendAttestation {
  if (message.kind !== AttestationKind.InToto && message.kind !== AttestationKind.Bundle) {
    throw new BuildError("invalid_argument", `unknown attestation kind ${message.kind}`);
  }
  return {
    kind: message.kind === AttestationKind.Bundle ? "bundle" : "in-toto",
    ref,
    metadata: new Map(Object.entries(message.metadata)),
    predicateType: message.inTotoPredicateType,
    path: message.path,
    subjects: message.inTotoSubjects.map(({ kind, name, digest }) => ({
      kind: kind === InTotoSubjectKind.Raw ? "raw" : "self",
      name,
      digests: digest,
    })),
  };
}
