import type { ExecOp } from "@kiln/api/pb";
import { BuildError } from "@kiln/base";
import { quoteGo } from "@kiln/formats";
import type { RefManager } from "@kiln/store";
import { CacheMounts } from "./cache-mounts.ts";
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
  /** Absent: devices are refused by name. */
  readonly checkDevices?: ExecOpHost["checkDevices"];
}): ExecParts {
  const cacheMounts = new CacheMounts(opts.refs);
  return {
    cacheMounts,
    clients: opts.clients,
    logLimits: logLimitsFromEnv(opts.env),
    checkDevices: opts.checkDevices ?? refuseDevices,
    pruneCacheMounts: (ids) => cacheMounts.prune(ids),
  };
}

/** @throws BuildError `failed_precondition` for a device that the step can't do without. */
export function refuseDevices(exec: ExecOp): void {
  const needed = exec.cdiDevices.find((device) => !device.optional);
  if (needed === undefined) return;
  const step = exec.meta?.args.join(" ") || "exec";
  throw new BuildError(
    "failed_precondition",
    `CDI device ${quoteGo(needed.name)} is required by step ${quoteGo(step)}, but CDI device support is disabled`,
  );
}
