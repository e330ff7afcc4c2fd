import { errorMessage, isBuildError } from "@kiln/base";
import {
  attestationProcessors,
  CacheBlobs,
  createArchiveExporter,
  createCacheBackends,
  createGatewayFrontend,
  createImageExporter,
  createLocalExporter,
  createPolicyEvaluator,
  createPusher,
  createTarExporter,
  dockerfileFrontend,
  Engine,
  type Exporter,
  type Frontend,
  ImageWriter,
  type ProvenanceEnvironment,
  RefResultStore,
  type SessionExporters,
  SqliteKeyStore,
} from "@kiln/engine";
import { HttpTransport } from "@kiln/registry";
import { finalizeExport, findExporters, type SessionManager } from "@kiln/session";
import type { ComposedWorker } from "./compose-worker.ts";
import type { DaemonConfig } from "./config/config.ts";
import type { History } from "./history/history.ts";
import type { Logger } from "./log.ts";

/** Puts the engine together over a worker. */
export function composeEngine(at: {
  readonly config: DaemonConfig;
  readonly parts: ComposedWorker;
  readonly sessions: SessionManager;
  readonly history: History;
  readonly provenance: ProvenanceEnvironment;
  readonly log: Logger;
}): Engine {
  const { config, parts, sessions, provenance, log } = at;
  const { worker, store } = parts;
  const keys = new SqliteKeyStore(store.db);
  const results = new RefResultStore(worker.id, store.refs);
  store.refs.onRemoved((id) => keys.releaseResult(results.idOf(id)));
  const caches = createCacheBackends({
    refs: store.refs,
    registries: parts.registries,
    authenticators: parts.authenticators,
    sessions,
    blobs: new CacheBlobs(store.content, store.refs),
    env: process.env,
    transport: new HttpTransport({ env: process.env }),
    onFailedImport: (error) => log.debug("cache import", { error: errorMessage(error) }),
  });
  return new Engine({
    worker,
    frontends: frontends(config),
    exporters: exporters(parts, sessions),
    resolveCacheExports: caches.resolveExports,
    openCacheImport: caches.openImport,
    solverCache: { id: worker.id, keys, results },
    policyEvaluator: createPolicyEvaluator(sessions),
    sessionExporters: sessionExporters(sessions),
    processors: (request) => attestationProcessors(request, provenance),
    observer: at.history,
    // Devices are granted one by one; each of them says who may have it.
    allowedEntitlements: config.cdi.disabled ? config.entitlements : [...config.entitlements, "device"],
    onWarning: (error, what) => log.warn(what, error),
  });
}

function frontends(config: DaemonConfig): Map<string, Frontend> {
  const all = new Map<string, Frontend>();
  if (config.frontends.dockerfile) all.set("dockerfile.v0", dockerfileFrontend);
  if (config.frontends.gateway) {
    const { gatewayRepositories: allowedRepositories } = config.frontends;
    all.set("gateway.v0", createGatewayFrontend({ allowedRepositories }));
  }
  return all;
}

function exporters(parts: ComposedWorker, sessions: SessionManager): Map<string, Exporter> {
  const { store, layers, registries, authenticators, ensureLayer } = parts;
  const { content } = store;
  const writer = new ImageWriter({ content, layers });
  const pusher = createPusher({ registries, authenticators, content, ensureLayer });
  const archive = { writer, content, sessions, ensureLayer };
  const all = [
    createImageExporter({ writer, pusher }),
    createArchiveExporter("oci", archive),
    createArchiveExporter("docker", archive),
    createLocalExporter(sessions),
    createTarExporter(sessions),
  ];
  return new Map(all.map((exporter) => [exporter.type, exporter]));
}

const FIND_TIMEOUT_MS = 5_000;

function sessionExporters(sessions: SessionManager): SessionExporters {
  const caller = (id: string, signal: AbortSignal) =>
    sessions.get(id, { signal: AbortSignal.any([signal, AbortSignal.timeout(FIND_TIMEOUT_MS)]) });
  return {
    find: async (id, source, signal) => {
      const refs = [source.ref, ...(source.refs?.values() ?? [])].filter((ref) => ref !== undefined);
      try {
        const found = await findExporters(
          await caller(id, signal),
          { metadata: Object.fromEntries(source.metadata), refs },
          signal,
        );
        return found.map(({ Type, Attrs }) => ({ type: Type, attrs: new Map(Object.entries(Attrs)) }));
      } catch (error) {
        if (isBuildError(error, "unimplemented") || isBuildError(error, "unavailable")) return [];
        throw error;
      }
    },
    finalize: async (id, response, signal) => {
      try {
        await finalizeExport(await caller(id, signal), Object.fromEntries(response), signal);
      } catch (error) {
        if (!isBuildError(error, "unimplemented") && !isBuildError(error, "unavailable")) throw error;
      }
    },
  };
}
