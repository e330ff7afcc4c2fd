import type { ResultProxy } from "../frontends/frontend.ts";
import type { BuildResult } from "../solve/build-results.ts";
import type { ObservedBuild } from "../solve/engine.ts";
import { resultPlatforms } from "../solve/result-platforms.ts";
import { parseAttests } from "./attest-attrs.ts";
import { rewriteJson } from "./json-text.ts";
import { createProvenance, parseProvenanceOptions } from "./provenance/create-provenance.ts";
import type { ProvenanceEnvironment } from "./provenance/predicate.ts";
import { captureResult } from "./provenance/result-capture.ts";
import { platformRef } from "./result-attestations.ts";

/** A provenance predicate as a history keeps it. */
export interface RecordedProvenance {
  readonly predicateType: string;
  /** Indented JSON. */
  readonly predicate: Uint8Array;
}

/**
 * The full provenance (SLSA v1) of every tree of a finished build, by the tree's key, `""` for the only one.
 * Call it while the build's job lives.
 */
export async function recordedProvenance(
  build: ObservedBuild,
  result: BuildResult<ResultProxy>,
  environment: ProvenanceEnvironment,
  signal: AbortSignal,
): Promise<Map<string, RecordedProvenance>> {
  const asked = parseAttests(build.request.solve.frontendAttrs).provenance;
  const builderId = asked?.get("builder-id");
  const attrs = new Map([
    ["mode", "max"],
    ["capture-usage", "true"],
    ...(builderId === undefined ? [] : [["builder-id", builderId] as const]),
  ]);
  const options = parseProvenanceOptions(attrs, environment);
  const found = new Map<string, RecordedProvenance>();
  for (const { id, platform } of resultPlatforms(result.metadata)) {
    const ref = platformRef(result, id);
    const captured = captureResult(build.bridge, result, id);
    if (ref === undefined || captured === undefined) continue;
    const draft = createProvenance({ build, ref, platform, captured }, options);
    const text = rewriteJson(await draft.text(signal), "  ");
    found.set(result.refs === undefined ? "" : id, {
      predicateType: draft.predicateType,
      predicate: new TextEncoder().encode(text),
    });
  }
  return found;
}
