import type { CdiRegistry } from "@kiln/executor";
import type { RefManager } from "@kiln/store";
import { CacheMounts } from "./cache-mounts.ts";
import { deviceCheck, refuseDevices } from "./device-check.ts";
import type { ExecOpHost } from "./exec-op.ts";
import type { StepClients } from "./prepare-mounts.ts";
import { logLimitsFromEnv } from "./step-log.ts";

/** The parts of an {@link ExecOpHost} that a worker doesn't have itself. */
export type ExecParts = Omit<ExecOpHost, "acquire" | "refs" | "hasher" | "executor">;

/** Makes them; one set per worker, because cache mounts are shared through it. */
export function createExecParts(opts: {
  readonly refs: RefManager;
  readonly clients: StepClients;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** The executor's devices; absent: devices are refused by name. */
  readonly cdi?: CdiRegistry;
}): ExecParts {
  const cacheMounts = new CacheMounts(opts.refs);
  return {
    cacheMounts,
    clients: opts.clients,
    logLimits: logLimitsFromEnv(opts.env),
    devices: () => opts.cdi?.list() ?? [],
    checkDevices: opts.cdi ? deviceCheck(opts.cdi) : refuseDevices,
    pruneCacheMounts: (ids) => cacheMounts.prune(ids),
  };
}
