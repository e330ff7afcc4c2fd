import { createHash } from "node:crypto";
import { create } from "@bufbuild/protobuf";
import { type Definition, type Op, type SourceOp, SourceOpSchema } from "@kiln/api/pb";
import type { Policy } from "@kiln/api/sourcepolicy";
import { BuildError, codeOfNodeError, errorMessage, isCanceled, wrapError } from "@kiln/base";
import type { ProxyCheck } from "@kiln/executor";
import { formatPlatformAll, type Platform } from "@kiln/oci";
import type { CachedResult, CacheSource, PendingCacheSource } from "@kiln/solver";
import { captureBuild } from "../attestations/provenance/capture-build.ts";
import type { RequestRecords } from "../attestations/provenance/request-records.ts";
import { bridgeRequest } from "../attestations/provenance/result-capture.ts";
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
import {
  type Builder,
  JOB_ENTITLEMENTS,
  JOB_POLICY,
  JOB_POLICY_SESSION,
  JOB_PROXY_NETWORK,
} from "./builder.ts";
import { checkEntitlements, type Entitlements, mergeEntitlements, NO_ENTITLEMENTS } from "./entitlements.ts";
import { type LoadingOp, loadDefinition } from "./load-definition.ts";
import type { PolicyEvaluator } from "./policy-evaluator.ts";
import { LazyResult } from "./result-proxy.ts";
import { validatePolicy } from "./source-policy.ts";
import { frontendDetail } from "./wire-details.ts";

/**
 * Opens an imported cache for a build. It never fails: undefined is a cache that can't be had. When `unneeded`
 * aborts, it is given up without a word.
 */
export type OpenCacheImport = (
  entry: CacheImport,
  builder: Builder,
  unneeded: AbortSignal,
) => Promise<CacheSource<OpResult> | undefined>;

/** What bridges need of the daemon. */
export interface BridgeHost {
  readonly worker: Worker;
  readonly frontends: ReadonlyMap<string, Frontend>;
  readonly openCacheImport: OpenCacheImport;
  readonly policyEvaluator: (bridge: JobBridge) => PolicyEvaluator;
  /** Where running builds' definitions came from, for provenance. */
  readonly requests?: RequestRecords;
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

/** What a bridge works for. */
export interface BridgeScope {
  /** What the frontend was asked that uses it; undefined for a client's own bridge. */
  readonly request?: FrontendSolveRequest | undefined;
  /** What the client asked. */
  readonly rootRequest?: FrontendSolveRequest | undefined;
  /** Imported caches that are open already, by key. */
  readonly caches?: OpenCaches;
}

/** The imported caches of a build, each opened once. */
interface OpenCaches {
  readonly sources: Map<string, PendingCacheSource<OpResult>>;
  readonly unneeded: AbortController;
}

/**
 * The handle of frontends and clients on the solver for one build: loads definitions, starts frontends and
 * answers questions about sources. Remembers what it was asked, as provenance tells of it.
 */
export class JobBridge implements FrontendBridge, Disposable {
  readonly sessionId: string;
  readonly request: FrontendSolveRequest | undefined;
  readonly rootRequest: FrontendSolveRequest | undefined;
  readonly solves: CapturedSolve[] = [];
  readonly images: CapturedImage[] = [];
  readonly host: BridgeHost;
  readonly builder: Builder;
  readonly #caches: OpenCaches;
  readonly #registered: (() => void)[] = [];

  constructor(host: BridgeHost, builder: Builder, sessionId: string, scope: BridgeScope = {}) {
    this.host = host;
    this.builder = builder;
    this.sessionId = sessionId;
    this.request = scope.request;
    this.rootRequest = scope.rootRequest;
    this.#caches = scope.caches ?? { sources: new Map(), unneeded: new AbortController() };
  }

  /** A bridge for the same build whose doings aren't part of its provenance. */
  sibling(): JobBridge {
    return new JobBridge(this.host, this.builder, this.sessionId);
  }

  /** Every tree that was asked for through this bridge or those of its frontends. */
  *eachRef(): Iterable<ResultProxy> {
    for (const { result, inner } of this.solves) {
      if (inner === undefined) yield* eachRef(result);
    }
    for (const { inner } of this.solves) if (inner !== undefined) yield* inner.eachRef();
  }

  /** Every image that was looked up through this bridge or those of its frontends. */
  allImages(): CapturedImage[] {
    return [...this.images, ...this.solves.flatMap(({ inner }) => inner?.allImages() ?? [])];
  }

  /** The bridge that a tree was asked for through: this one or a frontend's. */
  bridgeOf(ref: ResultProxy): JobBridge | undefined {
    for (const { inner } of this.solves) {
      const found = inner?.bridgeOf(ref);
      if (found !== undefined) return found;
    }
    const own = this.solves.some(
      ({ result, inner }) => inner === undefined && [...eachRef(result)].some((item) => item.id === ref.id),
    );
    return own ? this : undefined;
  }

  /** Forgets what other builds could learn of this one's definitions. */
  [Symbol.dispose](): void {
    for (const { inner } of this.solves) inner?.[Symbol.dispose]();
    for (const release of this.#registered.splice(0)) release();
  }

  /** Gives up what is still being imported: everything is built. */
  async endImports(): Promise<void> {
    const { sources, unneeded } = this.#caches;
    unneeded.abort(new BuildError("canceled", "the build is done"));
    await Promise.all([...sources.values()].map(({ opened }) => opened));
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
    try {
      if (request.evaluate) await Promise.all([...eachRef(result)].map((ref) => ref.result(signal)));
    } catch (error) {
      for (const ref of eachRef(result)) await ref.release();
      throw error;
    }
    this.#register(result, hasDefinition);
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

  /** What decides about the requests of a proxied process; undefined when its builds have no policies. */
  proxyCheck(): ProxyCheck | undefined {
    const hasSession = this.builder.jobValues(JOB_POLICY_SESSION).some((session) => session !== "");
    if (!hasSession && this.policies().every(({ rules }) => rules.length === 0)) return undefined;
    const evaluator = this.host.policyEvaluator(this);
    return async (url) => {
      const source = create(SourceOpSchema, { identifier: url });
      await evaluator.evaluate(source, undefined, []);
      return { url: source.identifier, hasAttrs: Object.keys(source.attrs).length > 0 };
    };
  }

  #solveDefinition(request: FrontendSolveRequest): FrontendResult {
    const definition = request.definition as Definition;
    const proxy: LazyResult = new LazyResult(definition, (signal) => this.#build(proxy, request, signal));
    const result: FrontendResult = { ...emptyResult<ResultProxy>(), ref: proxy };
    this.solves.push({ request, result, inner: undefined });
    return result;
  }

  /** Lets later requests that get these trees as inputs tell where they came from. */
  #register(result: FrontendResult, isOwn: boolean): void {
    const { requests } = this.host;
    if (requests === undefined) return;
    for (const ref of eachRef(result)) {
      const from = isOwn ? this : this.bridgeOf(ref);
      const record = from && bridgeRequest(from, ref.capture);
      if (record === undefined || ref.definition === undefined) continue;
      this.#registered.push(requests.register(ref.definition, record));
    }
  }

  async #solveFrontend(request: FrontendSolveRequest, signal: AbortSignal): Promise<FrontendResult> {
    const frontend = this.host.frontends.get(request.frontend);
    if (frontend === undefined) {
      throw new BuildError("invalid_argument", `invalid frontend: ${request.frontend}`);
    }
    const inner = new JobBridge(this.host, this.builder, this.sessionId, {
      request,
      rootRequest: hasRequest(this.rootRequest) ? this.rootRequest : this.request,
      caches: this.#caches,
    });
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
    proxy: LazyResult,
    request: FrontendSolveRequest,
    signal: AbortSignal,
  ): Promise<CachedResult<OpResult>> {
    const definition = request.definition as Definition;
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
    const built = await this.builder.build(edge, { signal, cacheSources });
    try {
      proxy.capture = captureBuild(this.builder.runners(edge));
    } catch (error) {
      built.release();
      throw wrapError(error, "failed to capture provenance");
    }
    return built;
  }

  #checkOp({ op, metadata }: LoadingOp, granted: Entitlements): void {
    if (op.op.case === "exec") {
      const { network, security } = op.op.value;
      checkEntitlements(granted, { hostNetwork: network === 1, insecure: security === 1 });
      this.host.worker.checkDevices(op.op.value, granted);
    }
    for (const cap of Object.keys(metadata?.caps ?? {})) this.host.worker.checkCapability(cap);
  }

  #cache(entry: CacheImport): PendingCacheSource<OpResult> {
    const { sources, unneeded } = this.#caches;
    const id = cacheKeyOf(entry);
    const known = sources.get(id);
    if (known !== undefined) return known;
    const source = { id, opened: this.host.openCacheImport(entry, this.builder, unneeded.signal) };
    sources.set(id, source);
    return source;
  }
}

function hasRequest(request: FrontendSolveRequest | undefined): boolean {
  if (request === undefined) return false;
  return request.frontend !== "" || request.frontendAttrs.size > 0 || request.frontendInputs.size > 0;
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

/** Two imports of one key are one cache. It is shown to people: attributes are only hashed. */
export function cacheKeyOf(entry: {
  readonly type: string;
  readonly attrs: ReadonlyMap<string, string>;
}): string {
  const ref = entry.attrs.get("ref");
  if (entry.type === "registry" && ref !== undefined && ref !== "") return ref;
  const attrs = [...entry.attrs].sort(([a], [b]) => (a < b ? -1 : 1));
  const hash = createHash("sha256").update(JSON.stringify(attrs)).digest();
  return `${entry.type}:${hash.readBigUInt64BE()}`;
}
