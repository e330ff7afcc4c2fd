import { Health, HealthCheckResponse_ServingStatus as ServingStatus } from "@kiln/api/health";
import { BuildError } from "@kiln/base";
import type { Router, ServiceHandlers } from "./router.ts";

/** What `grpc.health.v1.Health` tells. The empty name stands for the whole server, which serves from the start. */
export class HealthStatus {
  readonly #services = new Map<string, boolean>([["", true]]);
  #changed = new Set<() => void>();

  /** Sets the state of one service, or of the server (empty name). */
  set(service: string, serving: boolean): void {
    this.#services.set(service, serving);
    const changed = this.#changed;
    this.#changed = new Set();
    for (const wake of changed) wake();
  }

  /** Adds the service to a router. */
  addTo(router: Router): void {
    const handlers: ServiceHandlers<typeof Health> = {
      check: (request) => {
        const serving = this.#services.get(request.service);
        if (serving === undefined) throw new BuildError("not_found", "unknown service");
        return { status: serving ? ServingStatus.SERVING : ServingStatus.NOT_SERVING };
      },
      watch: (request, ctx) => this.#watch(request.service, ctx.signal),
    };
    router.add(Health, handlers);
  }

  async *#watch(service: string, signal: AbortSignal): AsyncGenerator<{ status: ServingStatus }> {
    let sent: ServingStatus | undefined;
    while (!signal.aborted) {
      const serving = this.#services.get(service);
      const status =
        serving === undefined
          ? ServingStatus.SERVICE_UNKNOWN
          : serving
            ? ServingStatus.SERVING
            : ServingStatus.NOT_SERVING;
      if (status !== sent) {
        sent = status;
        yield { status };
        continue;
      }
      await new Promise<void>((resolve) => {
        this.#changed.add(resolve);
        signal.addEventListener("abort", () => resolve(), { once: true });
      });
    }
  }
}
