import { mkdirSync, readFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { Control } from "@kiln/api/control";
import { LLBBridge } from "@kiln/api/gateway";
import { TraceService } from "@kiln/api/otlp";
import { BuildError, DisposableStore, sleep } from "@kiln/base";
import { type Engine, gatewayHandlers, recordedProvenance } from "@kiln/engine";
import { cleanupLeftovers, startZygote } from "@kiln/executor";
import { addReflection, HealthStatus, type ListenAddress, type Listener, listen, Router } from "@kiln/grpc";
import { addContentService, SessionManager } from "@kiln/session";
import type { Store } from "@kiln/store";
import { type FileLock, shareAllocatorArenas, trimMemory, tryLockFile } from "@kiln/sys";
import { Collector } from "./collector.ts";
import { composeEngine } from "./compose-engine.ts";
import { composeWorker } from "./compose-worker.ts";
import type { DaemonConfig } from "./config/config.ts";
import { loadProvenanceEnvironment } from "./config/provenance-environment.ts";
import { contentView } from "./content-view.ts";
import { controlHandlers } from "./control/control-service.ts";
import { BuildMetrics } from "./debug/build-metrics.ts";
import { serveDebug } from "./debug/debug-server.ts";
import { BuildHistory } from "./history/build-history.ts";
import { IdleTimer } from "./idle-timer.ts";
import { Logger } from "./log.ts";
import { ActivatedSockets, notifySystemd } from "./systemd.ts";
import { exporterFromEnv, exportFailure } from "./tracing/otlp-exporter.ts";
import { ownResource } from "./tracing/recorded-span.ts";
import { listenForTraces } from "./tracing/trace-socket.ts";
import { Tracer } from "./tracing/tracer.ts";

const BUILD_ID = "buildkit-controlapi-buildid";
/** Describing a finished build may take this long. */
const RECORD_TIMEOUT_MS = 300_000;
/** When the daemon stops, builds get this long to fail in order, their steps killed and their records written. */
const STOP_TIMEOUT_MS = 12_000;
/** Running calls get this long to end after that: what has failed reaches the clients. */
const GOODBYE_TIMEOUT_MS = 1_000;
/** Steps get this long to clean up after that. */
const CLEANUP_TIMEOUT_MS = 4_000;
/** After this long without calls the daemon gives back what memory it can. */
const QUIET_MS = 3_000;
/** Arenas in which threads allocate: more are a little faster and a lot larger. */
const ALLOCATOR_ARENAS = 2;

/**
 * Runs the daemon until it is told to stop. The first SIGINT or SIGTERM stops it in order, a third one at
 * once.
 *
 * @returns the exit code.
 */
export async function runDaemon(config: DaemonConfig): Promise<number> {
  const log = new Logger(config.log);
  for (const warning of config.warnings) log.warn(warning);
  shareAllocatorArenas(ALLOCATOR_ARENAS);
  survive(log);
  await using undo = new DisposableStore();
  const activated = new ActivatedSockets(process.env, process.pid);
  // forked before anything has grown: spawning costs in proportion to the memory of who does it
  const zygote = undo.use(await startZygote());
  lockRoot(config.root, undo);
  useOwnTemporaryFolder(config.root);
  const stopping = listenForSignals(log);
  const sessions = new SessionManager({
    onHealthFailure: (id, error, fatal) =>
      log.warn(`session ${id} health check${fatal ? " failed" : ""}`, error),
  });
  const parts = undo.use(await composeWorker({ config, sessions, zygote, log }));
  const provenance = loadProvenanceEnvironment(config.provenanceEnvDir);
  const exporter = exporterFromEnv(process.env, (error) => log.warn(exportFailure(error)));
  if (exporter !== undefined) undo.use(exporter);
  const resource = ownResource(basename(process.env["KILN_ARGV0"] ?? "kilnd"), process.env);
  const tracer = undo.use(new Tracer({ resource, exporter }));
  const metrics = new BuildMetrics();
  const history = undo.use(
    new BuildHistory({
      onComplete: (record) => metrics.add(record),
      tracer,
      config: config.history,
      store: parts.store,
      log,
      describeProvenance: async (build, { result }) =>
        result === undefined
          ? new Map()
          : recordedProvenance(build, result, provenance, AbortSignal.timeout(RECORD_TIMEOUT_MS)),
    }),
  );
  const engine = composeEngine({ config, parts, sessions, history, provenance, log });
  const collector = undo.use(new Collector(parts.store.refs, config.worker.gcPolicy, { log }));
  const idle = undo.use(new IdleTimer(config.idleTimeoutMs, () => stopping.stop("idle")));
  const quiet = undo.use(new IdleTimer(QUIET_MS, trimMemory));
  const health = new HealthStatus();
  const router = createRouter(engine, {
    log,
    sessions,
    store: parts.store,
    history,
    collector,
    idle,
    quiet,
    health,
    tracer,
  });
  undo.use(await listenForTraces(config.traceSocket, tracer, log));
  if (config.debugAddress !== "") {
    const state = (): Record<string, unknown> => ({
      builds: history.running(),
      activeVertices: engine.activeVertices,
    });
    const debug = undo.use(await serveDebug(config.debugAddress, { metrics, state }));
    log.info(`debug handlers listening at ${debug.address}`);
  }
  const listeners: Listener[] = [];
  for (const address of config.addresses)
    listeners.push(await listen(router, listenAddress(address, config, activated)));
  for (const listener of listeners) log.info(`running server on ${listener.address}`);
  notifySystemd("READY=1", process.env, log);
  await stopping.promise;
  notifySystemd("STOPPING=1", process.env, log);
  log.info("stopping server");
  health.set("", false);
  for (const listener of listeners) await listener.close();
  await history.stop();
  const stopped = new BuildError("unavailable", "the daemon is stopping");
  await Promise.race([engine.failAll(stopped), sleep(STOP_TIMEOUT_MS)]);
  await router.close({ timeoutMs: GOODBYE_TIMEOUT_MS });
  // Builds whose clients have left may still be taking their steps' mounts away.
  await Promise.race([engine.stop(), sleep(CLEANUP_TIMEOUT_MS)]);
  return 0;
}

/** @throws BuildError `failed_precondition` for a user who is root nowhere, in BuildKit's words. */
export function requireRoot(euid: number): void {
  if (euid === 0) return;
  throw new BuildError(
    "failed_precondition",
    "rootless mode requires to be executed as the mapped root in a user namespace; you may use RootlessKit for setting up the namespace",
  );
}

/**
 * One build's mishap (a full disk that shows in the background, say) must not end the builds of all others: what
 * nobody has caught is logged as the bug that it is, and the daemon goes on.
 */
function survive(log: Logger): void {
  const tell = (error: unknown): void =>
    log.error("uncaught", error, { stack: error instanceof Error ? (error.stack ?? "") : "" });
  process.on("uncaughtException", tell);
  process.on("unhandledRejection", tell);
}

function holdAll(timers: readonly IdleTimer[]): Disposable {
  const holds = timers.map((timer) => timer.hold());
  return {
    [Symbol.dispose]: () => {
      for (const hold of holds) hold[Symbol.dispose]();
    },
  };
}

function createRouter(
  engine: Engine,
  at: {
    readonly log: Logger;
    readonly sessions: SessionManager;
    readonly store: Store;
    readonly history: BuildHistory;
    readonly collector: Collector;
    readonly idle: IdleTimer;
    readonly quiet: IdleTimer;
    readonly health: HealthStatus;
    readonly tracer: Tracer;
  },
): Router {
  const router = new Router({
    onBug: (error, path) =>
      at.log.error(`${path} failed`, error, {
        stack: error instanceof Error ? (error.stack ?? "") : "",
      }),
  });
  router.add(
    Control,
    controlHandlers({
      engine,
      sessions: at.sessions,
      history: at.history,
      leases: at.store.leases,
      watchCap: () => at.collector.watch(),
      reserve: at.store.reserve,
      afterBuild: () => at.collector.schedule(),
      busy: () => holdAll([at.idle, at.quiet]),
    }),
  );
  router.add(
    LLBBridge,
    gatewayHandlers((ctx) => {
      const ids = ctx.metadata.getAll(BUILD_ID);
      const [id] = ids;
      if (ids.length !== 1 || id === undefined) {
        throw new BuildError("invalid_argument", "no buildid found in context");
      }
      return engine.gateway.find(id, ctx.signal);
    }),
  );
  router.add(TraceService, at.tracer.handlers());
  addContentService(router, () => contentView(at.store.content));
  at.health.addTo(router);
  addReflection(router);
  return router;
}

function lockRoot(root: string, undo: DisposableStore): void {
  mkdirSync(root, { recursive: true, mode: 0o700 });
  const file = join(root, "buildkitd.lock");
  const lock: FileLock | undefined = tryLockFile(file);
  if (lock === undefined) {
    throw new BuildError("failed_precondition", `could not lock ${file}, another instance running?`);
  }
  undo.use(lock);
}

/** Temporary files and mounts lie below the root: what a daemon that was killed left there goes with the next start. */
function useOwnTemporaryFolder(root: string): void {
  const dir = join(root, "tmp");
  cleanupLeftovers(dir);
  mkdirSync(dir, { recursive: true, mode: 0o711 });
  process.env["TMPDIR"] = dir;
}

/** Reads `unix://`, `tcp://` and `fd://` addresses. */
function listenAddress(text: string, config: DaemonConfig, activated: ActivatedSockets): ListenAddress {
  const match = /^([a-z]+):\/\/(.*)$/.exec(text);
  const [, scheme = "", rest = ""] = match ?? [];
  switch (scheme) {
    case "unix": {
      mkdirSync(dirname(rest), { recursive: true, mode: 0o700 });
      const gid = groupId(config.socketOwner.group);
      const { uid } = config.socketOwner;
      return {
        kind: "unix",
        path: rest,
        mode: 0o660,
        uid: uid ?? process.getuid?.() ?? 0,
        gid: gid ?? process.getgid?.() ?? 0,
      };
    }
    case "tcp": {
      const at = rest.lastIndexOf(":");
      const tls = serverTls(config);
      return {
        kind: "tcp",
        host: rest.slice(0, at).replace(/^\[(.*)\]$/, "$1"),
        port: Number(rest.slice(at + 1)),
        ...(tls === undefined ? {} : { tls }),
      };
    }
    case "fd": {
      const tls = serverTls(config);
      return { kind: "fd", fd: activated.fd(rest), ...(tls === undefined ? {} : { tls }) };
    }
    case "npipe":
      throw new BuildError("unimplemented", `${scheme}:// addresses are not supported`);
    default:
      throw new BuildError(
        "invalid_argument",
        `invalid address format ${text}: no proto specified (unix:// or tcp://)`,
      );
  }
}

function serverTls(config: DaemonConfig): { cert: string; key: string; clientCa?: string } | undefined {
  const { cert, key, ca } = config.tls;
  if (cert === "" && key === "") return undefined;
  if (cert === "" || key === "") {
    throw new BuildError("invalid_argument", "you must specify key and cert file if one is specified");
  }
  return {
    cert: readFileSync(cert, "utf8"),
    key: readFileSync(key, "utf8"),
    ...(ca === "" ? {} : { clientCa: readFileSync(ca, "utf8") }),
  };
}

function groupId(group: string | undefined): number | undefined {
  if (group === undefined || group === "") return undefined;
  if (/^\d+$/.test(group)) return Number(group);
  for (const line of readFileSync("/etc/group", "utf8").split("\n")) {
    const [name, , gid] = line.split(":");
    if (name === group && gid !== undefined) return Number(gid);
  }
  throw new BuildError("invalid_argument", `group ${group} not found`);
}

interface Stopping {
  readonly promise: Promise<void>;
  stop(why: string): void;
}

function listenForSignals(log: Logger): Stopping {
  let count = 0;
  const { promise, resolve } = Promise.withResolvers<void>();
  const onSignal = (signal: string): void => {
    count++;
    log.info(`got ${count} SIGTERM/SIGINTs${count >= 3 ? ", forcing shutdown" : ""}`, { signal });
    if (count >= 3) process.exit(1);
    resolve();
  };
  process.on("SIGINT", () => onSignal("SIGINT"));
  process.on("SIGTERM", () => onSignal("SIGTERM"));
  return {
    promise,
    stop: (why) => {
      log.info(`stopping: ${why}`);
      resolve();
    },
  };
}
