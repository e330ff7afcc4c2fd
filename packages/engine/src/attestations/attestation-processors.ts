import type { ResultProxy } from "../frontends/frontend.ts";
import type { Attestation } from "../solve/build-results.ts";
import type { ResultProcessor, SolveRequest } from "../solve/engine.ts";
import { resultPlatforms } from "../solve/result-platforms.ts";
import { parseAttests } from "./attest-attrs.ts";
import { createProvenance, parseProvenanceOptions } from "./provenance/create-provenance.ts";
import type { ProvenanceEnvironment } from "./provenance/predicate.ts";
import { captureResult } from "./provenance/result-capture.ts";
import { platformRef, withAttestations } from "./result-attestations.ts";
import { sbomProcessor } from "./sbom-processor.ts";

/**
 * What makes the attestations that a request asks for: first SBOMs, then provenance.
 *
 * @param environment fields that the operator adds to every provenance.
 * @throws BuildError `invalid_argument` for a request that asks for what there isn't.
 */
export function attestationProcessors(
  request: SolveRequest,
  environment: ProvenanceEnvironment = {},
): readonly ResultProcessor[] {
  const { frontendAttrs } = request.solve;
  const { sbom, provenance } = parseAttests(frontendAttrs);
  const processors: ResultProcessor[] = [];
  if (sbom !== undefined) processors.push(sbomProcessor(sbom, frontendAttrs));
  if (provenance !== undefined) processors.push(provenanceProcessor(provenance, environment));
  return processors;
}

function provenanceProcessor(
  attrs: ReadonlyMap<string, string>,
  environment: ProvenanceEnvironment,
): ResultProcessor {
  const options = parseProvenanceOptions(attrs, environment);
  const inlineOnly = /^(?:1|t|true)$/i.test(attrs.get("inline-only") ?? "");
  const path = attrs.get("filename") ?? "provenance.json";
  return async (result, build) => {
    const added = new Map<string, Attestation<ResultProxy>>();
    for (const { id, platform } of resultPlatforms(result.metadata)) {
      const ref = platformRef(result, id);
      const captured = captureResult(build.bridge, result, id);
      if (ref === undefined || captured === undefined) continue;
      const draft = createProvenance({ build, ref, platform, captured }, options);
      added.set(id, {
        kind: "in-toto",
        metadata: new Map([
          ["reason", Buffer.from("provenance")],
          ["inline-only", Buffer.from(String(inlineOnly))],
        ]),
        ref: undefined,
        path,
        predicateType: draft.predicateType,
        subjects: [],
        content: async ({ signal }) => Buffer.from(await draft.text(signal)),
      });
    }
    return withAttestations(result, added);
  };
}
