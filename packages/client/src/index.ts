export { createSession } from "./build-session.ts";
export { BuildkitClient, type ConnectOptions } from "./client.ts";
export {
  DEFAULT_ADDRESS,
  dialCommand,
  dialTo,
  loadTls,
  type TlsFiles,
  tlsFilesIn,
} from "./dial.ts";
export { type BuildFailure, failureOf } from "./failure.ts";
export { openFileSink, streamSink } from "./file-sinks.ts";
export { enabledCaps, GatewayClient, type GatewaySolve } from "./gateway.ts";
export { type PreparedCaches, prepareLocalCaches } from "./local-caches.ts";
export { type EntryName, type IndexEntry, OciIndex } from "./oci-index.ts";
export { prefixed } from "./rpc-error.ts";
export {
  probe,
  type SolveOptions,
  type SolveResult,
  type SolveSession,
  solve,
  type TypedAttrs,
} from "./solve.ts";
export { rangesFromProto, sourceFromProto, statusFromProto, timeOf } from "./status-from-proto.ts";
