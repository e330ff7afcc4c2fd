import type { Descriptor } from "@kiln/oci";
import {
  type CachedResult,
  type CacheExportResult,
  type CacheExportTarget,
  exportCache,
  type RemoteDescriptor,
} from "@kiln/solver";
import type { GoJson } from "../../cache-digest/go-json.ts";
import { removeInternalAnnotations } from "../../exporters/image/layer-types.ts";
import type { OpResult } from "../../op-context.ts";

/**
 * The layers that steps of a result have, by `step<N>:<output>`: those that exist as blobs by now, none is
 * made for this.
 *
 * @returns undefined when there are none.
 */
export async function builtLayers(
  result: CachedResult<OpResult>,
  indexes: ReadonlyMap<string, number>,
  signal: AbortSignal,
): Promise<GoJson | undefined> {
  const [key] = result.keys;
  if (key === undefined) return undefined;
  const collected = new LayerCollector(indexes);
  const cleanups: (() => void | Promise<void>)[] = [];
  await exportCache([key], collected, {
    mode: "remoteOnly",
    exportRoots: true,
    ignoreBacklinks: true,
    resolveRemotes: async () => [],
    release: (loaded) => loaded.ref?.release(),
    ctx: {
      signal,
      sessions: { ids: () => [] },
      progress: SILENT,
      cacheOption: () => undefined,
      vertexDigest: "",
      cleanup: (fn) => void cleanups.push(fn),
    },
  });
  for (const cleanup of cleanups) await cleanup();
  return collected.json();
}

const SILENT = {
  resume: () => () => undefined,
  status: () => undefined,
  log: () => undefined,
  warning: () => undefined,
};

class LayerCollector implements CacheExportTarget<object> {
  readonly #indexes: ReadonlyMap<string, number>;
  readonly #chains = new Map<string, RemoteDescriptor[][]>();

  constructor(indexes: ReadonlyMap<string, number>) {
    this.#indexes = indexes;
  }

  add(_digest: string, _inputs: unknown, results: readonly CacheExportResult[]): object {
    for (const { vertex, index, remote } of results) {
      const step = this.#indexes.get(vertex);
      if (step === undefined) continue;
      const name = `step${step}:${index}`;
      const chains = this.#chains.get(name) ?? [];
      this.#chains.set(name, chains);
      if (!chains.some((chain) => sameChain(chain, remote.descriptors))) chains.push([...remote.descriptors]);
    }
    return {};
  }

  json(): GoJson | undefined {
    if (this.#chains.size === 0) return undefined;
    const out: Record<string, GoJson> = Object.create(null);
    for (const [name, chains] of [...this.#chains].sort(([a], [b]) => (a < b ? -1 : 1))) {
      out[name] = chains.map((chain) => chain.map(descriptorJson));
    }
    return out;
  }
}

function sameChain(a: readonly RemoteDescriptor[], b: readonly RemoteDescriptor[]): boolean {
  return a.length === b.length && a.every((layer, at) => layer.digest === b[at]?.digest);
}

function descriptorJson(layer: RemoteDescriptor): GoJson {
  const { mediaType, digest, size, annotations } = removeInternalAnnotations(layer as Descriptor, true);
  return { mediaType, digest, size, annotations: annotations && { ...annotations } };
}
