import type { BuildHistoryRecord, BuildResultInfo, Descriptor } from "@kiln/api/control";
import { isBuildError } from "@kiln/base";
import { parseManifestDocument } from "@kiln/oci";
import type { ContentStore } from "@kiln/store";

/** A record names one index of some manifests; more than this isn't followed. */
const MAX_MANIFESTS = 1000;

/**
 * Digests that a record keeps in the content store: what it names, and what the manifests of its results
 * name, without layers, which the build cache decides about.
 */
export async function blobsOf(content: ContentStore, record: BuildHistoryRecord): Promise<Set<string>> {
  const out = new Set<string>();
  const results: BuildResultInfo[] = Object.values(record.Results);
  if (record.Result !== undefined) results.push(record.Result);
  const add = (descriptor: Descriptor | undefined): void => {
    if (descriptor !== undefined && content.has(descriptor.digest)) out.add(descriptor.digest);
  };
  for (const one of [record.logs, record.trace, record.externalError]) add(one);
  for (const result of results) {
    for (const one of result.Attestations) add(one);
    for (const one of [result.ResultDeprecated, ...Object.values(result.Results)]) {
      if (one === undefined) continue;
      add(one);
      await follow(content, one.digest, out);
    }
  }
  return out;
}

async function follow(content: ContentStore, root: string, out: Set<string>): Promise<void> {
  const queue = [root];
  for (let read = 0; read < MAX_MANIFESTS; read++) {
    const digest = queue.shift();
    if (digest === undefined) return;
    if (!content.has(digest)) continue;
    out.add(digest);
    const document = documentOf(await content.readAll(digest));
    for (const child of document?.manifests ?? []) queue.push(child);
    if (document?.config !== undefined && content.has(document.config)) out.add(document.config);
  }
}

function documentOf(
  bytes: Uint8Array,
): { readonly manifests: readonly string[]; readonly config: string | undefined } | undefined {
  try {
    const parsed = parseManifestDocument(bytes);
    return parsed.kind === "index"
      ? { manifests: parsed.index.manifests.map((one) => one.digest), config: undefined }
      : { manifests: [], config: parsed.manifest.config.digest };
  } catch (error) {
    if (!isBuildError(error)) throw error;
    // results needn't be images; other artefacts aren't followed
    return undefined;
  }
}
