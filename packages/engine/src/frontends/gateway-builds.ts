import type { Definition } from "@kiln/api/pb";
import { BuildError, createDeferred, type Deferred, withSignal } from "@kiln/base";
import type { JobBridge } from "../solve/bridge.ts";
import type { FrontendResult } from "./frontend.ts";
import { GatewayBridge } from "./gateway-bridge.ts";

/** A build that a client drives over the gateway API. Disposing ends what the client left open. */
export interface DrivenBuild extends AsyncDisposable {
  /** Settles with what the client returns. */
  result(): Promise<FrontendResult>;
}

/** The builds that clients drive at this moment, by ref. */
export class GatewayBuilds {
  readonly #open = new Map<string, GatewayBridge>();
  readonly #waiting = new Map<string, Deferred<GatewayBridge>>();

  /** Makes a build reachable for its client. */
  open(ref: string, bridge: JobBridge, inputs: ReadonlyMap<string, Definition>): DrivenBuild {
    const gateway = new GatewayBridge(bridge, { inputs });
    this.#open.set(ref, gateway);
    this.#waiting.get(ref)?.resolve(gateway);
    this.#waiting.delete(ref);
    return {
      result: () => gateway.result(),
      [Symbol.asyncDispose]: async () => {
        this.#open.delete(ref);
        await gateway[Symbol.asyncDispose]();
      },
    };
  }

  /**
   * The build that a client's calls are for; waits for it to be registered.
   *
   * @throws BuildError `not_found` when the caller gives up first.
   */
  async find(ref: string, signal: AbortSignal): Promise<GatewayBridge> {
    const open = this.#open.get(ref);
    if (open !== undefined) return open;
    let waiting = this.#waiting.get(ref);
    if (waiting === undefined) {
      waiting = createDeferred();
      this.#waiting.set(ref, waiting);
    }
    // upstream bounds the wait, as a build that failed before it was registered never comes
    const timeout = AbortSignal.timeout(REGISTRATION_TIMEOUT_MS);
    try {
      return await withSignal(waiting.promise, AbortSignal.any([signal, timeout]));
    } catch (error) {
      throw new BuildError("not_found", `no such job ${ref}`, { cause: error });
    }
  }
}

const REGISTRATION_TIMEOUT_MS = 3_000;
