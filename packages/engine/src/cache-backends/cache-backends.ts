import { withSignal, wrapError } from "@kiln/base";
import { quoteGo } from "@kiln/formats";
import { CacheChains, chainSource } from "@kiln/solver/remote-cache";
import type { RefManager } from "@kiln/store";
import type { CacheImport } from "../frontends/frontend.ts";
import type { OpContext, OpResult } from "../op-context.ts";
import { cacheKeyOf, type OpenCacheImport } from "../solve/bridge.ts";
import { azblobCache } from "./azure/azblob-cache.ts";
import { invalid, parseGoBool } from "./cache-attrs.ts";
import type { CacheBackend, CacheBackendHost } from "./cache-backend.ts";
import type { CacheExport, CacheExportEntry, ResolveCacheExports } from "./cache-exporter.ts";
import { ghaCache } from "./gha/gha-cache.ts";
import { ImportsUnderway, importedResults, refreshProviders } from "./imported-results.ts";
import { inlineCache } from "./inline-cache.ts";
import { localCache } from "./local-cache.ts";
import { registryCache } from "./registry-cache.ts";
import { runExport } from "./run-export.ts";
import { s3Cache } from "./s3/s3-cache.ts";

/** Both ways of all remote caches. */
export interface CacheBackends {
  readonly resolveExports: ResolveCacheExports;
  readonly openImport: OpenCacheImport;
}

/** Remote caches by type: `registry`, `local`, `inline` (export only), `s3`, `azblob`, `gha`. */
export function createCacheBackends(
  host: CacheBackendHost & {
    readonly refs: RefManager;
    /** Told of imports that failed: builds go on without them. */
    readonly onFailedImport: (error: unknown) => void;
  },
): CacheBackends {
  const backends: ReadonlyMap<string, CacheBackend> = new Map([
    ["registry", registryCache(host)],
    ["local", localCache(host)],
    ["s3", s3Cache(host)],
    ["azblob", azblobCache(host)],
    ["gha", ghaCache(host)],
  ]);
  const underway = new ImportsUnderway();
  const results = importedResults(host.refs, underway);
  return {
    resolveExports: (entries) => {
      const exports: CacheExport[] = [];
      let inline = false;
      for (const entry of withoutDuplicates(entries)) {
        if (entry.type === "inline") inline = true;
        else exports.push(exportOf(host, backends, entry));
      }
      return { exports, inline: inline ? inlineCache : undefined };
    },
    openImport: async (entry, builder, unneeded) => {
      const id = cacheKeyOf(entry);
      const chains = new CacheChains();
      const how = { backends, refs: host.refs, underway, chains, unneeded };
      try {
        const vertex = { name: `importing cache manifest from ${id}` };
        const found = await builder.inVertex(vertex, (ctx) => readImport(entry, how, ctx), unneeded);
        return found ? chainSource<OpResult>(id, chains, results) : undefined;
      } catch (error) {
        if (!unneeded.aborted) host.onFailedImport(wrapError(error, `importing cache from ${id}`));
        return undefined;
      }
    },
  };
}

/** Reads a cache into `chains`. False when it is given up because nothing needs it any more. */
async function readImport(
  entry: CacheImport,
  how: {
    readonly backends: ReadonlyMap<string, CacheBackend>;
    readonly refs: RefManager;
    readonly underway: ImportsUnderway;
    readonly chains: CacheChains;
    readonly unneeded: AbortSignal;
  },
  ctx: OpContext,
): Promise<boolean> {
  const ids = ctx.sessions.ids();
  const read = async (): Promise<void> => {
    const backend = how.backends.get(entry.type);
    if (backend === undefined) throw invalid(`unknown cache importer: ${entry.type}`);
    const cache = await configured(`${entry.type} cache importer`, () =>
      backend.importer(entry.attrs).open(ctx),
    );
    await cache.read(how.chains);
    refreshProviders(how.refs, how.chains, { ids, underway: how.underway });
  };
  const reading = read();
  reading.catch(() => undefined); // may end after everybody has left
  how.underway.add(ids, reading);
  try {
    await withSignal(reading, ctx.signal);
    return true;
  } catch (error) {
    if (how.unneeded.aborted) return false;
    throw error;
  }
}

function exportOf(
  host: CacheBackendHost,
  backends: ReadonlyMap<string, CacheBackend>,
  { type, attrs }: CacheExportEntry,
): CacheExport {
  const backend = backends.get(type);
  if (backend === undefined) throw invalid(`unknown cache exporter: ${quoteGo(type)}`);
  const sender = named(`${type} cache exporter`, () => backend.exporter(attrs));
  const mode = attrs.get("mode") === "max" ? "max" : "min";
  return {
    name: backend.exportName,
    ignoreError: parseGoBool(attrs.get("ignore-error") ?? "") ?? false,
    run: (trees, ctx) => runExport(trees, { sender, mode, blobs: host.blobs }, ctx),
  };
}

function named<T>(what: string, make: () => T): T {
  try {
    return make();
  } catch (error) {
    throw wrapError(error, `failed to configure ${what}`);
  }
}

async function configured<T>(what: string, make: () => Promise<T>): Promise<T> {
  try {
    return await make();
  } catch (error) {
    throw wrapError(error, `failed to configure ${what}`);
  }
}

/** A second `inline` says nothing new; anything else that is asked for twice is a mistake. */
function withoutDuplicates(entries: readonly CacheExportEntry[]): readonly CacheExportEntry[] {
  const byKey = new Map<string, CacheExportEntry>();
  const duplicates = new Map<string, string>();
  let inline: CacheExportEntry | undefined;
  for (const entry of entries) {
    if (entry.type === "inline") {
      inline ??= entry;
      continue;
    }
    const key = cacheKeyOf(entry);
    if (byKey.has(key)) duplicates.set(key, entry.type);
    byKey.set(key, entry);
  }
  if (duplicates.size > 0) throw invalid(`duplicate cache exports [${[...duplicates.values()].join(" ")}]`);
  return inline === undefined ? [...byKey.values()] : [...byKey.values(), inline];
}
