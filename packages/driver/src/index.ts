export {
  type Builder,
  BuilderNode,
  BuilderRegistry,
  checkDriver,
  type NodeData,
  parsePlatformList,
  workerPlatforms,
} from "./builder.ts";
export { BuilderStore } from "./builder-store.ts";
export { ConfigDir, dockerConfigDir, type Env } from "./config-dir.ts";
export {
  DEFAULT_DOCKER_HOST,
  type DockerConfig,
  type DockerEndpoint,
  dockerEndpoint,
  endpointKey,
  proxyArgs,
  readDockerConfig,
  readDockerConfigIn,
} from "./docker-config.ts";
export { EMBEDDED_DRIVER, type EmbeddedPaths, embeddedPaths } from "./embedded-driver.ts";
export { type BuildPlace, LocalState } from "./local-state.ts";
export type { BootOptions, NodeDriver, NodeStatus } from "./node-driver.ts";
export {
  leaveNode,
  type NodeChange,
  type NodeGroup,
  type StoredNode,
  updateNode,
  validateName,
} from "./node-group.ts";
export { type Login, RegistryLogins } from "./registry-login.ts";
export { validateRemoteEndpoint } from "./remote-driver.ts";
export { type ResolvedNode, resolveNodes } from "./resolve-nodes.ts";
export { asVertex, type PartReporter } from "./vertex.ts";
