import { type ExecOp, type Platform as LlbPlatform, NetMode, SecurityMode } from "@kiln/api/pb";
import { BuildError, errorMessage, isCanceled, type WireDetail, wrapError } from "@kiln/base";
import {
  type CdiDeviceInfo,
  type Executor,
  type ExitStatus,
  type LinuxResources,
  ProxyCapture,
  type ProxyCheck,
  type ProxyIncomplete,
  type ProxyMaterial,
  type ResourceUsage,
  type SandboxSpec,
} from "@kiln/executor";
import { quoteGo } from "@kiln/formats";
import type { Platform } from "@kiln/oci";
import type { CacheMapAnswer } from "@kiln/solver";
import { goJsonText } from "../../cache-digest/go-json.ts";
import type { ContentHasher } from "../../content-hash/content-hasher.ts";
import { contentKeyOf } from "../../content-hash/content-key.ts";
import type { LlbOp, LlbVertex, Op, OpContext, OpResult } from "../../op-context.ts";
import { JOB_TRACE_PARENT } from "../../solve/builder.ts";
import type { Entitlements } from "../../solve/entitlements.ts";
import { validateOp } from "../../solve/validate-op.ts";
import { unlazy } from "../file/file-op.ts";
import { OpFailure } from "../op-failure.ts";
import { execCacheDigest, execDeps } from "./exec-cache-map.ts";
import { parseExtraHosts, stepEnv } from "./exec-env.ts";
import { type MountsHost, PreparedMounts } from "./prepare-mounts.ts";
import { type LogLimits, StepLog } from "./step-log.ts";

/** What exec ops need of a worker. */
export interface ExecOpHost extends MountsHost {
  readonly hasher: ContentHasher;
  readonly executor: Executor;
  readonly logLimits: LogLimits;
  acquire(ctx: OpContext): Promise<() => void>;
  /** @throws BuildError for devices that the step may not have. */
  checkDevices(exec: ExecOp, granted: Entitlements): void;
  /** Devices that steps can ask for. */
  devices(): readonly CdiDeviceInfo[];
  /** Forgets cache mounts; see `CacheMounts.prune`. */
  pruneCacheMounts(ids: ReadonlyMap<string, boolean>): Promise<void>;
}

/** What an exec op is bound to. */
export interface ExecOperationOptions {
  readonly vertex: LlbVertex;
  readonly host: ExecOpHost;
  readonly proxyCheck?: StepProxyCheck;
}

/** Makes what decides about the requests of a proxied step; undefined lets all pass. */
export type StepProxyCheck = (ctx: OpContext) => ProxyCheck | undefined;

/** Runs a process over its inputs: LLB's `ExecOp`. */
export class ExecOperation implements Op {
  readonly #capture: ProxyCapture | undefined;
  readonly #op: ExecOp;
  readonly #vertex: LlbVertex;
  readonly #host: ExecOpHost;
  readonly #proxyCheck: StepProxyCheck | undefined;
  #usage: ResourceUsage | undefined;

  /** @throws BuildError `invalid_argument` for an op that can't be run. */
  constructor(op: ExecOp, opts: ExecOperationOptions) {
    validateOp(opts.vertex.op.op);
    this.#op = op;
    this.#vertex = opts.vertex;
    this.#host = opts.host;
    this.#proxyCheck = opts.proxyCheck;
    this.#capture = opts.vertex.op.proxied ? new ProxyCapture() : undefined;
  }

  /** What the step has used; undefined when it didn't run or nothing could be told. */
  get usage(): ResourceUsage | undefined {
    return this.#usage;
  }

  /** Whether the step goes out through a proxy that notes what it fetches. */
  get proxied(): boolean {
    return this.#capture !== undefined;
  }

  /** What it has fetched; for provenance. */
  proxyMaterials(): readonly ProxyMaterial[] {
    return this.#capture?.materials() ?? [];
  }

  /** Requests whose answers can't be named as materials. */
  proxyIncomplete(): readonly ProxyIncomplete[] {
    return this.#capture?.incomplete ?? [];
  }

  async cacheMap(): Promise<CacheMapAnswer<LlbOp, OpResult>> {
    const digest = execCacheDigest(this.#op, this.#vertex.op.op.platform);
    const { hasher } = this.#host;
    const deps = execDeps(this.#op, this.#vertex.inputs.length).map(({ selector, selectors }) => ({
      selector,
      preprocess: unlazy,
      ...(selectors === undefined
        ? {}
        : {
            computeContentKey: (input: OpResult, ctx: OpContext) =>
              contentKeyOf(hasher, input, selectors, ctx),
          }),
    }));
    return { cacheMap: { digest, deps }, done: true };
  }

  acquire(ctx: OpContext): Promise<() => void> {
    return this.#host.acquire(ctx);
  }

  async exec(inputs: readonly OpResult[], ctx: OpContext): Promise<readonly OpResult[]> {
    const { meta } = this.#op;
    const command = meta?.args.join(" ") ?? "";
    const owner = {
      sessions: ctx.sessions,
      signal: ctx.signal,
      cwd: meta?.cwd ?? "/",
      name: `exec ${command}`,
      describe: (mount: { readonly dest: string }) => `mount ${mount.dest} from exec ${command}`,
    };
    const refs = inputs.map((input) => input.ref);
    await using prepared = new PreparedMounts(this.#host, owner, refs);
    let failure: unknown;
    try {
      await prepared.prepare(this.#op.mounts);
      failure = await this.#run(prepared, ctx);
    } catch (error) {
      await prepared.releaseMounts();
      if (isCanceled(error) || ctx.signal.aborted) throw error;
      throw await this.#failed(error, inputs, { prepared, ctx });
    }
    await prepared.releaseMounts();
    if (failure !== undefined) throw await this.#failed(failure, inputs, { prepared, ctx });
    return await commitOutputs(prepared);
  }

  /** Runs the process; returns the error for an end that counts as a failure. */
  async #run(prepared: PreparedMounts, ctx: OpContext): Promise<unknown> {
    const { meta } = this.#op;
    const { clients, executor, logLimits } = this.#host;
    const sandbox = { ...this.#sandbox(prepared), ...this.#proxy(ctx) };
    const env = await stepEnv(this.#op, { clients, sessions: ctx.sessions, signal: ctx.signal });
    const stdout = new StepLog(ctx.progress, 1, logLimits);
    const stderr = new StepLog(ctx.progress, 2, logLimits);
    const args = meta?.args ?? [];
    const failure = await runAndCheck(
      async () => {
        const status = await executor.run({
          rootfs: prepared.rootfs,
          mounts: prepared.mounts,
          process: {
            args,
            env,
            user: meta?.user ?? "",
            cwd: meta?.cwd || "/",
            tty: false,
            ...traceParentOf(ctx),
          },
          sandbox,
          io: { stdout: stdout.stream, stderr: stderr.stream },
          signal: ctx.signal,
        });
        this.#usage = status.usage;
        return status;
      },
      { args, validExitCodes: meta?.validExitCodes ?? [] },
    );
    const summary = this.#capture?.summary() ?? "";
    if (summary !== "") stderr.stream.write(summary);
    if (failure !== undefined) {
      stdout.flushTail();
      stderr.flushTail();
    }
    return failure;
  }

  #sandbox(prepared: PreparedMounts): SandboxSpec {
    const { meta, network, security, cdiDevices } = this.#op;
    const { platform } = this.#vertex.op.op;
    return {
      hostname: meta?.hostname ?? "",
      extraHosts: parseExtraHosts(meta?.extraHosts ?? []),
      ulimits: (meta?.ulimit ?? []).map(({ Name, Soft, Hard }) => ({ name: Name, soft: Soft, hard: Hard })),
      cgroupParent: meta?.cgroupParent ?? "",
      resources: executorResources(this.#vertex.op.linuxResources),
      netMode: netModeOf(network),
      securityMode: security === SecurityMode.INSECURE ? "insecure" : "sandbox",
      readonlyRootfs: prepared.readonlyRootfs,
      removeMountStubsRecursive: meta?.removeMountStubsRecursive ?? false,
      cdiDevices: cdiDevices.map(({ name, optional }) => ({ name, optional })),
      ...(platform === undefined ? {} : { platform: executorPlatform(platform) }),
    };
  }

  #proxy(ctx: OpContext): Pick<SandboxSpec, "proxy"> {
    if (!this.#capture) return {};
    const check = this.#proxyCheck?.(ctx);
    return { proxy: { capture: this.#capture, ...(check ? { check } : {}) } };
  }

  /** The error with the trees as they are now, for whoever wants to look into them while the builds last. */
  async #failed(
    error: unknown,
    inputs: readonly OpResult[],
    run: { readonly prepared: PreparedMounts; readonly ctx: OpContext },
  ): Promise<unknown> {
    const { prepared, ctx } = run;
    const clones = this.#op.mounts.map((mount): OpResult | undefined => {
      const input = mount.input < 0n ? undefined : inputs[Number(mount.input)];
      return input && { ref: input.ref?.clone() };
    });
    const mounts = [...clones];
    const { outputs, scratch } = prepared.takeTrees();
    let cause = error;
    for (const { mountIndex, ref } of [...outputs, ...scratch]) {
      try {
        mounts[mountIndex] = { ref: ref.kind === "mutable" ? await ref.commit() : ref };
      } catch (commitError) {
        cause = wrapError(cause, `error committing ${ref.id}: ${errorMessage(commitError)}`);
        await ref.release();
      }
    }
    const failure = new OpFailure(cause, { inputs: clones, mounts });
    ctx.cleanup(() => failure.release());
    return failure;
  }
}

/** The trace of the first build that wants a step. */
function traceParentOf(ctx: OpContext): { readonly traceParent?: string } {
  const [traceParent] = ctx.jobValues(JOB_TRACE_PARENT);
  return typeof traceParent === "string" ? { traceParent } : {};
}

/** Makes every output immutable; all or none. */
async function commitOutputs(prepared: PreparedMounts): Promise<OpResult[]> {
  const { outputs, scratch } = prepared.takeTrees();
  for (const { ref } of scratch.reverse()) await ref.release();
  const results: OpResult[] = [];
  try {
    for (const { ref } of outputs) {
      results.push({ ref: ref.kind === "mutable" ? await commit(ref) : ref });
    }
    return results;
  } catch (error) {
    for (const { ref } of results) await ref?.release();
    for (const { ref } of outputs.slice(results.length)) await ref.release();
    throw error;
  }
}

async function commit(ref: Extract<PreparedMounts["outputs"][number]["ref"], { kind: "mutable" }>) {
  try {
    return await ref.commit();
  } catch (error) {
    throw wrapError(error, `error committing ${ref.id}`);
  }
}

/** What a process was started with, as far as its end is judged by it. */
export interface ProcessExpectation {
  readonly args: readonly string[];
  /** Codes that count as success; 0 alone when empty. */
  readonly validExitCodes: readonly number[];
}

/** Runs a process; an end that isn't a success is returned as BuildKit's error, cancellation thrown. */
export async function runAndCheck(
  run: () => Promise<ExitStatus>,
  expected: ProcessExpectation,
): Promise<BuildError | undefined> {
  const prefix = `process ${quoteGo(expected.args.join(" "))} did not complete successfully`;
  let status: ExitStatus;
  try {
    status = await run();
  } catch (error) {
    if (isCanceled(error)) throw error;
    const wrapped = wrapError(error, prefix);
    if (wrapped instanceof BuildError) return wrapped;
    throw wrapped;
  }
  const failure = exitFailure(status, expected.validExitCodes);
  if (failure === undefined) return undefined;
  return new BuildError("unknown", `${prefix}: ${failure}`, { wire: [exitDetail(status.code)] });
}

/** Why an end isn't a success, in BuildKit's words; undefined for a success. */
export function exitFailure(status: ExitStatus, validExitCodes: readonly number[]): string | undefined {
  const valid = validExitCodes.length === 0 ? [0] : validExitCodes;
  const reasons: string[] = [];
  if (!valid.includes(status.code)) {
    reasons.push(status.outOfMemory ? "cannot allocate memory" : `exit code: ${status.code}`);
  }
  if (status.failure !== "") reasons.push(status.failure);
  return reasons.length === 0 ? undefined : reasons.join("\n");
}

/** The exit code as a typed detail. */
export function exitDetail(code: number): WireDetail {
  return {
    typeUrl: "github.com/moby/buildkit/gatewayapi.ExitMessage+json",
    value: new TextEncoder().encode(goJsonText(code === 0 ? {} : { Code: code })),
  };
}

/** LLB's network mode in the executor's words. @throws BuildError `invalid_argument` for an unknown one. */
export function netModeOf(mode: NetMode): "default" | "host" | "none" {
  switch (mode) {
    case NetMode.UNSET:
      return "default";
    case NetMode.HOST:
      return "host";
    case NetMode.NONE:
      return "none";
    default:
      throw new BuildError("invalid_argument", `unknown network mode ${String(mode)}`);
  }
}

function executorPlatform(platform: LlbPlatform): Platform {
  const { OS, Architecture, Variant } = platform;
  return { os: OS, architecture: Architecture, ...(Variant === "" ? {} : { variant: Variant }) };
}

function executorResources(limits: LlbOp["linuxResources"]): LinuxResources {
  if (limits === undefined) return {};
  return {
    memoryBytes: limits.memory,
    memorySwapBytes: limits.memorySwap,
    cpuShares: limits.cpuShares,
    cpuPeriodUs: limits.cpuPeriod,
    cpuQuotaUs: limits.cpuQuota,
    cpusetCpus: limits.cpusetCpus,
    cpusetMems: limits.cpusetMems,
  };
}
