import { BuildError, errorMessage } from "@kiln/base";
import { createScanner, SPDX_PREDICATE, sbomMetadata } from "@kiln/dockerfile";
import { definitionFromMessage, definitionMessage, stateFromDefinition } from "@kiln/llb";
import { formatReference, parseDockerReference, withDefaultTag } from "@kiln/oci";
import { resolveImage } from "../frontends/dockerfile-frontend.ts";
import type { FrontendResult, ResultProxy } from "../frontends/frontend.ts";
import type { JobBridge } from "../solve/bridge.ts";
import type { Attestation } from "../solve/build-results.ts";
import type { ResultProcessor } from "../solve/engine.ts";
import { resultPlatforms } from "../solve/result-platforms.ts";
import { platformRef, withAttestations } from "./result-attestations.ts";

/**
 * Scans a result's trees with a generator image, unless its frontend has done so already. The scans are
 * steps like any others; they are part of the build's progress but not of its provenance.
 *
 * @throws BuildError `invalid_argument` for a generator that is no image name.
 */
export function sbomProcessor(
  attrs: ReadonlyMap<string, string>,
  frontendAttrs: ReadonlyMap<string, string>,
): ResultProcessor {
  const parameters = new Map(attrs);
  const generator = generatorOf(parameters);
  parameters.delete("generator");
  const resolveMode = frontendAttrs.get("image-resolve-mode") ?? "default";
  const ignoreCache = frontendAttrs.get("no-cache") === "";
  return async (result, build, signal) => {
    if (hasSbom(result)) return result;
    const bridge = build.bridge.sibling();
    const platform = bridge.platforms[0];
    if (platform === undefined) throw new BuildError("internal", "no platform to scan on");
    const scan = await createScanner(
      { resolveImageConfig: (ref, options) => resolveImage(bridge, signal, { ref, options }) },
      { generator, parameters },
      { platform, resolveMode },
    );
    const added = new Map<string, Attestation<ResultProxy>>();
    try {
      for (const { id } of resultPlatforms(result.metadata)) {
        const definition = platformRef(result, id)?.definition;
        if (definition === undefined) continue;
        const state = scan({
          id,
          core: stateFromDefinition(definitionFromMessage(definition)),
          extras: new Map(),
          options: ignoreCache ? { ignoreCache: true } : {},
        });
        const ref = await solveState(bridge, definitionMessage(state.marshal()), signal);
        added.set(id, bundleOf(ref));
      }
    } catch (error) {
      for (const { ref } of added.values()) await ref?.release();
      throw error;
    }
    return withAttestations(result, added);
  };
}

function generatorOf(attrs: ReadonlyMap<string, string>): string {
  const generator = attrs.get("generator") ?? "";
  if (generator === "") throw new BuildError("invalid_argument", "sbom generator cannot be empty");
  try {
    return formatReference(withDefaultTag(parseDockerReference(generator)));
  } catch (error) {
    throw new BuildError(
      "invalid_argument",
      `failed to parse sbom generator ${generator}: ${errorMessage(error)}`,
      { cause: error },
    );
  }
}

function hasSbom(result: FrontendResult): boolean {
  return [...result.attestations.values()].flat().some((item) => item.predicateType === SPDX_PREDICATE);
}

async function solveState(
  bridge: JobBridge,
  definition: Parameters<JobBridge["solve"]>[0]["definition"],
  signal: AbortSignal,
): Promise<ResultProxy | undefined> {
  const result = await bridge.solve(
    {
      definition,
      frontend: "",
      frontendAttrs: new Map(),
      frontendInputs: new Map(),
      cacheImports: [],
      sourcePolicies: [],
      evaluate: false,
    },
    signal,
  );
  return result.ref;
}

function bundleOf(ref: ResultProxy | undefined): Attestation<ResultProxy> {
  return {
    kind: "bundle",
    metadata: sbomMetadata,
    ref,
    path: "",
    predicateType: SPDX_PREDICATE,
    subjects: [],
  };
}
