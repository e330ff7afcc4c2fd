import { BuildError, wrapError } from "@kiln/base";
import { csvFields, quoteGo } from "@kiln/formats";

/** The attestations that a request asks for, with their parameters. */
export interface AttestRequests {
  readonly sbom: ReadonlyMap<string, string> | undefined;
  readonly provenance: ReadonlyMap<string, string> | undefined;
}

const PREFIXES = ["attest:", "build-arg:BUILDKIT_ATTEST_"];
const DEFAULT_GENERATOR = "docker/buildkit-syft-scanner:stable-1";

/**
 * Reads `attest:<type>` and `build-arg:BUILDKIT_ATTEST_<TYPE>` of a request.
 *
 * @throws BuildError `invalid_argument` for an unknown type or malformed parameters.
 */
export function parseAttests(attrs: ReadonlyMap<string, string>): AttestRequests {
  const found = new Map<string, Map<string, string>>();
  for (const [key, value] of attrs) {
    const prefix = PREFIXES.find((start) => key.startsWith(start));
    if (prefix === undefined) continue;
    const type = key.slice(prefix.length).toLowerCase();
    found.set(type, parseParameters(type, value));
  }
  for (const type of found.keys()) {
    if (type === "sbom" || type === "provenance") continue;
    throw new BuildError("invalid_argument", `unknown attestation type ${quoteGo(type)}`);
  }
  return { sbom: found.get("sbom"), provenance: found.get("provenance") };
}

function parseParameters(type: string, text: string): Map<string, string> {
  const parameters = new Map<string, string>();
  if (type === "sbom") parameters.set("generator", DEFAULT_GENERATOR);
  if (type === "provenance") parameters.set("version", "v1");
  if (text === "") return parameters;
  let fields: readonly string[];
  try {
    fields = csvFields(text);
  } catch (error) {
    throw wrapError(error, `failed to parse ${type}`);
  }
  for (const field of fields) {
    const equals = field.indexOf("=");
    if (equals < 0) parameters.set(field, "");
    else parameters.set(field.slice(0, equals), field.slice(equals + 1));
  }
  return parameters;
}
