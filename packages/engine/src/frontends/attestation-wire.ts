import { create } from "@bufbuild/protobuf";
import {
  AttestationKind,
  type Attestation as AttestationMessage,
  AttestationSchema,
  InTotoSubjectKind,
  type Ref,
} from "@kiln/api/gateway";
import { BuildError } from "@kiln/base";
import type { Attestation } from "../solve/build-results.ts";
import type { ResultProxy } from "./frontend.ts";

/** An attestation as it goes over the gateway. */
export function attestationToWire(
  attestation: Attestation<ResultProxy>,
  ref: Ref | undefined,
): AttestationMessage {
  return create(AttestationSchema, {
    kind: attestation.kind === "bundle" ? AttestationKind.Bundle : AttestationKind.InToto,
    metadata: Object.fromEntries(attestation.metadata),
    ...(ref === undefined ? {} : { ref }),
    path: attestation.path,
    inTotoPredicateType: attestation.predicateType,
    inTotoSubjects: attestation.subjects.map((subject) => ({
      kind: subject.kind === "raw" ? InTotoSubjectKind.Raw : InTotoSubjectKind.Self,
      name: subject.name,
      digest: [...subject.digests],
    })),
  });
}

/** @throws BuildError `invalid_argument` for a kind that isn't known. */
export function attestationFromWire(
  message: AttestationMessage,
  ref: ResultProxy | undefined,
): Attestation<ResultProxy> {
  return {
    kind: kindOf(message.kind),
    metadata: new Map(Object.entries(message.metadata)),
    ref,
    path: message.path,
    predicateType: message.inTotoPredicateType,
    subjects: message.inTotoSubjects.map((subject) => ({
      kind: subjectKindOf(subject.kind),
      name: subject.name,
      digests: subject.digest,
    })),
  };
}

function kindOf(kind: AttestationKind): "in-toto" | "bundle" {
  if (kind === AttestationKind.InToto) return "in-toto";
  if (kind === AttestationKind.Bundle) return "bundle";
  throw new BuildError("invalid_argument", `unknown attestation kind ${kind}`);
}

function subjectKindOf(kind: InTotoSubjectKind): "self" | "raw" {
  if (kind === InTotoSubjectKind.Self) return "self";
  if (kind === InTotoSubjectKind.Raw) return "raw";
  throw new BuildError("invalid_argument", `unknown attestation subject kind ${kind}`);
}
