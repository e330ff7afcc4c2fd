import type { MessageInitShape } from "@bufbuild/protobuf";
import { create } from "@bufbuild/protobuf";
import { legacyGatewayCaps, legacyLlbCaps } from "@kiln/api";
import type { APICap } from "@kiln/api/apicaps";
import {
  ChecksumRequest_ChecksumAlgo as ChecksumAlgo,
  LLBBridge,
  type ResolveSourceMetaRequestSchema,
  type ResolveSourceMetaResponse,
} from "@kiln/api/gateway";
import { SourceInfoSchema } from "@kiln/api/pb";
import { type ErrorCode, wrapError } from "@kiln/base";
import type {
  FrontendBackend,
  FrontendWorker,
  ResolvedImage,
  ResolveImageOptions,
  SolveRequest,
  SourceRequest,
  WarnOptions,
} from "@kiln/dockerfile";
import type { Channel } from "@kiln/grpc/client";
import { codeOfNumber, numberOfCode, statusFromError } from "@kiln/grpc/client";
import { type Definition, definitionFromMessage, definitionMessage, type SourceMap } from "@kiln/llb";
import { formatReference, type Platform, parseDigest, parseReference, withDefaultTag } from "@kiln/oci";
import type { FrontendEnvironment } from "./environment.ts";
import { ExecChannel } from "./exec-channel.ts";
import { type ContainerOptions, FrontendContainer, platformMessage } from "./frontend-container.ts";
import { GatewayRef } from "./frontend-ref.ts";
import { GatewayCalls } from "./gateway-calls.ts";
import { type ReturnedResult, resultMessage, type SolvedResult, solvedResult } from "./results.ts";

const PING_TIMEOUT_MS = 15_000;
const SHOWN_CODES: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  "canceled",
  "internal",
  "unimplemented",
  "deadline_exceeded",
  "unknown",
]);
const CACHE_OPTIONS = ["cache-imports", "cache-from"];
const CHECKSUMS = {
  sha256: ChecksumAlgo.SHA256,
  sha384: ChecksumAlgo.SHA384,
  sha512: ChecksumAlgo.SHA512,
} as const;

/** What to find out about a source. */
export interface SourceMetadataRequest {
  readonly platform?: Platform | undefined;
  readonly logName?: string | undefined;
  readonly resolveMode?: string | undefined;
  /** Asks for the raw commit and tag objects of a git source. */
  readonly gitObject?: boolean | undefined;
  /** Leaves an image's config out. */
  readonly noConfig?: boolean | undefined;
  /** Asks for a checksum over what an http source has, followed by `suffix`. */
  readonly httpChecksum?:
    | { readonly algorithm: keyof typeof CHECKSUMS; readonly suffix: Uint8Array }
    | undefined;
}

/** What the daemon knows about a source. */
export interface FoundSource {
  /** The source, changed if a policy changed it. */
  readonly source: SourceRequest;
  readonly image?: { readonly digest: string; readonly config: Uint8Array } | undefined;
  readonly git?:
    | {
        readonly checksum: string;
        readonly ref: string;
        readonly commitChecksum: string;
        readonly commitObject: Uint8Array;
        readonly tagObject: Uint8Array;
      }
    | undefined;
  readonly http?:
    | {
        readonly checksum: string;
        readonly filename: string;
        readonly lastModifiedMs: number | undefined;
        readonly checksumResponse: { readonly digest: string; readonly suffix: Uint8Array } | undefined;
      }
    | undefined;
}

/**
 * A frontend's handle on the daemon that runs it: BuildKit's gateway API. It is what `buildDockerfile` of
 * `@kiln/dockerfile` takes for a backend. Errors are `BuildError`s with the daemon's text, code and details:
 * passed on, they tell the user where a build failed.
 */
export class FrontendClient implements FrontendBackend, AsyncDisposable {
  readonly opts: ReadonlyMap<string, string>;
  readonly sessionId: string;
  readonly workers: readonly FrontendWorker[];
  readonly product: string;
  readonly caps: ReadonlySet<string>;
  readonly llbCaps: ReadonlySet<string>;
  readonly defaultPlatform: Platform;
  /** Aborts when the connection is lost. */
  readonly signal: AbortSignal;
  readonly #calls: GatewayCalls;
  readonly #exec: ExecChannel;

  private constructor(
    calls: GatewayCalls,
    environment: FrontendEnvironment,
    caps: { readonly llb: ReadonlySet<string> },
  ) {
    this.opts = environment.opts;
    this.sessionId = environment.sessionId;
    this.workers = environment.workers;
    this.product = environment.product;
    this.defaultPlatform = environment.defaultPlatform;
    this.caps = calls.caps;
    this.llbCaps = caps.llb;
    this.signal = calls.signal;
    this.#calls = calls;
    this.#exec = new ExecChannel(calls);
  }

  /** Asks the daemon what it can do. @throws BuildError when it doesn't answer. */
  static async open(
    channel: Channel,
    environment: FrontendEnvironment,
    signal: AbortSignal,
  ): Promise<FrontendClient> {
    const pong = await channel.unary(LLBBridge.method.ping, {}, { signal, timeoutMs: PING_TIMEOUT_MS });
    const caps = enabled(pong.FrontendAPICaps, legacyGatewayCaps);
    const calls = new GatewayCalls(channel, { caps, product: environment.product, signal });
    return new FrontendClient(calls, environment, { llb: enabled(pong.LLBCaps, legacyLlbCaps) });
  }

  /** Definitions that the client sent along, by name; see `stateFromDefinition` of `@kiln/llb`. */
  async inputs(): Promise<ReadonlyMap<string, Definition>> {
    this.#calls.require("frontend.inputs");
    const { Definitions: all } = await this.#calls.unary(LLBBridge.method.inputs, {});
    return new Map(Object.entries(all).map(([name, message]) => [name, definitionFromMessage(message)]));
  }

  /**
   * Solves a definition or hands a request to another frontend. Nothing is built before it is needed, unless
   * `evaluate` is set.
   */
  async solve(request: SolveRequest): Promise<SolvedResult<GatewayRef>> {
    const { definition } = request;
    for (const own of definition?.metadata.values() ?? []) this.#calls.requireLlb(own.caps, this.llbCaps);
    const opts = new Map(request.opts);
    for (const key of CACHE_OPTIONS) {
      const value = this.opts.get(key);
      if (value !== undefined && !opts.has(key)) opts.set(key, value);
    }
    const canEvaluate = this.caps.has("gateway.solve.evaluate");
    const response = await this.#calls.unary(LLBBridge.method.solve, {
      ...(definition === undefined ? {} : { Definition: definitionMessage(definition) }),
      Frontend: request.frontend ?? "",
      FrontendOpt: Object.fromEntries(opts),
      FrontendInputs: Object.fromEntries(
        [...(request.inputs ?? [])].map(([name, input]) => [name, definitionMessage(input)]),
      ),
      allowResultReturn: true,
      allowResultArrayRef: true,
      CacheImports: (request.cacheImports ?? []).map(({ type, attrs }) => ({
        Type: type,
        Attrs: Object.fromEntries(attrs),
      })),
      Evaluate: canEvaluate && (request.evaluate ?? false),
    });
    const result = solvedResult(response, (ref) => new GatewayRef(this.#calls, ref));
    if (request.evaluate && !canEvaluate) {
      for (const ref of [result.ref, ...(result.refs?.values() ?? [])]) await ref?.statFile(".");
    }
    return result;
  }

  /** Finds an image, by its full name or a short one, and its config. @throws BuildError when there is none. */
  async resolveImageConfig(ref: string, options: ResolveImageOptions = {}): Promise<ResolvedImage> {
    const name = formatReference(withDefaultTag(parseReference(ref)));
    if (!this.caps.has("source.metaresolver")) return await this.#resolveImageConfig(name, options);
    const { store } = options;
    const attrs = new Map<string, string>();
    if (store !== undefined) attrs.set("oci.session", store.sessionId).set("oci.store", store.storeId);
    const scheme = store === undefined ? "docker-image" : "oci-layout";
    const { platform, logName, resolveMode } = options;
    const request = { platform, logName, resolveMode };
    const source = { identifier: `${scheme}://${name}`, attrs };
    const found = await this.resolveSourceMetadata(source, request).catch((error: unknown) => {
      throw wrapError(error, `failed to resolve source metadata for ${name}`);
    });
    const { identifier } = found.source;
    if (found.image === undefined) return { redirect: identifier };
    return {
      ref: identifier.replace(/^(?:docker-image|oci-layout):\/\//, ""),
      digest: found.image.digest === "" ? undefined : parseDigest(found.image.digest),
      config: found.image.config,
    };
  }

  async #resolveImageConfig(ref: string, options: ResolveImageOptions): Promise<ResolvedImage> {
    const { platform, store } = options;
    const found = await this.#calls.unary(LLBBridge.method.resolveImageConfig, {
      Ref: ref,
      LogName: options.logName ?? "",
      ResolveMode: options.resolveMode ?? "",
      ResolverType: store === undefined ? 0 : 1,
      SessionID: store?.sessionId ?? "",
      StoreID: store?.storeId ?? "",
      ...(platform === undefined ? {} : { Platform: platformMessage(platform) }),
    });
    const digest = found.Digest === "" ? undefined : parseDigest(found.Digest);
    return { ref: found.Ref || ref, digest, config: found.Config };
  }

  /** Finds out about a source without fetching it. Old daemons say nothing but of images. */
  async resolveSourceMetadata(
    source: SourceRequest,
    options: SourceMetadataRequest = {},
  ): Promise<FoundSource> {
    if (options.httpChecksum !== undefined) {
      this.#calls.require("source.metaresolver.http.checksumrequest");
    }
    if (!this.caps.has("source.metaresolver")) return { source };
    const request = sourceRequest(source, options);
    return foundSource(await this.#calls.unary(LLBBridge.method.resolveSourceMeta, request), source);
  }

  /** Warns of something at a vertex; clients show it with the build. */
  async warn(vertex: string, message: string, options: Partial<WarnOptions> = {}): Promise<void> {
    this.#calls.require("gateway.warnings");
    await this.#calls.unary(LLBBridge.method.warn, {
      digest: vertex,
      level: BigInt(options.level ?? 1),
      short: new TextEncoder().encode(message),
      detail: [...(options.detail ?? [])],
      url: options.url ?? "",
      ranges: (options.ranges ?? []).map(({ start, end }) => ({ start, end })),
      ...(options.source === undefined ? {} : { info: sourceInfo(options.source) }),
    });
  }

  /** Makes a container to run processes in, outside of any cache. */
  newContainer(options: ContainerOptions): Promise<FrontendContainer> {
    return FrontendContainer.create(this.#calls, this.#exec, options);
  }

  /** Ends the build with a result. */
  async returnResult(result: ReturnedResult | undefined): Promise<void> {
    this.#calls.require("return");
    if ((result?.refs?.size ?? 0) > 1) this.#calls.require("returnmap");
    const message = resultMessage(result ?? {}, this.caps.has("proto.refarray"));
    await this.#calls.unary(LLBBridge.method.return, { result: message });
  }

  /**
   * Ends the build with an error; its text and details reach the user. Of the codes only `canceled`, `internal`,
   * `unimplemented`, `deadline_exceeded` and `unknown` do, as clients print any other in front of the text.
   */
  async returnError(error: unknown): Promise<void> {
    this.#calls.require("return");
    const status = statusFromError(error);
    if (!SHOWN_CODES.has(codeOfNumber(status.code))) status.code = numberOfCode("unknown");
    await this.#calls.unary(LLBBridge.method.return, { error: status });
  }

  /** Uncompresses gzip and zstd. @throws BuildError `unimplemented` for bzip2 and xz. */
  async decompress(data: Uint8Array): Promise<Uint8Array> {
    return (await import("./decompress.ts")).decompressSmall(data);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#exec[Symbol.asyncDispose]();
  }
}

function enabled(caps: readonly APICap[], otherwise: readonly string[]): ReadonlySet<string> {
  if (caps.length === 0) return new Set(otherwise);
  return new Set(caps.filter((cap) => cap.Enabled).map((cap) => cap.ID));
}

function sourceInfo(source: SourceMap) {
  return create(SourceInfoSchema, {
    filename: source.filename,
    data: source.data,
    language: source.language,
    ...(source.definition === undefined ? {} : { definition: definitionMessage(source.definition) }),
  });
}

function sourceRequest(
  source: SourceRequest,
  options: SourceMetadataRequest,
): MessageInitShape<typeof ResolveSourceMetaRequestSchema> {
  const { httpChecksum, platform } = options;
  return {
    Source: { identifier: source.identifier, attrs: Object.fromEntries(source.attrs) },
    LogName: options.logName ?? "",
    ResolveMode: options.resolveMode ?? "",
    ...(platform === undefined ? {} : { Platform: platformMessage(platform) }),
    ...(options.gitObject ? { Git: { ReturnObject: true } } : {}),
    ...(options.noConfig ? { Image: { NoConfig: true } } : {}),
    ...(httpChecksum === undefined
      ? {}
      : {
          HTTP: {
            ChecksumRequest: { Algo: CHECKSUMS[httpChecksum.algorithm], Suffix: httpChecksum.suffix },
          },
        }),
  };
}

function foundSource(found: ResolveSourceMetaResponse, asked: SourceRequest): FoundSource {
  const { Source: source, Image: image, Git: git, HTTP: http } = found;
  const modified = http?.LastModified;
  return {
    source:
      source === undefined
        ? asked
        : { identifier: source.identifier, attrs: new Map(Object.entries(source.attrs)) },
    image: image && { digest: image.Digest, config: image.Config },
    git: git && {
      checksum: git.Checksum,
      ref: git.Ref,
      commitChecksum: git.CommitChecksum,
      commitObject: git.CommitObject,
      tagObject: git.TagObject,
    },
    http: http && {
      checksum: http.Checksum,
      filename: http.Filename,
      lastModifiedMs: modified && Number(modified.seconds) * 1000 + Math.floor(modified.nanos / 1e6),
      checksumResponse: http.ChecksumResponse && {
        digest: http.ChecksumResponse.Digest,
        suffix: http.ChecksumResponse.Suffix,
      },
    },
  };
}
