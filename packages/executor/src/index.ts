export { type CdiDeviceInfo, CdiRegistry } from "./cdi-registry.ts";
export { type CgroupMode, cgroupMode } from "./cgroup.ts";
export { createNetwork, type NetworkOptions } from "./cni-network.ts";
export { newContainerId, validateContainerId } from "./container-id.ts";
export { containerHosts, containerResolvConf, type DnsConfig } from "./dns.ts";
export type {
  CdiDevice,
  ExecMount,
  ExecOptions,
  Executor,
  ExitStatus,
  ExtraHost,
  LinuxResources,
  MountedPath,
  NetMode,
  ProcessControl,
  ProcessIo,
  ProcessSpec,
  RunOptions,
  SandboxSpec,
  SecurityMode,
  TerminalSize,
  Ulimit,
} from "./executor.ts";
export { cleanupLeftovers } from "./leftovers.ts";
export { type ContainerNetwork, hostNetwork, type NetworkProvider, noNetwork } from "./network.ts";
export { createOciExecutor, OciExecutor, type OciExecutorOptions } from "./oci-executor.ts";
export { emulatorOf, goArchitecture, supportedPlatforms } from "./platforms.ts";
export type { ProxyCheck, ProxyDecision } from "./proxy/exec-proxy.ts";
export {
  ProxyCapture,
  type ProxyIncomplete,
  type ProxyMaterial,
  type ProxyRequest,
} from "./proxy/proxy-capture.ts";
export type { ProxyConfig } from "./proxy/proxy-network.ts";
export type { CgroupSample } from "./resources/cgroup-sample.ts";
export type { ResourceUsage } from "./resources/resource-monitor.ts";
export { RootDir } from "./root-dir.ts";
export { findProgram } from "./runtime-choice.ts";
export { type ExecUser, lookupUser } from "./user.ts";
export { startZygote, Zygote, type ZygoteOptions } from "./zygote.ts";
