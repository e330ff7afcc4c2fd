import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { type APICap, APICapSchema } from "@kiln/api/apicaps";
import { type Cap, gatewayCaps, llbCaps } from "@kiln/api/caps";
import {
  ChecksumRequest_ChecksumAlgo as ChecksumAlgo,
  type LLBBridge,
  type PongResponse,
  PongResponseSchema,
  type ResolveImageConfigRequest,
  type ResolveSourceMetaRequest,
  type ResolveSourceMetaResponse,
  ResolveSourceMetaResponseSchema,
} from "@kiln/api/gateway";
import { type Platform as PlatformMessage, PlatformSchema, SourceOpSchema } from "@kiln/api/pb";
import { BuildError, wrapError } from "@kiln/base";
import { type CallContext, errorFromStatus, type ServiceHandlers } from "@kiln/grpc";
import type { Platform } from "@kiln/oci";
import { keepCode, withBuildCode } from "../solve/wire-code.ts";
import { platformOf } from "../sources/source-manager.ts";
import type { SourceMetadata, SourceMetadataOptions } from "../sources/source-metadata.ts";
import { readContainerDir, readContainerFile, statContainerFile } from "./container-files.ts";
import type { GatewayBridge } from "./gateway-bridge.ts";
import { containersOf } from "./gateway-containers.ts";
import { execProcess } from "./gateway-exec.ts";
import { readTreeDir, readTreeFile, statTreeFile } from "./tree-files.ts";

/** Finds the gateway that a call is for. */
export type FindGateway = (ctx: CallContext) => Promise<GatewayBridge>;

/** The handlers of `moby.buildkit.v1.frontend.LLBBridge` (buildkit.md §2.3). */
export function gatewayHandlers(find: FindGateway): ServiceHandlers<typeof LLBBridge> {
  return { ...solveHandlers(find), ...fileHandlers(find), ...containerHandlers(find) };
}

function solveHandlers(find: FindGateway): ServiceHandlers<typeof LLBBridge> {
  return {
    ping: async (_request, ctx) => pong(await find(ctx)),
    inputs: async (_request, ctx) => ({ Definitions: Object.fromEntries((await find(ctx)).inputs) }),
    solve: async (request, ctx) => {
      const gateway = await find(ctx);
      return withBuildCode(() => gateway.solve(request, ctx.signal));
    },
    evaluate: async (request, ctx) => {
      const gateway = await find(ctx);
      await withBuildCode(() => gateway.tree(request.Ref, ctx.signal));
      return {};
    },
    return: async (request, ctx) => {
      const { error, result } = request;
      const gateway = await find(ctx);
      if (error?.code === 0 && result === undefined) {
        throw new BuildError("unknown", "gateway return must be either result or err");
      }
      const failure = error === undefined || error.code === 0 ? undefined : keepCode(errorFromStatus(error));
      gateway.return(result, failure);
      return {};
    },
    warn: async (request, ctx) => {
      const text = new TextDecoder();
      (await find(ctx)).bridge.warn({
        vertex: request.digest,
        level: Number(request.level),
        short: text.decode(request.short),
        detail: request.detail.map((line) => text.decode(line)),
        url: request.url,
        sourceInfo: request.info,
        ranges: request.ranges,
      });
      return {};
    },
    resolveSourceMeta: async (request, ctx) => {
      const gateway = await find(ctx);
      if (request.Source === undefined) throw new BuildError("invalid_argument", "source is required");
      return withBuildCode(() => resolveSource(gateway, request, ctx.signal));
    },
    resolveImageConfig: async (request, ctx) => {
      const gateway = await find(ctx);
      return withBuildCode(() => resolveImage(gateway, request, ctx.signal));
    },
  };
}

function fileHandlers(find: FindGateway): ServiceHandlers<typeof LLBBridge> {
  return {
    readFile: async (request, ctx) => {
      const gateway = await find(ctx);
      return withBuildCode(async () => {
        const root = await gateway.mounted(request.Ref, ctx.signal);
        return { Data: readTreeFile(root, request.FilePath, rangeOf(request.Range)) };
      });
    },
    readDir: async (request, ctx) => {
      const gateway = await find(ctx);
      return withBuildCode(async () => {
        const root = await gateway.mounted(request.Ref, ctx.signal);
        return { entries: readTreeDir(root, request.DirPath, request.IncludePattern) };
      });
    },
    statFile: async (request, ctx) => {
      const gateway = await find(ctx);
      return withBuildCode(async () => {
        const root = await gateway.mounted(request.Ref, ctx.signal);
        return { stat: statTreeFile(root, request.Path) };
      });
    },
  };
}

function containerHandlers(find: FindGateway): ServiceHandlers<typeof LLBBridge> {
  return {
    newContainer: async (request, ctx) => {
      const gateway = await find(ctx);
      await containersOf(gateway).create(request, ctx.signal);
      return {};
    },
    releaseContainer: async (request, ctx) => {
      await containersOf(await find(ctx)).release(request.ContainerID);
      return {};
    },
    execProcess: async (call, ctx) => execProcess(containersOf(await find(ctx)), call),
    readFileContainer: async (request, ctx) => {
      const { Ref: id, MountIndex: index } = request;
      const root = await containersOf(await find(ctx))
        .get(id, index)
        .mountedRoot(index);
      return { Data: readContainerFile(root, request.FilePath, rangeOf(request.Range)) };
    },
    readDirContainer: async (request, ctx) => {
      const { Ref: id, MountIndex: index } = request;
      const root = await containersOf(await find(ctx))
        .get(id, index)
        .mountedRoot(index);
      return { entries: readContainerDir(root, request.DirPath, request.IncludePattern) };
    },
    statFileContainer: async (request, ctx) => {
      const { Ref: id, MountIndex: index } = request;
      const root = await containersOf(await find(ctx))
        .get(id, index)
        .mountedRoot(index);
      return { stat: statContainerFile(root, request.Path) };
    },
  };
}

function rangeOf(
  range: { readonly Offset: bigint; readonly Length: bigint } | undefined,
): { offset: number; length: number } | undefined {
  return range && { offset: Number(range.Offset), length: Number(range.Length) };
}

function pong(gateway: GatewayBridge): PongResponse {
  const { worker } = gateway.bridge.host;
  return create(PongResponseSchema, {
    FrontendAPICaps: gatewayCaps.map(capMessage),
    LLBCaps: llbCaps.map(capMessage),
    Workers: [
      {
        ID: worker.id,
        Labels: Object.fromEntries(worker.labels),
        platforms: worker.platforms().map(platformMessage),
      },
    ],
  });
}

function capMessage(cap: Cap): APICap {
  return create(APICapSchema, { ID: cap.id, Enabled: true, Deprecated: cap.deprecated ?? false });
}

/** A platform in the words of LLB. */
export function platformMessage(platform: Platform): PlatformMessage {
  return create(PlatformSchema, {
    OS: platform.os,
    Architecture: platform.architecture,
    Variant: platform.variant ?? "",
    OSVersion: platform["os.version"] ?? "",
    OSFeatures: [...(platform["os.features"] ?? [])],
  });
}

const CHECKSUM_ALGORITHMS = {
  [ChecksumAlgo.SHA256]: "sha256",
  [ChecksumAlgo.SHA384]: "sha384",
  [ChecksumAlgo.SHA512]: "sha512",
} as const;

/** Reads the options of a `ResolveSourceMeta` request. */
export function metadataOptions(request: ResolveSourceMetaRequest): SourceMetadataOptions {
  const wanted = request.HTTP?.ChecksumRequest;
  const algorithm = wanted && CHECKSUM_ALGORITHMS[wanted.Algo as keyof typeof CHECKSUM_ALGORITHMS];
  if (wanted !== undefined && algorithm === undefined) {
    throw new BuildError("invalid_argument", `unsupported checksum algorithm ${wanted.Algo}`);
  }
  return {
    platform: platformOf(request.Platform),
    logName: request.LogName,
    resolveMode: request.ResolveMode,
    image: {
      noConfig: request.Image?.NoConfig ?? false,
      attestationChain: request.Image?.AttestationChain ?? false,
      resolveAttestations: request.Image?.ResolveAttestations ?? [],
    },
    ...(request.Git === undefined ? {} : { git: { returnObject: request.Git.ReturnObject } }),
    ...(wanted === undefined || algorithm === undefined
      ? {}
      : { http: { checksum: { algorithm, suffix: wanted.Suffix } } }),
  };
}

async function resolveSource(
  gateway: GatewayBridge,
  request: ResolveSourceMetaRequest,
  signal: AbortSignal,
): Promise<ResolveSourceMetaResponse> {
  if (request.Source === undefined) throw new BuildError("invalid_argument", "source is required");
  return metadataMessage(
    await gateway.bridge.resolveSourceMetadata(request.Source, metadataOptions(request), signal),
  );
}

/** What was found out about a source, as it goes over the wire. */
export function metadataMessage(found: SourceMetadata): ResolveSourceMetaResponse {
  const { image, git, http } = found;
  const chain = image?.attestationChain;
  return create(ResolveSourceMetaResponseSchema, {
    Source: found.source,
    ...(image === undefined
      ? {}
      : {
          Image: {
            Digest: image.digest,
            Config: image.config,
            ...(chain === undefined
              ? {}
              : {
                  AttestationChain: {
                    Root: chain.root,
                    ImageManifest: chain.imageManifest,
                    AttestationManifest: chain.attestationManifest,
                    SignatureManifests: [...chain.signatureManifests],
                    Blobs: Object.fromEntries(
                      [...chain.blobs].map(([key, blob]) => [
                        key,
                        {
                          descriptor: {
                            mediaType: blob.mediaType,
                            digest: blob.digest,
                            size: BigInt(blob.size),
                            annotations: Object.fromEntries(blob.annotations),
                          },
                          data: blob.data,
                        },
                      ]),
                    ),
                  },
                }),
          },
        }),
    ...(git === undefined
      ? {}
      : {
          Git: {
            Checksum: git.checksum,
            Ref: git.ref,
            CommitChecksum: git.commitChecksum,
            CommitObject: git.commitObject,
            TagObject: git.tagObject,
          },
        }),
    ...(http === undefined
      ? {}
      : {
          HTTP: {
            Checksum: http.checksum,
            Filename: http.filename,
            ...(http.lastModified === undefined ? {} : { LastModified: timestampFromMs(http.lastModified) }),
            ...(http.checksumResponse === undefined
              ? {}
              : {
                  ChecksumResponse: {
                    Digest: http.checksumResponse.digest,
                    Suffix: http.checksumResponse.suffix,
                  },
                }),
          },
        }),
  });
}

const RESOLVER_REGISTRY = 0;
const RESOLVER_OCI_LAYOUT = 1;

async function resolveImage(
  gateway: GatewayBridge,
  request: ResolveImageConfigRequest,
  signal: AbortSignal,
): Promise<{ Digest: string; Config: Uint8Array; Ref: string }> {
  if (request.ResolverType !== RESOLVER_REGISTRY && request.ResolverType !== RESOLVER_OCI_LAYOUT) {
    throw new BuildError("invalid_argument", `unknown resolver type ${request.ResolverType}`);
  }
  const scheme = request.ResolverType === RESOLVER_REGISTRY ? "docker-image" : "oci-layout";
  const source = create(SourceOpSchema, { identifier: `${scheme}://${request.Ref}` });
  if (request.SessionID !== "") source.attrs["oci.session"] = request.SessionID;
  if (request.StoreID !== "") source.attrs["oci.store"] = request.StoreID;
  const platform = platformOf(request.Platform);
  const found = await gateway.bridge
    .resolveSourceMetadata(
      source,
      { platform, logName: request.LogName, resolveMode: request.ResolveMode },
      signal,
    )
    .catch((error: unknown) => {
      throw wrapError(error, `failed to resolve source metadata for ${request.Ref}`);
    });
  if (found.image === undefined) {
    throw new BuildError(
      "invalid_argument",
      `failed to resolve image config for ${request.Ref}: not an image: ${found.source.identifier}`,
    );
  }
  return {
    Digest: found.image.digest,
    Config: found.image.config,
    Ref: found.source.identifier.replace(/^[a-z-]+:\/\//, ""),
  };
}
