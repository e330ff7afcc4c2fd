import { readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { BuildError, errorMessage } from "@kiln/base";
import { checkProvenanceEnvironment, type ProvenanceEnvironment } from "@kiln/engine";

/**
 * Reads the fields that an operator adds to every provenance: the objects of all `*.json` files of a
 * directory, later names over earlier ones. A directory that isn't there gives none.
 *
 * @throws BuildError `invalid_argument` for a file that holds no JSON object, or a field that is built in.
 */
export function loadProvenanceEnvironment(dir: string): ProvenanceEnvironment {
  const environment: Record<string, ProvenanceEnvironment[string]> = Object.create(null);
  for (const name of namesIn(dir)) {
    const path = join(dir, name);
    if (!name.endsWith(".json") || statSync(path).isDirectory()) continue;
    Object.assign(environment, parseObject(readFileSync(path, "utf8"), name));
  }
  checkProvenanceEnvironment(environment);
  return environment;
}

function namesIn(dir: string): string[] {
  try {
    return readdirSync(dir).sort();
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return [];
    throw error;
  }
}

function parseObject(text: string, name: string): ProvenanceEnvironment {
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch (error) {
    throw new BuildError("invalid_argument", `failed to parse ${name}: ${errorMessage(error)}`);
  }
  if (parsed === null) return {};
  if (typeof parsed !== "object" || Array.isArray(parsed)) {
    throw new BuildError("invalid_argument", `failed to parse ${name}: not a JSON object`);
  }
  return parsed as ProvenanceEnvironment;
}
