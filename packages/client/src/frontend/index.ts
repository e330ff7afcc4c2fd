export type {
  CacheImport,
  FrontendAttestation,
  FrontendRef,
  FrontendSubject,
  FrontendWorker,
  ResolvedImage,
  ResolveImageOptions,
  SolveRequest,
  SourceRequest,
  WarnOptions,
} from "@kiln/dockerfile";
export { type FrontendEnvironment, readFrontendEnvironment } from "./environment.ts";
export type { FrontendProcess } from "./exec-channel.ts";
export {
  type FoundSource,
  FrontendClient,
  type SourceMetadataRequest,
} from "./frontend-client.ts";
export type {
  ContainerMount,
  ContainerOptions,
  FrontendContainer,
  ProcessOptions,
  ProcessResult,
} from "./frontend-container.ts";
export type { ByteRange, FileInfo, GatewayRef } from "./frontend-ref.ts";
export {
  checkFrontendCaps,
  describeSubrequests,
  type Subrequest,
  subrequestResult,
  unsupportedRequest,
} from "./requests.ts";
export { imageResult, type PlatformImage, type ReturnedResult, type SolvedResult } from "./results.ts";
export { type BuildFunction, type FrontendHost, runFrontend } from "./run-frontend.ts";
export { sourceError } from "./source-error.ts";
