import type { Definition } from "@kiln/api/pb";
import type { Policy } from "@kiln/api/sourcepolicy";
import { BuildError, isCanceled, withSignal } from "@kiln/base";
import type { ProxyCheck } from "@kiln/executor";
import { type CachedResult, type Failure, failedVertex, type Job, Solver } from "@kiln/solver";
import { RequestRecords } from "../attestations/provenance/request-records.ts";
import { SystemUsage } from "../attestations/provenance/system-usage.ts";
import type {
  CacheExportEntry,
  CacheExports,
  ResolveCacheExports,
} from "../cache-backends/cache-exporter.ts";
import type { Exporter, ExporterInstance } from "../exporters/exporter.ts";
import type { Frontend, FrontendResult, FrontendSolveRequest, ResultProxy } from "../frontends/frontend.ts";
import { GatewayBuilds } from "../frontends/gateway-builds.ts";
import type { LlbOp, OpContext, OpResult } from "../op-context.ts";
import { OpError, OpFailure } from "../ops/op-failure.ts";
import type { Worker } from "../worker/worker.ts";
import { type BridgeHost, JobBridge, type OpenCacheImport } from "./bridge.ts";
import { type BuildResult, eachRef, emptyResult, mapRefs } from "./build-results.ts";
import {
  type Builder,
  JOB_COMPATIBILITY,
  JOB_ENTITLEMENTS,
  JOB_POLICY,
  JOB_POLICY_SESSION,
  JOB_PROXY_NETWORK,
} from "./builder.ts";
import { grantEntitlements } from "./entitlements.ts";
import { type ExportRun, exportAll } from "./export-all.ts";
import { builderOfContext, builderOfJob } from "./job-builder.ts";
import { mergeLinuxResources } from "./linux-resources.ts";
import type { PolicyEvaluator } from "./policy-evaluator.ts";
import { validatePolicy } from "./source-policy.ts";
import { vertexDetail } from "./wire-details.ts";

/** BuildKit's current compatibility version (buildkit.md §4.9). */
export const CURRENT_COMPATIBILITY = 30;
const COMPATIBILITY_VERSIONS: readonly number[] = [10, 20, 30];

/** One output that a request asks for. */
export interface ExporterEntry {
  readonly type: string;
  readonly attrs: ReadonlyMap<string, string>;
}

/** `Control.Solve`, with every deprecated spelling translated. */
export interface SolveRequest {
  readonly ref: string;
  readonly sessionId: string;
  readonly solve: FrontendSolveRequest;
  readonly exporters: readonly ExporterEntry[];
  readonly cacheExports: readonly CacheExportEntry[];
  readonly entitlements: readonly string[];
  /** Not recorded in the history. */
  readonly internal: boolean;
  readonly sourcePolicy: Policy | undefined;
  readonly sourcePolicySession: string;
  readonly enableSessionExporter: boolean;
  /** 0 means the current one. */
  readonly compatibilityVersion: number;
  readonly proxyNetwork: boolean;
  /** W3C's trace context of the call, as it came. */
  readonly traceParent?: string | undefined;
}

/** What the engine tells of each build; the history is written from it. */
export interface BuildObserver {
  started(build: ObservedBuild): void;
  /** Settles when everything of the build is recorded; the job lives until then. */
  completed(build: ObservedBuild, end: BuildEnd): Promise<void>;
}

/** A build as its observer sees it. */
export interface ObservedBuild {
  readonly request: SolveRequest;
  readonly job: Job<LlbOp, OpResult>;
  readonly bridge: JobBridge;
  /** How busy the machine is meanwhile, for provenance. */
  readonly usage?: SystemUsage;
}

/** How a build ended. */
export interface BuildEnd {
  readonly error: unknown;
  readonly result: FrontendResult | undefined;
  readonly exports: ExportRun | undefined;
  readonly response: ReadonlyMap<string, string>;
}

/**
 * Changes a result between frontend and exporters: provenance, SBOMs. It owns what it adds; what it takes
 * out, it releases.
 */
export type ResultProcessor = (
  result: FrontendResult,
  build: ObservedBuild,
  signal: AbortSignal,
) => Promise<FrontendResult>;

/** Parts of an engine; the composition root makes them. */
export interface EngineParts {
  readonly worker: Worker;
  readonly frontends: ReadonlyMap<string, Frontend>;
  readonly exporters: ReadonlyMap<string, Exporter>;
  readonly resolveCacheExports: ResolveCacheExports;
  readonly openCacheImport: OpenCacheImport;
  readonly solverCache: ConstructorParameters<typeof Solver<LlbOp, OpResult>>[0]["cache"];
  readonly policyEvaluator: (bridge: JobBridge) => PolicyEvaluator;
  /** Exporters that the client offers over its session (`EnableSessionExporter`). */
  readonly sessionExporters: SessionExporters;
  /** Processors of a request, in order; from its `attest:` attributes. */
  readonly processors: (request: SolveRequest) => readonly ResultProcessor[];
  readonly observer: BuildObserver;
  /** Entitlements that the daemon may grant. */
  readonly allowedEntitlements: readonly string[];
  readonly onWarning: (error: unknown, what: string) => void;
}

/** The client's own exporters. */
export interface SessionExporters {
  find(
    sessionId: string,
    source: BuildResult<string>,
    signal: AbortSignal,
  ): Promise<readonly ExporterEntry[]>;
  finalize(sessionId: string, response: ReadonlyMap<string, string>, signal: AbortSignal): Promise<void>;
}

/** Solves requests: the job of BuildKit's `llbsolver`. */
export class Engine {
  readonly worker: Worker;
  readonly gateway = new GatewayBuilds();
  readonly #parts: EngineParts;
  readonly #solver: Solver<LlbOp, OpResult>;
  readonly #bridgeHost: BridgeHost;
  readonly #end = new AbortController();
  readonly #running = new Set<Promise<unknown>>();

  constructor(parts: EngineParts) {
    this.worker = parts.worker;
    this.#parts = parts;
    this.#bridgeHost = {
      worker: parts.worker,
      frontends: parts.frontends,
      openCacheImport: parts.openCacheImport,
      policyEvaluator: parts.policyEvaluator,
      requests: new RequestRecords(),
    };
    this.#solver = new Solver<LlbOp, OpResult>({
      resolveOp: (vertex, metadata) =>
        parts.worker.resolveOp(
          withResources(vertex, metadata),
          (definition, ctx) => this.#solveNested(definition, ctx),
          (ctx) => this.#proxyCheck(ctx),
        ),
      cache: parts.solverCache,
      results: {
        id: (result) => result.ref?.id ?? "",
        clone: (result) => ({ ref: result.ref?.clone() }),
        release: (result) => result.ref?.release(),
      },
      describeFailure,
      mergeMetadata: mergeLinuxResources,
      onWarning: parts.onWarning,
    });
  }

  /** The job of a build that runs or ended less than 10 seconds ago; waits up to 6 seconds for it. */
  job(ref: string, signal?: AbortSignal): Promise<Job<LlbOp, OpResult>> {
    return this.#solver.get(ref, signal);
  }

  /** Number of vertices that builds hold. */
  get activeVertices(): number {
    return this.#solver.load.vertices;
  }

  /** Fails all builds with `reason`, those to come too, and waits until each is recorded; for the end of the daemon. */
  async failAll(reason: BuildError): Promise<void> {
    this.#end.abort(reason);
    await Promise.allSettled(this.#running);
  }

  /** Stops all steps and waits until each has cleaned up; for the end of the daemon. */
  stop(): Promise<void> {
    return this.#solver.stop();
  }

  /** Solves and exports. @returns `SolveResponse.ExporterResponse`. */
  async solve(request: SolveRequest, signal: AbortSignal): Promise<ReadonlyMap<string, string>> {
    const running = this.#solve(request, AbortSignal.any([signal, this.#end.signal]));
    this.#running.add(running);
    try {
      return await running;
    } finally {
      this.#running.delete(running);
    }
  }

  async #solve(request: SolveRequest, signal: AbortSignal): Promise<ReadonlyMap<string, string>> {
    signal.throwIfAborted();
    const compatibilityVersion = checkCompatibility(request.compatibilityVersion);
    const solve = builtinDockerfile(request.solve);
    using job = this.#solver.createJob(request.ref, { sessionId: request.sessionId });
    const both = AbortSignal.any([signal, job.signal]);
    this.#setValues(job, request, compatibilityVersion);
    const outputs = this.#resolveOutputs(request);
    const processors = this.#parts.processors({ ...request, solve });
    using bridge = new JobBridge(this.#bridgeHost, builderOfJob(job), request.sessionId, {
      rootRequest: solve,
    });
    using usage = new SystemUsage();
    const build: ObservedBuild = { request: { ...request, solve }, job, bridge, usage };
    const clientDriven = solve.definition === undefined && solve.frontend === "";
    // clients look for their build at once: register it before anything that takes time
    await using driven = clientDriven
      ? this.gateway.open(request.ref, bridge, solve.frontendInputs)
      : undefined;
    if (!request.internal) this.#parts.observer.started(build);
    let end: BuildEnd = { error: undefined, result: undefined, exports: undefined, response: new Map() };
    let result: FrontendResult | undefined;
    try {
      result =
        driven === undefined ? await bridge.solve(solve, both) : await withSignal(driven.result(), both);
      await settleAll([...eachRef(result)].map((ref) => ref.result(both)));
      for (const process of processors) result = await process(result, build, both);
      const exported = await this.#finish(result, { build, outputs, compatibilityVersion }, both);
      end = { error: undefined, ...exported };
      return exported.response;
    } catch (error) {
      end = { ...end, error, result };
      throw error;
    } finally {
      try {
        await bridge.endImports();
        await this.#record(build, end);
      } finally {
        end.exports?.release();
        for (const ref of result === undefined ? [] : eachRef(result)) await ref.release();
      }
    }
  }

  /** Why a build failed matters more than that this couldn't be recorded. */
  async #record(build: ObservedBuild, end: BuildEnd): Promise<void> {
    if (build.request.internal) {
      build.job.closeProgress();
      return;
    }
    const recorded = this.#parts.observer.completed(build, end);
    if (end.error === undefined) await recorded;
    else await recorded.catch((error: unknown) => this.#parts.onWarning(error, "record of the build"));
  }

  #setValues(job: Job<LlbOp, OpResult>, request: SolveRequest, compatibilityVersion: number): void {
    job.setValue(JOB_ENTITLEMENTS, grantEntitlements(request.entitlements, this.#parts.allowedEntitlements));
    if (request.sourcePolicy !== undefined) {
      validatePolicy(request.sourcePolicy);
      job.setValue(JOB_POLICY, request.sourcePolicy);
    }
    if (request.sourcePolicySession !== "") job.setValue(JOB_POLICY_SESSION, request.sourcePolicySession);
    if (request.proxyNetwork) job.setValue(JOB_PROXY_NETWORK, true);
    job.setValue(JOB_COMPATIBILITY, compatibilityVersion);
  }

  #resolveOutputs(request: SolveRequest): { exporters: ExporterInstance[]; caches: CacheExports } {
    return {
      exporters: request.exporters.map((entry, id) => this.#exporter(entry, id)),
      caches: this.#parts.resolveCacheExports(request.cacheExports, request.sessionId),
    };
  }

  #exporter(entry: ExporterEntry, id: number): ExporterInstance {
    const exporter = this.#parts.exporters.get(entry.type);
    if (exporter === undefined) {
      throw new BuildError("invalid_argument", `exporter ${JSON.stringify(entry.type)} could not be found`);
    }
    return exporter.resolve(id, entry.attrs);
  }

  async #finish(
    result: FrontendResult,
    at: {
      readonly build: ObservedBuild;
      readonly outputs: { exporters: ExporterInstance[]; caches: CacheExports };
      readonly compatibilityVersion: number;
    },
    signal: AbortSignal,
  ): Promise<{ result: FrontendResult; exports: ExportRun; response: Map<string, string> }> {
    const { build } = at;
    await settleAll([...eachRef(result)].map((ref) => ref.result(signal)));
    const trees = await cachedTrees(result, signal);
    const exporters = [...at.outputs.exporters];
    const { request } = build;
    if (request.enableSessionExporter) {
      const ids = mapRefs(result, (proxy) => proxy.id);
      for (const entry of await this.#parts.sessionExporters.find(request.sessionId, ids, signal)) {
        exporters.push(this.#exporter(entry, exporters.length));
      }
    }
    const exports = await exportAll({
      job: build.job,
      trees,
      exporters,
      caches: at.outputs.caches,
      compatibilityVersion: at.compatibilityVersion,
      buildRef: request.ref,
      frontendAttrs: request.solve.frontendAttrs,
      onIgnored: (error) => this.#parts.onWarning(error, "cache export"),
      signal,
    });
    const response = new Map(exports.response);
    for (const [key, value] of result.metadata) {
      if (key.startsWith("frontend.")) response.set(key, new TextDecoder().decode(value));
    }
    for (const [key, value] of exports.cacheResponse) if (key.startsWith("cache.")) response.set(key, value);
    if (request.enableSessionExporter) {
      await this.#parts.sessionExporters.finalize(request.sessionId, response, signal);
    }
    return { result, exports, response };
  }

  /** What decides about the requests of a proxied step; undefined when its builds have no policies. */
  #proxyCheck(ctx: OpContext): ProxyCheck | undefined {
    const bridge = new JobBridge(this.#bridgeHost, builderOfContext(ctx), ctx.sessions.ids()[0] ?? "");
    return bridge.proxyCheck();
  }

  async #solveNested(definition: Definition, ctx: OpContext): Promise<OpResult> {
    const builder: Builder = builderOfContext(ctx);
    const bridge = new JobBridge(this.#bridgeHost, builder, ctx.sessions.ids()[0] ?? "");
    const result = await bridge.solve(
      {
        definition,
        frontend: "",
        frontendAttrs: new Map(),
        frontendInputs: new Map(),
        cacheImports: [],
        sourcePolicies: [],
        evaluate: false,
      },
      ctx.signal,
    );
    try {
      const built = await result.ref?.result(ctx.signal);
      return { ref: built?.result.ref?.clone() };
    } finally {
      await result.ref?.release();
    }
  }
}

/** `gateway.v0` asked for its own built-in frontend is that frontend (buildkit.md §4.5). */
function builtinDockerfile(request: FrontendSolveRequest): FrontendSolveRequest {
  if (request.frontend !== "gateway.v0" || request.frontendAttrs.get("source") !== "dockerfile.v0")
    return request;
  for (const key of request.frontendAttrs.keys()) {
    if (key === "context:dockerfile.v0" || key.startsWith("context:dockerfile.v0::")) return request;
  }
  const frontendAttrs = new Map(request.frontendAttrs);
  frontendAttrs.delete("source");
  return { ...request, frontend: "dockerfile.v0", frontendAttrs };
}

function checkCompatibility(version: number): number {
  if (version === 0) return CURRENT_COMPATIBILITY;
  if (COMPATIBILITY_VERSIONS.includes(version)) return version;
  throw new BuildError(
    "invalid_argument",
    version > CURRENT_COMPATIBILITY
      ? `unsupported compatibility-version ${version}, upgrade buildkit (max supported: ${CURRENT_COMPATIBILITY})`
      : `unsupported compatibility-version ${version} (supported: [${COMPATIBILITY_VERSIONS.join(" ")}])`,
  );
}

function withResources<V extends { readonly op: LlbOp }>(vertex: V, metadata: unknown): V {
  if (metadata === undefined) return vertex;
  return { ...vertex, op: { ...vertex.op, linuxResources: metadata as LlbOp["linuxResources"] } };
}

/** Names the failing vertex on the wire. */
function describeFailure(error: unknown, failure: Failure<LlbOp, OpResult>): unknown {
  if (failedVertex(error) !== undefined || !(error instanceof Error) || isCanceled(error)) return error;
  const { op, options } = failure.vertex;
  const slow = failure.phase === "contentKey" && failure.result !== undefined;
  return new OpError(
    error.message,
    { op: op.op, description: options.description ?? {} },
    {
      cause: slow ? slowFailure(error, failure) : error,
      wire: [vertexDetail(op.originalDigest), ...(error instanceof BuildError ? error.wire : [])],
    },
  );
}

/** The failure to hash an input, with that input. */
function slowFailure(error: Error, failure: Failure<LlbOp, OpResult>): OpFailure {
  const slow = new OpFailure(error, {
    inputs: [{ ref: failure.result?.ref?.clone() }],
    mounts: [],
    cacheInput: failure.input ?? 0,
  });
  failure.cleanup(() => slow.release());
  return slow;
}

async function cachedTrees(
  result: FrontendResult,
  signal: AbortSignal,
): Promise<BuildResult<CachedResult<OpResult>>> {
  const built = new Map<ResultProxy, CachedResult<OpResult>>();
  for (const ref of eachRef(result)) built.set(ref, await ref.result(signal));
  return mapRefs(result, (ref) => built.get(ref));
}

/** Waits for all, then throws the first failure: nothing may still run when the caller cleans up. */
async function settleAll(work: readonly Promise<unknown>[]): Promise<void> {
  const failed = (await Promise.allSettled(work)).find((end) => end.status === "rejected");
  if (failed !== undefined) throw failed.reason;
}

/** A result of nothing, for requests that ask for none. */
export const NOTHING = emptyResult<ResultProxy>();
