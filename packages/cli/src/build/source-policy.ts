import { readFileSync } from "node:fs";
import { fromJson } from "@bufbuild/protobuf";
import { type Policy, PolicySchema } from "@kiln/api/sourcepolicy";
import { BuildError, errorMessage } from "@kiln/base";

/** The policy of `EXPERIMENTAL_BUILDKIT_SOURCE_POLICY`, undefined when there is none. */
export function readSourcePolicy(env: Readonly<Record<string, string | undefined>>): Policy | undefined {
  const path = env.EXPERIMENTAL_BUILDKIT_SOURCE_POLICY;
  return path ? readSourcePolicyFile(path) : undefined;
}

/** Reads a policy in JSON. @throws BuildError naming the file. */
export function readSourcePolicyFile(path: string): Policy {
  try {
    return fromJson(PolicySchema, JSON.parse(readFileSync(path, "utf8")), { ignoreUnknownFields: true });
  } catch (error) {
    throw new BuildError("invalid_argument", `failed to read source policy ${path}: ${errorMessage(error)}`, {
      cause: error,
    });
  }
}
