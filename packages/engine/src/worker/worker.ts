import type { ExecOp } from "@kiln/api/pb";
import { BuildError, Semaphore } from "@kiln/base";
import type { CdiDeviceInfo, Executor } from "@kiln/executor";
import type { Platform } from "@kiln/oci";
import type { ContentStore, PruneOptions, RefManager } from "@kiln/store";
import type { ContentHasher } from "../content-hash/content-hasher.ts";
import type { LlbVertex, Op, OpContext } from "../op-context.ts";
import { BuildOperation, type NestedSolve } from "../ops/build-op.ts";
import { DiffOperation } from "../ops/diff-op.ts";
import { ExecOperation, type ExecOpHost, type StepProxyCheck } from "../ops/exec/exec-op.ts";
import type { MountsHost } from "../ops/exec/prepare-mounts.ts";
import { FileOperation } from "../ops/file/file-op.ts";
import type { FileRunner } from "../ops/file/file-runner.ts";
import { MergeOperation } from "../ops/merge-op.ts";
import { PassthroughOperation } from "../ops/passthrough-op.ts";
import { SourceOperation } from "../ops/source-op.ts";
import type { Entitlements } from "../solve/entitlements.ts";
import type { SourceManager } from "../sources/source-manager.ts";
import { checkLlbCapability } from "./capabilities.ts";

/** Parts that a worker is put together from; the composition root makes them. */
export interface WorkerParts {
  readonly id: string;
  readonly labels: ReadonlyMap<string, string>;
  readonly refs: RefManager;
  readonly content: ContentStore;
  readonly hasher: ContentHasher;
  readonly fileRunner: FileRunner;
  readonly executor: Executor;
  readonly sources: SourceManager;
  readonly exec: Omit<ExecOpHost, "acquire" | "refs" | "hasher" | "executor">;
  readonly gcPolicy: readonly PruneOptions[];
  /** Ops that may run at a time; 0 is no limit. */
  readonly maxParallelism: number;
  readonly proxyNetwork: boolean;
  /** Platforms that can be run, the machine's own first. */
  readonly platforms: () => readonly Platform[];
}

/** A place that can run ops: the store, the runtime and the sources that belong together. */
export class Worker {
  readonly id: string;
  readonly labels: ReadonlyMap<string, string>;
  readonly refs: RefManager;
  readonly content: ContentStore;
  readonly hasher: ContentHasher;
  readonly executor: Executor;
  readonly sources: SourceManager;
  readonly gcPolicy: readonly PruneOptions[];
  readonly proxyNetwork: boolean;
  readonly platforms: () => readonly Platform[];
  readonly #parts: WorkerParts;
  readonly #places: Semaphore;

  constructor(parts: WorkerParts) {
    this.id = parts.id;
    this.labels = parts.labels;
    this.refs = parts.refs;
    this.content = parts.content;
    this.hasher = parts.hasher;
    this.executor = parts.executor;
    this.sources = parts.sources;
    this.gcPolicy = parts.gcPolicy;
    this.proxyNetwork = parts.proxyNetwork;
    this.platforms = parts.platforms;
    this.#parts = parts;
    this.#places = new Semaphore(parts.maxParallelism);
  }

  /** Binds the op of a vertex. @throws BuildError `invalid_argument` for one that can't be run. */
  resolveOp(vertex: LlbVertex, solve: NestedSolve, proxyCheck?: StepProxyCheck): Op {
    const { op } = vertex.op;
    const inputCount = vertex.inputs.length;
    const { name } = vertex;
    const acquire = (ctx: OpContext): Promise<() => void> => this.acquire(ctx);
    switch (op.op.case) {
      case "source":
        return new SourceOperation(this.sources.resolve(op.op.value, op.platform), acquire);
      case "exec":
        return new ExecOperation(op.op.value, {
          vertex,
          host: {
            ...this.#parts.exec,
            refs: this.refs,
            hasher: this.hasher,
            executor: this.executor,
            acquire,
          },
          ...(proxyCheck ? { proxyCheck } : {}),
        });
      case "file":
        return new FileOperation(op.op.value, {
          inputCount,
          name,
          host: { refs: this.refs, hasher: this.hasher, fileRunner: this.#parts.fileRunner, acquire },
        });
      case "merge":
        return new MergeOperation(op.op.value, { inputCount, name, refs: this.refs });
      case "diff":
        return new DiffOperation(op.op.value, { name, refs: this.refs });
      case "build":
        return new BuildOperation(op.op.value, { inputCount, solve });
      case "passthrough":
        return new PassthroughOperation(op.op.value, inputCount);
      case undefined:
        throw new BuildError("invalid_argument", "invalid op without a kind");
    }
  }

  /** Waits for one of the `max-parallelism` places. */
  async acquire(ctx: OpContext): Promise<() => void> {
    const place = await this.#places.acquire(ctx.signal);
    return () => place[Symbol.dispose]();
  }

  /** What mounts of containers are prepared with. */
  get mountsHost(): MountsHost {
    const { cacheMounts, clients } = this.#parts.exec;
    return { refs: this.refs, cacheMounts, clients };
  }

  /** @throws BuildError for a capability that this build server doesn't have. */
  checkCapability(id: string): void {
    checkLlbCapability(id);
  }

  /** @throws BuildError for devices that the step may not have. */
  checkDevices(exec: ExecOp, granted: Entitlements): void {
    this.#parts.exec.checkDevices(exec, granted);
  }

  /** Devices that steps can ask for. */
  devices(): readonly CdiDeviceInfo[] {
    return this.#parts.exec.devices();
  }

  /** Forgets cache mounts by id, so that the next step that mounts them starts with empty ones. */
  async pruneCacheMounts(ids: ReadonlyMap<string, boolean>): Promise<void> {
    await this.#parts.exec.pruneCacheMounts(ids);
  }
}
