import { BuildError } from "@kiln/base";
import { parseDockerReference, referenceName } from "@kiln/oci";
import { isTrue, type PreparedOutput } from "./outputs.ts";

/** What the nodes push and under which names the whole is to be had. */
export interface NodePush {
  /** Comma list of tags; "" when nothing is pushed. */
  readonly names: string;
  readonly insecure: boolean;
}

/**
 * Readies a node's outputs when other nodes build other platforms: images are pushed by digest, without tags.
 * @throws BuildError for outputs that can't be put together.
 */
export function prepareNodePush(outputs: readonly PreparedOutput[]): NodePush {
  for (const { type } of outputs) {
    if (type === "oci" || type === "tar") {
      throw new BuildError("unimplemented", `${type} for multi-node builds currently not supported`);
    }
  }
  const image = outputs.find(({ type, attrs }) => type === "image" && isTrue(attrs.get("push")));
  if (image === undefined) return { names: "", insecure: false };
  const names = image.attrs.get("name") ?? "";
  if (names === "") throw new BuildError("invalid_argument", "tag is needed when pushing to registry");
  const repositories = names.split(",").map((name) => referenceName(parseDockerReference(name)));
  image.attrs.set("name", [...new Set(repositories)].join(","));
  image.attrs.set("push-by-digest", "true");
  return { names, insecure: isTrue(image.attrs.get("registry.insecure")) };
}
