/** The result of a build as another build's context: `target:` contexts of bake. */
import type { Result } from "@kiln/api/gateway";
import type { Definition } from "@kiln/api/pb";
import { goJson } from "@kiln/formats";

/** One context of a build that another build's result stands for. */
export interface LinkedContext {
  /** The context's name. */
  readonly name: string;
  /** Names the result among the frontend's inputs. */
  readonly key: string;
  readonly result: Result | undefined;
}

/** What of a result's metadata the frontend wants to know: the image's configuration. */
const METADATA_KEYS = ["containerimage.config", "containerimage.buildinfo"];

/** Puts linked contexts into frontend attributes and inputs. A result for several platforms gives one each. */
export async function addLinkedContexts(
  contexts: readonly LinkedContext[],
  attrs: Map<string, string>,
  inputs: Map<string, Definition>,
): Promise<void> {
  for (const { name, key, result } of contexts) {
    const refs = refsOf(result);
    if (refs.every(({ platform }) => platform !== undefined)) attrs.delete(`context:${name}`);
    for (const { platform, definition } of refs) {
      const suffix = platform === undefined ? "" : `::${platform}`;
      attrs.set(`context:${name}${suffix}`, `input:${key}${suffix}`);
      inputs.set(key + suffix, definition ?? (await emptyTree()));
      const metadata = metadataOf(result, platform === undefined ? "" : `/${platform}`);
      if (metadata !== undefined) attrs.set(`input-metadata:${key}${suffix}`, metadata);
    }
  }
}

function refsOf(
  result: Result | undefined,
): { readonly platform?: string; readonly definition: Definition | undefined }[] {
  if (result?.result.case === "refs") {
    const refs = Object.entries(result.result.value.refs);
    return refs.map(([platform, { def }]) => ({ platform, definition: def }));
  }
  return [{ definition: result?.result.case === "ref" ? result.result.value.def : undefined }];
}

/** A result without files, as that of `FROM scratch`, has no definition; inputs must have one. */
async function emptyTree(): Promise<Definition> {
  const { definitionMessage, scratch } = await import("@kiln/llb");
  const root = scratch().file({ kind: "mkdir", path: "/", mode: 0o755, parents: true });
  return definitionMessage(root.marshal());
}

function metadataOf(result: Result | undefined, suffix: string): string | undefined {
  const found = METADATA_KEYS.flatMap((key) => {
    const value = result?.metadata[key + suffix];
    return value === undefined ? [] : [[key, Buffer.from(value).toString("base64")] as const];
  });
  return found.length === 0 ? undefined : goJson(new Map([...found].sort(([a], [b]) => (a < b ? -1 : 1))));
}
