import type { NewContainerRequest } from "@kiln/api/gateway";
import { BuildError } from "@kiln/base";
import type { GatewayBridge } from "./gateway-bridge.ts";

export interface ContainerRoot {
  readonly path: string;
  readonly rest: string;
}
export interface GatewayContainer {
  mountRoot(index: number, path: string): Promise<ContainerRoot>;
}
export class GatewayContainers {
  async create(_request: NewContainerRequest, _signal: AbortSignal): Promise<void> {
    throw new BuildError("unimplemented", "containers");
  }
  async release(_id: string): Promise<void> {
    throw new BuildError("unimplemented", "containers");
  }
  get(_id: string): GatewayContainer {
    throw new BuildError("unimplemented", "containers");
  }
}
export function containersOf(_gateway: GatewayBridge): GatewayContainers {
  return new GatewayContainers();
}
