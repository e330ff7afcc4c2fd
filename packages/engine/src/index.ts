export { parseAttests } from "./attestations/attest-attrs.ts";
export { attestationProcessors } from "./attestations/attestation-processors.ts";
export {
  createProvenance,
  type ProvenanceDraft,
  type ProvenanceOptions,
  type ProvenanceSubject,
} from "./attestations/provenance/create-provenance.ts";
export {
  checkProvenanceEnvironment,
  type ProvenanceEnvironment,
} from "./attestations/provenance/predicate.ts";
export { captureResult, type ResultCapture } from "./attestations/provenance/result-capture.ts";
export { type RecordedProvenance, recordedProvenance } from "./attestations/recorded-provenance.ts";
export { type CacheBackends, createCacheBackends } from "./cache-backends/cache-backends.ts";
export { CacheBlobs } from "./cache-backends/cache-blobs.ts";
export {
  type CachedTrees,
  type CacheExport,
  type CacheExportEntry,
  type CacheExports,
  eachTree,
  type ResolveCacheExports,
} from "./cache-backends/cache-exporter.ts";
export { shownCacheImports } from "./cache-backends/shown-imports.ts";
export { ContentHasher } from "./content-hash/content-hasher.ts";
export type { Exporter, ExporterInstance } from "./exporters/exporter.ts";
export { createLocalExporter } from "./exporters/files/local-exporter.ts";
export { createTarExporter } from "./exporters/files/tar-exporter.ts";
export { createArchiveExporter, type EnsureLayer } from "./exporters/image/archive-exporter.ts";
export { createImageExporter } from "./exporters/image/image-exporter.ts";
export { ImageWriter } from "./exporters/image/image-writer.ts";
export { createPusher } from "./exporters/image/push-image.ts";
export { isEpoch } from "./exporters/parse-attrs.ts";
export { dockerfileFrontend } from "./frontends/dockerfile-frontend.ts";
export type {
  CacheImport,
  Frontend,
  FrontendBridge,
  FrontendRequest,
  FrontendResult,
  FrontendSolveRequest,
  ResultProxy,
} from "./frontends/frontend.ts";
export { GatewayBridge } from "./frontends/gateway-bridge.ts";
export { createGatewayFrontend, type GatewayFrontendOptions } from "./frontends/gateway-frontend.ts";
export {
  gatewayHandlers,
  metadataMessage,
  metadataOptions,
  platformMessage,
} from "./frontends/gateway-service.ts";
export type { LlbOp, LlbVertex, Op, OpContext, OpResult } from "./op-context.ts";
export { createExecParts } from "./ops/exec/exec-parts.ts";
export type { ForwardedSocket, StepClients } from "./ops/exec/prepare-mounts.ts";
export { FileRunner } from "./ops/file/file-runner.ts";
export { groupOf } from "./session-group.ts";
export { type BridgeHost, JobBridge, type OpenCacheImport } from "./solve/bridge.ts";
export { type BuildResult, eachRef, mapRefs, type ResultDescriptor } from "./solve/build-results.ts";
export { JOB_TRACE_PARENT } from "./solve/builder.ts";
export {
  type BuildEnd,
  type BuildObserver,
  CURRENT_COMPATIBILITY,
  Engine,
  type EngineParts,
  type ExporterEntry,
  type ObservedBuild,
  type ResultProcessor,
  type SessionExporters,
  type SolveRequest,
} from "./solve/engine.ts";
export { createPolicyEvaluator } from "./solve/session-policy.ts";
export { buildFailure, withBuildCode } from "./solve/wire-code.ts";
export { dropPullLeases } from "./sources/image/document-leases.ts";
export { LocalSource } from "./sources/local.ts";
export { SourceManager } from "./sources/source-manager.ts";
export { SessionAuthenticators, type SourceSessions } from "./sources/source-sessions.ts";
export { type RemoteSourceServices, remoteSources } from "./sources/standard-sources.ts";
export { KILN_BUILDKIT_VERSION, KILN_PACKAGE, KILN_REVISION } from "./version.ts";
export { hostPlatform } from "./worker/host-platform.ts";
export { RefResultStore } from "./worker/result-store.ts";
export { SqliteKeyStore } from "./worker/sqlite-key-store.ts";
export { Worker, type WorkerParts } from "./worker/worker.ts";
