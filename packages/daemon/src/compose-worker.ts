import { randomBytes } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";
import { LayerPool } from "@kiln/archive";
import { BuildError, DisposableStore } from "@kiln/base";
import {
  ContentHasher,
  createExecParts,
  type EnsureLayer,
  FileRunner,
  LocalSource,
  remoteSources,
  SessionAuthenticators,
  SourceManager,
  Worker,
} from "@kiln/engine";
import {
  CdiRegistry,
  cleanupLeftovers,
  createNetwork,
  createOciExecutor,
  type OciExecutor,
  supportedPlatforms,
  type Zygote,
} from "@kiln/executor";
import { normalizePlatform, type Platform, parsePlatform, parseReference } from "@kiln/oci";
import { Registries } from "@kiln/registry";
import type { SessionManager } from "@kiln/session";
import { type FetchBlob, openStore, type Store } from "@kiln/store";
import { MachineNotes } from "@kiln/sys";
import type { DaemonConfig } from "./config/config.ts";
import type { Logger } from "./log.ts";
import { createSourceSessions, createStepClients } from "./session-services.ts";

/** A worker with the parts that others need too. */
export interface ComposedWorker extends AsyncDisposable {
  readonly worker: Worker;
  readonly store: Store;
  readonly layers: LayerPool;
  readonly registries: Registries;
  readonly authenticators: SessionAuthenticators;
  readonly ensureLayer: EnsureLayer;
}

const LABEL_PREFIX = "org.mobyproject.buildkit.worker.";

/** Puts the worker together: store, registries, runtime, sources, ops. */
export async function composeWorker(at: {
  readonly config: DaemonConfig;
  readonly sessions: SessionManager;
  readonly zygote: Zygote;
  readonly log: Logger;
}): Promise<ComposedWorker> {
  const { config, sessions, log } = at;
  await using undo = new DisposableStore();
  const registries = undo.use(
    new Registries({
      hosts: config.registries,
      maxConcurrency: config.maxRegistryConcurrency,
      env: process.env,
    }),
  );
  const sourceSessions = createSourceSessions(sessions);
  const authenticators = new SessionAuthenticators(sourceSessions);
  const root = join(config.root, "worker");
  mkdirSync(root, { recursive: true, mode: 0o711 });
  const layers = undo.use(new LayerPool());
  const fetchBlob = registryFetcher(registries, authenticators);
  const notes = new MachineNotes(join(root, "machine.json"));
  const store = undo.use(
    await openStore({
      root,
      notes,
      snapshotter: config.worker.snapshotter as "auto" | "overlayfs" | "native",
      fetchBlob,
      layers,
      onWarning: (message, error) => log.warn(message, error),
    }),
  );
  const hasher = undo.use(new ContentHasher());
  const fileRunner = undo.use(new FileRunner());
  const cdi = composeDevices(config, log);
  const { executor, network } = await composeExecutor({ ...at, cdi, notes }, join(root, "executor"));
  undo.use(executor);
  const { refs, content, leases } = store;
  const sources = new SourceManager([
    new LocalSource({ refs, sessions, hasher }),
    ...remoteSources({
      registries,
      authenticators,
      sessions: sourceSessions,
      content,
      refs,
      leases,
      userAgent: "buildkit/v0.34",
      http: { env: process.env },
    }),
  ]);
  const worker = new Worker({
    id: workerId(root),
    labels: workerLabels(config, store, network),
    refs,
    content,
    hasher,
    fileRunner,
    executor,
    sources,
    exec: createExecParts({
      refs,
      clients: createStepClients(sessions),
      env: process.env,
      ...(cdi ? { cdi } : {}),
    }),
    gcPolicy: config.worker.gcPolicy,
    maxParallelism: config.worker.maxParallelism,
    proxyNetwork: config.proxyNetwork,
    platforms: platformsOf(config),
  });
  const owned = undo.move();
  return {
    worker,
    store,
    layers,
    registries,
    authenticators,
    ensureLayer: layerFetcher(refs),
    [Symbol.asyncDispose]: () => owned[Symbol.asyncDispose](),
  };
}

/** Brings the blobs of layers that are only known by descriptor into the content store. */
function layerFetcher(refs: Store["refs"]): EnsureLayer {
  return async ({ digest }, image, ctx) => {
    const remote = image.layers.find((one) => one.descriptors.some((desc) => desc.digest === digest));
    const layer = remote?.layers[remote.descriptors.findIndex((desc) => desc.digest === digest)];
    if (layer === undefined) throw new BuildError("not_found", `layer ${digest} of the image: not found`);
    await refs.ensureBlob(layer.id, digest, { signal: ctx.signal, session: ctx.sessions });
  };
}

/** Fetches lazy layers from the registries that their images came from. */
function registryFetcher(registries: Registries, authenticators: SessionAuthenticators): FetchBlob {
  return async (descriptor, remotes, ctx) => {
    const group = ctx.session as { ids(): readonly string[] } | undefined;
    const client = registries.client(authenticators.of(group?.ids() ?? []));
    async function* tryAll(): AsyncGenerator<Uint8Array> {
      let failure: unknown = new Error(`no source is known for blob ${descriptor.digest}`);
      for (const remote of remotes) {
        try {
          let started = false;
          for await (const chunk of client.fetchBlob(parseReference(remote), descriptor, {
            signal: ctx.signal,
          })) {
            started = true;
            yield chunk;
          }
          if (started || descriptor.size === 0) return;
        } catch (error) {
          ctx.signal.throwIfAborted();
          failure = error;
        }
      }
      throw failure;
    }
    return tryAll();
  };
}

function composeDevices(config: DaemonConfig, log: Logger): CdiRegistry | undefined {
  const { disabled, specDirs, autoAllowed } = config.cdi;
  return disabled ? undefined : new CdiRegistry({ specDirs, autoAllowed, warn: (text) => log.warn(text) });
}

async function composeExecutor(
  at: {
    readonly config: DaemonConfig;
    readonly zygote: Zygote;
    readonly log: Logger;
    readonly cdi: CdiRegistry | undefined;
    readonly notes: MachineNotes;
  },
  root: string,
): Promise<{ executor: OciExecutor; network: string }> {
  const { config, zygote, log } = at;
  const { worker } = config;
  cleanupLeftovers(root);
  const network = await createNetwork({
    mode: worker.networkMode as "auto" | "host" | "cni" | "bridge",
    root: config.root,
    zygote,
    cniConfigPath: worker.cniConfigPath,
    cniBinaryDir: worker.cniBinaryDir,
    poolSize: worker.cniPoolSize,
    bridgeName: worker.bridgeName,
    bridgeSubnet: worker.bridgeSubnet,
    env: process.env,
    warn: (text) => log.warn(text),
  });
  const executor = await createOciExecutor({
    traceSocket: config.traceSocket.path,
    // as in Docker: a root that is a RAM disk can't be pivoted away from
    noPivotRoot: (process.env["DOCKER_RAMDISK"] ?? "") !== "",
    root,
    zygote,
    network,
    notes: at.notes,
    dns: {
      nameservers: config.dns.nameservers,
      options: config.dns.options,
      searchDomains: config.dns.search,
    },
    rootless: worker.rootless,
    ...(at.cdi ? { cdi: at.cdi } : {}),
    ...(worker.binary === "" ? {} : { binary: worker.binary }),
    ...(worker.defaultCgroupParent === "" ? {} : { cgroupParent: worker.defaultCgroupParent }),
    ...(worker.apparmorProfile === "" ? {} : { apparmorProfile: worker.apparmorProfile }),
  });
  return { executor, network: network.mode };
}

function workerId(root: string): string {
  const file = join(root, "workerid");
  if (existsSync(file)) return readFileSync(file, "utf8").trim();
  const id = randomBytes(16).toString("hex").slice(0, 25);
  writeFileSync(file, id, { mode: 0o600 });
  return id;
}

function workerLabels(config: DaemonConfig, store: Store, network: string): Map<string, string> {
  return new Map([
    [`${LABEL_PREFIX}executor`, "oci"],
    [`${LABEL_PREFIX}hostname`, hostname()],
    [`${LABEL_PREFIX}network`, network],
    [`${LABEL_PREFIX}oci.process-mode`, "sandbox"],
    [`${LABEL_PREFIX}selinux.enabled`, "false"],
    [`${LABEL_PREFIX}snapshotter`, store.snapshotter.name],
    ...config.worker.labels,
  ]);
}

function platformsOf(config: DaemonConfig): () => readonly Platform[] {
  const fixed = config.worker.platforms.map((text) => normalizePlatform(parsePlatform(text)));
  if (fixed.length > 0) return () => fixed;
  return () => supportedPlatforms(config.platformsCacheMaxAgeMs);
}
