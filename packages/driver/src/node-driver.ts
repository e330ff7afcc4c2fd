import type { BuildkitClient } from "@kiln/client";
import type { Dial } from "@kiln/grpc/client";
import type { SolveStatus } from "@kiln/progress";

/** What a node is doing. */
export type NodeStatus = "inactive" | "starting" | "running" | "stopping" | "stopped" | "error";

/** How a boot is watched and given up. */
export interface BootOptions {
  readonly signal?: AbortSignal;
  readonly onStatus?: (status: SolveStatus) => void;
}

/**
 * Reaches the daemon of one node, and starts it where that's the driver's job. One connection is shared by all who
 * ask; {@link close} ends it.
 */
export interface NodeDriver {
  /** The driver's name, as `create --driver` takes it. */
  readonly name: string;
  /** A build without outputs is loaded into the local Docker Engine. */
  readonly defaultLoad: boolean;
  /** The connection; nothing is started. */
  client(): Promise<BuildkitClient>;
  /** Opens a byte stream of its own to the daemon. */
  dial(): Dial;
  /** Starts the daemon if needed and waits until it answers. */
  boot(opts?: BootOptions): Promise<BuildkitClient>;
  status(signal?: AbortSignal): Promise<NodeStatus>;
  stop(signal?: AbortSignal): Promise<void>;
  /** Removes what the driver made. */
  remove(opts: { readonly keepState: boolean; readonly keepDaemon: boolean }): Promise<void>;
  close(): Promise<void>;
}
