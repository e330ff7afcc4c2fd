import { BuildError } from "@kiln/base";
import type { FrontendResult, ResultProxy } from "../frontends/frontend.ts";
import type { Attestation } from "../solve/build-results.ts";

/** The tree of a platform; undefined for an empty one. @throws BuildError for one that the result lacks. */
export function platformRef(result: FrontendResult, id: string): ResultProxy | undefined {
  if (result.refs === undefined || result.refs.size === 0) return result.ref;
  if (!result.refs.has(id)) throw new BuildError("invalid_argument", `could not find ref ${id}`);
  return result.refs.get(id);
}

/** The result with one more attestation for each of some platforms. */
export function withAttestations(
  result: FrontendResult,
  added: ReadonlyMap<string, Attestation<ResultProxy>>,
): FrontendResult {
  const attestations = new Map(result.attestations);
  for (const [id, attestation] of added) attestations.set(id, [...(attestations.get(id) ?? []), attestation]);
  return { ...result, attestations };
}
