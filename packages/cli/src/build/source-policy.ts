import { readFileSync } from "node:fs";
import { fromJson } from "@bufbuild/protobuf";
import { type Policy, PolicySchema } from "@kiln/api/sourcepolicy";
import { BuildError, codeOfNodeError, errorMessage, nodeReason } from "@kiln/base";

/** The policy of `EXPERIMENTAL_BUILDKIT_SOURCE_POLICY`, undefined when there is none. */
export function readSourcePolicy(env: Readonly<Record<string, string | undefined>>): Policy | undefined {
  const path = env.EXPERIMENTAL_BUILDKIT_SOURCE_POLICY;
  return path ? readSourcePolicyFile(path) : undefined;
}

/** Reads a policy in JSON. @throws BuildError naming the file. */
export function readSourcePolicyFile(path: string): Policy {
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (error) {
    const reason = `failed to read policy file: open ${path}: ${nodeReason(error)}`;
    throw new BuildError(codeOfNodeError(error), reason, { cause: error });
  }
  try {
    return fromJson(PolicySchema, JSON.parse(text), { ignoreUnknownFields: true });
  } catch (error) {
    throw new BuildError("invalid_argument", `failed to parse source policy: ${errorMessage(error)}`, {
      cause: error,
    });
  }
}
