import type { Definition, Op, SourceOp } from "@kiln/api/pb";
import type { Policy } from "@kiln/api/sourcepolicy";
import { BuildError, codeOfNodeError, errorMessage, isCanceled, wrapError } from "@kiln/base";
import { formatPlatformAll, type Platform } from "@kiln/oci";
import type { CachedResult, CacheSource } from "@kiln/solver";
import type {
  CacheImport,
  Frontend,
  FrontendBridge,
  FrontendResult,
  FrontendSolveRequest,
  FrontendWarning,
  ResultProxy,
} from "../frontends/frontend.ts";
import type { OpResult } from "../op-context.ts";
import type { SourceMetadata, SourceMetadataOptions } from "../sources/source-metadata.ts";
import { hostPlatform } from "../worker/host-platform.ts";
import type { Worker } from "../worker/worker.ts";
import { eachRef, emptyResult } from "./build-results.ts";
import { type Builder, JOB_ENTITLEMENTS, JOB_POLICY, JOB_PROXY_NETWORK } from "./builder.ts";
import { checkEntitlements, type Entitlements, mergeEntitlements, NO_ENTITLEMENTS } from "./entitlements.ts";
import { type LoadingOp, loadDefinition } from "./load-definition.ts";
import type { PolicyEvaluator } from "./policy-evaluator.ts";
import { LazyResult } from "./result-proxy.ts";
import { validatePolicy } from "./source-policy.ts";
import { frontendDetail } from "./wire-details.ts";

/** Opens an imported cache for a build; failures are its own business (a cache that fails is a warning). */
export type OpenCacheImport = (entry: CacheImport, builder: Builder) => CacheSource<OpResult>;

/** What bridges need of the daemon. */
export interface BridgeHost {
  readonly worker: Worker;
  readonly frontends: ReadonlyMap<string, Frontend>;
  readonly openCacheImport: OpenCacheImport;
  readonly policyEvaluator: (bridge: JobBridge) => PolicyEvaluator;
}

/** One solve that went through a bridge, for provenance. */
export interface CapturedSolve {
  readonly request: FrontendSolveRequest;
  readonly result: FrontendResult;
  /** The bridge that the frontend used; undefined for a plain definition. */
  readonly inner: JobBridge | undefined;
}

/** An image that was looked up through a bridge, for provenance. */
export interface CapturedImage {
  readonly ref: string;
  readonly platform: Platform | undefined;
  readonly digest: string;
  readonly local: boolean;
}

/**
 * The handle of frontends and clients on the solver for one build: loads definitions, starts frontends and
 * answers questions about sources. Remembers what it was asked, as provenance tells of it.
 */
export class JobBridge implements FrontendBridge {
  readonly sessionId: string;
  readonly solves: CapturedSolve[] = [];
  readonly images: CapturedImage[] = [];
  readonly host: BridgeHost;
  readonly builder: Builder;
  readonly #caches: Map<string, CacheSource<OpResult>>;

  constructor(
    host: BridgeHost,
    builder: Builder,
    sessionId: string,
    caches: Map<string, CacheSource<OpResult>> = new Map(),
  ) {
    this.host = host;
    this.builder = builder;
    this.sessionId = sessionId;
    this.#caches = caches;
  }

  get platforms(): readonly Platform[] {
    return this.host.worker.platforms();
  }

  async solve(request: FrontendSolveRequest, signal: AbortSignal): Promise<FrontendResult> {
    const hasDefinition = request.definition !== undefined && request.definition.def.length > 0;
    if (hasDefinition && request.frontend !== "") {
      throw new BuildError("invalid_argument", "cannot solve with both Definition and Frontend specified");
    }
    let result: FrontendResult;
    if (hasDefinition) result = this.#solveDefinition(request);
    else if (request.frontend !== "") result = await this.#solveFrontend(request, signal);
    else return emptyResult<ResultProxy>();
    if (!request.evaluate) return result;
    try {
      await Promise.all([...eachRef(result)].map((ref) => ref.result(signal)));
    } catch (error) {
      for (const ref of eachRef(result)) await ref.release();
      throw error;
    }
    return result;
  }

  async resolveSourceMetadata(
    source: SourceOp,
    opts: SourceMetadataOptions,
    signal: AbortSignal,
  ): Promise<SourceMetadata> {
    const evaluator = this.host.policyEvaluator(this);
    try {
      await evaluator.evaluate(source, opts.platform, []);
    } catch (error) {
      throw wrapError(error, "could not resolve image due to policy");
    }
    const metadata = await this.resolveAllowedMetadata(source, opts, signal);
    if (metadata.image !== undefined) {
      const id = metadata.source.identifier;
      this.images.push({
        ref: id.replace(/^(?:docker-image|oci-layout):\/\//, ""),
        platform: opts.platform,
        digest: metadata.image.digest,
        local: !id.startsWith("docker-image://"),
      });
    }
    return metadata;
  }

  /** Like {@link resolveSourceMetadata} for a source that no policy is asked about (any more). */
  resolveAllowedMetadata(
    source: SourceOp,
    opts: SourceMetadataOptions,
    signal: AbortSignal,
  ): Promise<SourceMetadata> {
    const name = opts.logName === "" ? `resolve image config for ${source.identifier}` : opts.logName;
    const id = source.identifier + formatPlatformAll(opts.platform ?? hostPlatform());
    return this.builder.inVertex(
      { name, id },
      (ctx) => this.host.worker.sources.resolveMetadata(source, opts, ctx),
      signal,
    );
  }

  warn(warning: FrontendWarning): void {
    this.builder.warn({
      vertex: warning.vertex,
      level: warning.level === 0 ? 1 : warning.level,
      short: warning.short,
      detail: warning.detail,
      url: warning.url,
      sourceInfo: warning.sourceInfo,
      ranges: warning.ranges.map(({ start, end }) => ({
        start: { line: start?.line ?? 0, character: start?.character ?? 0 },
        end: { line: end?.line ?? 0, character: end?.character ?? 0 },
      })),
    });
  }

  /** What all jobs behind this bridge have been granted together. */
  entitlements(): Entitlements {
    const all = this.builder.jobValues(JOB_ENTITLEMENTS) as readonly Entitlements[];
    return all.reduce(mergeEntitlements, NO_ENTITLEMENTS);
  }

  /** Policies that came with the builds. */
  policies(): readonly Policy[] {
    return this.builder.jobValues(JOB_POLICY) as readonly Policy[];
  }

  get proxyNetwork(): boolean {
    return this.host.worker.proxyNetwork || this.builder.jobValues(JOB_PROXY_NETWORK).includes(true);
  }

  #solveDefinition(request: FrontendSolveRequest): FrontendResult {
    const definition = request.definition as Definition;
    const proxy = new LazyResult(definition, (signal) => this.#build(definition, request, signal));
    const result: FrontendResult = { ...emptyResult<ResultProxy>(), ref: proxy };
    this.solves.push({ request, result, inner: undefined });
    return result;
  }

  async #solveFrontend(request: FrontendSolveRequest, signal: AbortSignal): Promise<FrontendResult> {
    const frontend = this.host.frontends.get(request.frontend);
    if (frontend === undefined) {
      throw new BuildError("invalid_argument", `invalid frontend: ${request.frontend}`);
    }
    const inner = new JobBridge(this.host, this.builder, this.sessionId, this.#caches);
    let result: FrontendResult;
    try {
      result = await frontend.solve({
        bridge: inner,
        attrs: request.frontendAttrs,
        inputs: request.frontendInputs,
        signal,
      });
    } catch (error) {
      if (isCanceled(error)) throw error;
      const wire = error instanceof BuildError ? error.wire : [];
      const detail = frontendDetail(request.frontend, request.frontendAttrs.get("source") ?? "");
      throw new BuildError(codeOfNodeError(error), errorMessage(error), {
        cause: error,
        wire: [detail, ...wire],
        ...(error instanceof BuildError && error.hint !== undefined ? { hint: error.hint } : {}),
      });
    }
    this.solves.push({ request, result, inner });
    return result;
  }

  async #build(
    definition: Definition,
    request: FrontendSolveRequest,
    signal: AbortSignal,
  ): Promise<CachedResult<OpResult>> {
    for (const policy of request.sourcePolicies) validatePolicy(policy);
    const cacheSources = request.cacheImports.map((entry) => this.#cache(entry));
    const evaluator = this.host.policyEvaluator(this);
    const granted = this.entitlements();
    const pruned = new Map<string, boolean>();
    let edge: Awaited<ReturnType<typeof loadDefinition>>;
    try {
      edge = await loadDefinition(definition, {
        proxyNetwork: this.proxyNetwork,
        onSource: (op) => evaluateOp(evaluator, op, request.sourcePolicies),
        onOp: (loading) => {
          this.#checkOp(loading, granted);
          notePrunedCacheMounts(loading, pruned);
        },
      });
    } catch (error) {
      throw wrapError(error, "failed to load LLB");
    }
    if (pruned.size > 0) await this.host.worker.pruneCacheMounts(pruned);
    return await this.builder.build(edge, { signal, cacheSources });
  }

  #checkOp({ op, metadata }: LoadingOp, granted: Entitlements): void {
    if (op.op.case === "exec") {
      const { network, security } = op.op.value;
      checkEntitlements(granted, { hostNetwork: network === 1, insecure: security === 1 });
      this.host.worker.checkDevices(op.op.value, granted);
    }
    for (const cap of Object.keys(metadata?.caps ?? {})) this.host.worker.checkCapability(cap);
  }

  #cache(entry: CacheImport): CacheSource<OpResult> {
    const key = cacheKeyOf(entry);
    let source = this.#caches.get(key);
    if (source === undefined) {
      source = this.host.openCacheImport(entry, this.builder);
      this.#caches.set(key, source);
    }
    return source;
  }
}

async function evaluateOp(evaluator: PolicyEvaluator, op: Op, policies: readonly Policy[]): Promise<boolean> {
  if (op.op.case !== "source") return false;
  const given = op.platform;
  const platform: Platform | undefined = given && {
    os: given.OS,
    architecture: given.Architecture,
    variant: given.Variant,
    "os.version": given.OSVersion,
    "os.features": given.OSFeatures,
  };
  return await evaluator.evaluate(op.op.value, platform, policies);
}

/** Cache mounts of a step that must run again start afresh; true for one that lies over a tree. */
function notePrunedCacheMounts({ op, metadata }: LoadingOp, pruned: Map<string, boolean>): void {
  if (op.op.case !== "exec" || metadata?.ignoreCache !== true) return;
  for (const mount of op.op.value.mounts) {
    if (mount.mountType !== 3 || mount.cacheOpt === undefined) continue;
    pruned.set(mount.cacheOpt.ID === "" ? mount.dest : mount.cacheOpt.ID, mount.input !== -1n);
  }
}

/** Two imports of one key are one cache. */
export function cacheKeyOf(entry: CacheImport): string {
  const ref = entry.attrs.get("ref");
  if (entry.type === "registry" && ref !== undefined && ref !== "") return ref;
  const attrs = [...entry.attrs].sort(([a], [b]) => (a < b ? -1 : 1));
  return `${entry.type}:${JSON.stringify(attrs)}`;
}
