export * from "./caps.ts";
export * from "./definition.ts";
export { stateFromDefinition } from "./definition-vertex.ts";
export { encodeOp } from "./encode-op.ts";
export { EnvList } from "./env-list.ts";
export type { Mount, RunOptions, SecretMount, SshMount } from "./exec.ts";
export * from "./file.ts";
export { cleanSubdir, type GitUrl, gitUrlOf, parseGitUrl } from "./git-url.ts";
export { basePath, cleanPath, dirPath, isAbsolute, joinPath } from "./go-path.ts";
export { formatGoUrl, type GoUrl, parseGoQuery, parseGoUrl } from "./go-url.ts";
export * from "./load.ts";
export { definitionFromMessage, metadataFromMessage } from "./message.ts";
export * from "./metadata.ts";
export * from "./op.ts";
export { opName } from "./op-name.ts";
export {
  type BuildOptions,
  build,
  diff,
  merge,
  type PassthroughInput,
  passthrough,
  scratch,
} from "./ops.ts";
export * from "./source-map.ts";
export * from "./sources.ts";
export { ExecState, type ImageSettings, State } from "./state.ts";
export { checkOp } from "./validate-op.ts";
export {
  fixedOutput,
  inputOf,
  LazyOutput,
  type MarshaledVertex,
  type MarshalOptions,
  type Output,
  type Vertex,
} from "./vertex.ts";
export { compareUtf8 } from "./wire.ts";
