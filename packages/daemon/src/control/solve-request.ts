import type { CacheOptionsEntry, SolveRequest as SolveMessage } from "@kiln/api/control";
import {
  type CacheExportEntry,
  type CacheImport,
  type ExporterEntry,
  isEpoch,
  type SolveRequest,
} from "@kiln/engine";

/**
 * Reads `Control.Solve`, translating what old clients say (buildkit.md §2.1): one exporter, one cache
 * export by ref, cache imports by ref. New clients fill both; the new fields then win.
 */
export function solveRequestOf(message: SolveMessage, traceParent?: string): SolveRequest {
  const frontendAttrs = new Map(Object.entries(message.FrontendAttrs));
  const epoch = frontendAttrs.get("build-arg:SOURCE_DATE_EPOCH");
  return {
    ref: message.Ref,
    sessionId: message.Session,
    solve: {
      definition: message.Definition,
      frontend: message.Frontend,
      frontendAttrs,
      frontendInputs: new Map(Object.entries(message.FrontendInputs)),
      cacheImports: cacheImports(message),
      sourcePolicies: [],
      evaluate: false,
    },
    exporters: exporters(message).map((entry) => withEpoch(entry, epoch)),
    cacheExports: cacheExports(message),
    entitlements: message.Entitlements,
    internal: message.Internal,
    sourcePolicy: message.SourcePolicy,
    sourcePolicySession: message.SourcePolicySession,
    enableSessionExporter: message.EnableSessionExporter,
    compatibilityVersion: Number(message.CompatibilityVersion),
    proxyNetwork: message.ProxyNetwork,
    traceParent,
  };
}

function exporters(message: SolveMessage): ExporterEntry[] {
  if (message.Exporters.length > 0) {
    return message.Exporters.map(({ Type, Attrs }) => ({
      type: Type,
      attrs: new Map(Object.entries(Attrs)),
    }));
  }
  if (message.ExporterDeprecated === "") return [];
  return [
    { type: message.ExporterDeprecated, attrs: new Map(Object.entries(message.ExporterAttrsDeprecated)) },
  ];
}

/** Names of contexts and stages are for the frontend to work out; it tells exporters by its result. */
function withEpoch(entry: ExporterEntry, epoch: string | undefined): ExporterEntry {
  if (epoch === undefined || !(epoch === "" || isEpoch(epoch)) || entry.attrs.has("source-date-epoch"))
    return entry;
  return { ...entry, attrs: new Map([...entry.attrs, ["source-date-epoch", epoch]]) };
}

function cacheExports(message: SolveMessage): CacheExportEntry[] {
  const cache = message.Cache;
  if (cache === undefined) return [];
  const entries = cache.Exports.map(entryOf);
  if (cache.ExportRefDeprecated !== "") {
    const attrs = new Map(Object.entries(cache.ExportAttrsDeprecated));
    attrs.set("ref", cache.ExportRefDeprecated);
    entries.push({ type: "registry", attrs });
  }
  return entries;
}

function cacheImports(message: SolveMessage): CacheImport[] {
  const cache = message.Cache;
  if (cache === undefined) return [];
  return [
    ...cache.Imports.map(entryOf),
    ...cache.ImportRefsDeprecated.map((ref) => ({ type: "registry", attrs: new Map([["ref", ref]]) })),
  ];
}

function entryOf({ Type, Attrs }: CacheOptionsEntry): { type: string; attrs: Map<string, string> } {
  return { type: Type, attrs: new Map(Object.entries(Attrs)) };
}
