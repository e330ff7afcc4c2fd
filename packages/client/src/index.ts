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
export { enabledCaps, GatewayClient, type GatewaySolve } from "./gateway.ts";
export {
  probe,
  type SolveOptions,
  type SolveResult,
  type SolveSession,
  solve,
  type TypedAttrs,
} from "./solve.ts";
export { rangesFromProto, sourceFromProto, statusFromProto, timeOf } from "./status-from-proto.ts";
