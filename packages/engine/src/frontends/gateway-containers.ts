import type { NewContainerRequest } from "@kiln/api/gateway";
import { type Mount, MountType } from "@kiln/api/pb";
import { BuildError, isBuildError } from "@kiln/base";
import { quoteGo } from "@kiln/formats";
import type { ImmutableRef } from "@kiln/store";
import { groupOf } from "../session-group.ts";
import type { GatewayBridge } from "./gateway-bridge.ts";
import { type ContainerHost, type ContainerSpec, GatewayContainer } from "./gateway-container.ts";

/** Containers that one client may have at a time. */
const MAX_CONTAINERS = 1000;
/** Mounts of one container. */
const MAX_MOUNTS = 1000;

/** Finds the tree behind a mount's `resultID`; it stays the finder's. */
export type FindTree = (id: string, signal: AbortSignal) => Promise<ImmutableRef | undefined>;

/** The containers of a gateway, by the names that its client gives them. */
export class GatewayContainers {
  readonly #host: ContainerHost;
  readonly #findTree: FindTree;
  /** Undefined while one is being made. */
  readonly #containers = new Map<string, GatewayContainer | undefined>();
  readonly #creating = new Set<Promise<unknown>>();
  readonly #closing = new AbortController();

  constructor(host: ContainerHost, findTree: FindTree) {
    this.#host = host;
    this.#findTree = findTree;
  }

  /** `LLBBridge.NewContainer`. @throws BuildError in BuildKit's words. */
  async create(request: NewContainerRequest, signal: AbortSignal): Promise<void> {
    checkRequest(request);
    this.#checkOpen();
    const id = request.ContainerID;
    if (this.#containers.has(id)) {
      throw new BuildError("already_exists", `Container ${id} already exists`);
    }
    if (this.#containers.size >= MAX_CONTAINERS) {
      throw new BuildError("resource_exhausted", `more than ${MAX_CONTAINERS} containers`);
    }
    this.#containers.set(id, undefined);
    const creating = this.#create(request, AbortSignal.any([signal, this.#closing.signal]));
    this.#creating.add(creating);
    try {
      this.#containers.set(id, await creating);
    } catch (error) {
      this.#containers.delete(id);
      throw error;
    } finally {
      this.#creating.delete(creating);
    }
  }

  async #create(request: NewContainerRequest, signal: AbortSignal): Promise<GatewayContainer> {
    const mounts: { mount: Mount; tree: ImmutableRef | undefined }[] = [];
    for (const mount of request.Mounts) {
      mounts.push({ mount, tree: mount.resultID === "" ? undefined : await this.#treeOf(mount, signal) });
    }
    const spec: ContainerSpec = {
      id: request.ContainerID,
      mounts,
      network: request.Network,
      hostname: request.hostname,
      extraHosts: request.extraHosts,
      platform: request.platform,
    };
    const container = await GatewayContainer.create(this.#host, spec, signal);
    if (!signal.aborted) return container;
    await container.release();
    throw signal.reason;
  }

  async #treeOf(mount: Mount, signal: AbortSignal): Promise<ImmutableRef | undefined> {
    try {
      return await this.#findTree(mount.resultID, signal);
    } catch (error) {
      if (!isBuildError(error, "not_found") || !error.message.startsWith("no such ref: ")) throw error;
      throw new BuildError(
        "unknown",
        `failed to find ref ${mount.resultID} for ${quoteGo(mount.dest)} mount: return reference ${mount.resultID} not found`,
        { cause: error },
      );
    }
  }

  /**
   * `LLBBridge.ReleaseContainer`.
   *
   * @throws BuildError, after all is gone, when a process failed or had to be killed, as BuildKit does.
   */
  async release(id: string): Promise<void> {
    const container = this.#containers.get(id);
    if (container === undefined) {
      throw new BuildError("unknown", `container details for ${id} not found`);
    }
    this.#containers.delete(id);
    await container.release();
    if (container.failure !== undefined) throw container.failure;
  }

  /** The container with this name, for files. @throws BuildError when there is none. */
  get(id: string, mountIndex: number): GatewayContainer {
    const container = this.#containers.get(id);
    if (container !== undefined) return container;
    throw new BuildError("unknown", `container details for ${id}@${mountIndex} not found`);
  }

  /** The container with this name, for processes. @throws BuildError `not_found`. */
  forProcess(id: string): GatewayContainer {
    const container = this.#containers.get(id);
    if (container !== undefined) return container;
    throw new BuildError("not_found", `container ${quoteGo(id)} previously released or not created`);
  }

  /** Releases all of them, and takes no more. */
  async close(): Promise<void> {
    this.#closing.abort(new BuildError("canceled", "context canceled"));
    await Promise.allSettled(this.#creating);
    const all = [...this.#containers.values()];
    this.#containers.clear();
    const ends = await Promise.allSettled(all.map((container) => container?.release()));
    for (const end of ends) if (end.status === "rejected") throw end.reason;
  }

  #checkOpen(): void {
    if (!this.#closing.signal.aborted) return;
    throw new BuildError("unavailable", "gateway forwarder is closing");
  }
}

function checkRequest(request: NewContainerRequest): void {
  if (request.Mounts.length > MAX_MOUNTS) {
    throw new BuildError("invalid_argument", `more than ${MAX_MOUNTS} mounts`);
  }
  for (const mount of request.Mounts) {
    if (mount.mountType === MountType.SSH && mount.SSHOpt === undefined) {
      throw new BuildError("invalid_argument", `SSH mount ${quoteGo(mount.dest)} requires options`);
    }
  }
  if (request.Mounts.some((mount) => mount.dest === "/")) return;
  throw new BuildError("invalid_argument", "root mount is required");
}

const opened = new WeakMap<GatewayBridge, GatewayContainers>();

/** The containers of a gateway; they go when it is closed. */
export function containersOf(gateway: GatewayBridge): GatewayContainers {
  let containers = opened.get(gateway);
  if (containers === undefined) {
    const { bridge } = gateway;
    const { worker } = bridge.host;
    containers = new GatewayContainers(
      {
        mounts: worker.mountsHost,
        executor: worker.executor,
        sessions: groupOf([bridge.sessionId]),
        granted: () => bridge.entitlements(),
        proxy: () => {
          if (!bridge.proxyNetwork) return undefined;
          const check = bridge.proxyCheck();
          return check === undefined ? {} : { check };
        },
      },
      (id, signal) => gateway.tree(id, signal),
    );
    opened.set(gateway, containers);
    const made = containers;
    gateway.defer(() => made.close());
  }
  return containers;
}
