import type { SpecNetwork } from "./oci-spec.ts";

/** A container's network; dispose of it when the container has ended. */
export interface ContainerNetwork extends AsyncDisposable {
  readonly spec: SpecNetwork;
}

/** Gives containers their networks. `hostname` is "" for a container that isn't given a name. */
export interface NetworkProvider extends AsyncDisposable {
  /** What the worker's label says. */
  readonly mode: "host" | "cni";
  acquire(hostname: string): Promise<ContainerNetwork>;
}

function without(spec: SpecNetwork): ContainerNetwork {
  return { spec, [Symbol.asyncDispose]: async () => undefined };
}

/** Containers share the machine's network. */
export const hostNetwork: NetworkProvider = {
  mode: "host",
  acquire: async () => without({ kind: "host" }),
  [Symbol.asyncDispose]: async () => undefined,
};

/** Containers have a loopback device only. */
export const noNetwork: NetworkProvider = {
  mode: "host",
  acquire: async () => without({ kind: "new" }),
  [Symbol.asyncDispose]: async () => undefined,
};
