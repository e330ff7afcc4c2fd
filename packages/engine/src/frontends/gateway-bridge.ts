import { create } from "@bufbuild/protobuf";
import { ContentCacheSchema, FileActionSchema, type Solve, SolveSchema } from "@kiln/api/errdefs";
import {
  type Ref,
  RefSchema,
  type Result,
  ResultSchema,
  type SolveRequest,
  type SolveResponse,
  SolveResponseSchema,
} from "@kiln/api/gateway";
import type { Definition } from "@kiln/api/pb";
import { BuildError, codeOfNodeError, createDeferred, errorMessage, isCanceled } from "@kiln/base";
import type { ImmutableRef } from "@kiln/store";
import { localMount } from "@kiln/sys";
import type { OpResult } from "../op-context.ts";
import { type FailureState, findOpError, findOpFailure } from "../ops/op-failure.ts";
import { groupOf } from "../session-group.ts";
import type { JobBridge } from "../solve/bridge.ts";
import { solveDetail } from "../solve/wire-details.ts";
import { attestationFromWire, attestationToWire } from "./attestation-wire.ts";
import type { FrontendResult, ResultProxy } from "./frontend.ts";

/** What a gateway is opened with. */
export interface GatewayBridgeOptions {
  readonly inputs: ReadonlyMap<string, Definition>;
}

/** A tree that is mounted for file requests. */
interface MountedTree {
  readonly path: string;
  release(): Promise<void>;
}

/**
 * A {@link JobBridge} for somebody at the other end of a wire: a client that drives its build, or a frontend
 * in a container. Trees go out as ids; what the other end leaves behind goes when this is disposed of.
 */
export class GatewayBridge implements AsyncDisposable {
  readonly bridge: JobBridge;
  readonly inputs: ReadonlyMap<string, Definition>;
  readonly #refs = new Map<string, ResultProxy>();
  /** Trees of failed ops, by `worker::ref` id. */
  readonly #failed = new Map<string, OpResult>();
  readonly #mounts = new Map<string, Promise<MountedTree>>();
  readonly #returned = createDeferred<FrontendResult>();
  readonly #closing = new AbortController();
  readonly #cleanups: (() => Promise<void>)[] = [];
  #hasReturned = false;
  #kept: ReadonlySet<ResultProxy> = new Set();

  constructor(bridge: JobBridge, opts: GatewayBridgeOptions) {
    this.bridge = bridge;
    this.inputs = opts.inputs;
  }

  /** Aborts when the gateway is closed. */
  get signal(): AbortSignal {
    return this.#closing.signal;
  }

  /** What `Return` brought; rejects with the error that it brought. */
  result(): Promise<FrontendResult> {
    return this.#returned.promise;
  }

  /** True once `Return` was called. */
  get hasReturned(): boolean {
    return this.#hasReturned;
  }

  /** Registers something to undo when the gateway is closed. */
  defer(undo: () => Promise<void>): void {
    this.#cleanups.push(undo);
  }

  async solve(request: SolveRequest, signal: AbortSignal): Promise<SolveResponse> {
    let result: FrontendResult;
    try {
      result = await this.bridge.solve(
        {
          definition: request.Definition,
          frontend: request.Frontend,
          frontendAttrs: new Map(Object.entries(request.FrontendOpt)),
          frontendInputs: new Map(Object.entries(request.FrontendInputs)),
          cacheImports: request.CacheImports.map((entry) => ({
            type: entry.Type,
            attrs: new Map(Object.entries(entry.Attrs)),
          })),
          sourcePolicies: request.SourcePolicies,
          evaluate: request.Evaluate,
        },
        AbortSignal.any([signal, this.signal]),
      );
    } catch (error) {
      throw this.explain(error);
    }
    if (this.signal.aborted) {
      for (const ref of result.refs?.values() ?? [result.ref]) await ref?.release();
      throw new BuildError("unavailable", "gateway forwarder is closing");
    }
    return this.#solveResponse(request, result);
  }

  /** Takes the result that the other end has decided on. */
  return(result: Result | undefined, error: BuildError | undefined): void {
    if (this.#hasReturned) throw new BuildError("failed_precondition", "gateway result is already set");
    if (error !== undefined) {
      this.#hasReturned = true;
      this.#returned.reject(error);
      return;
    }
    if (result === undefined) throw new BuildError("invalid_argument", "result is required");
    const kept = new Set<ResultProxy>();
    const take = (id: string): ResultProxy | undefined => {
      if (id !== "" && !this.#refs.has(id)) {
        throw new BuildError("unknown", `return reference ${id} not found`);
      }
      const ref = this.#proxy(id);
      if (ref !== undefined) kept.add(ref);
      return ref;
    };
    const converted = resultFromWire(result, take);
    this.#kept = kept;
    this.#hasReturned = true;
    this.#returned.resolve(converted);
  }

  /**
   * The tree behind an id, built if need be; undefined for the empty one. Borrowed.
   *
   * @throws BuildError `not_found` for an id that isn't known; the build's error.
   */
  async tree(id: string, signal: AbortSignal): Promise<ImmutableRef | undefined> {
    const failed = this.#failed.get(id);
    if (failed !== undefined) return failed.ref;
    const proxy = this.#proxy(id);
    if (proxy === undefined) throw new BuildError("invalid_argument", `empty ref: ${id}`);
    try {
      return (await proxy.result(AbortSignal.any([signal, this.signal]))).result.ref;
    } catch (error) {
      throw this.explain(error);
    }
  }

  /** A directory that shows the tree behind an id until the gateway is closed. */
  async mounted(id: string, signal: AbortSignal): Promise<string> {
    const ref = await this.tree(id, signal);
    let mount = this.#mounts.get(id);
    if (mount === undefined) {
      mount = this.#mount(ref, signal);
      this.#mounts.set(id, mount);
      mount.catch(() => this.#mounts.delete(id));
    }
    return (await mount).path;
  }

  /**
   * Adds to an error the op that failed and the ids under which the failed op's trees can be mounted. The trees stay until the
   * gateway is closed.
   */
  explain(error: unknown): unknown {
    if (isCanceled(error)) return error;
    const failed = findOpError(error);
    const state = findOpFailure(error)?.state;
    if (failed === undefined && state === undefined) return error;
    const detail = solveDetail(
      create(SolveSchema, {
        inputIDs: state?.inputs.map((tree) => this.#keepFailed(tree)) ?? [],
        mountIDs: state?.mounts.map((tree) => this.#keepFailed(tree)) ?? [],
        subject: state === undefined ? { case: undefined } : subjectOf(state),
        description: failed?.description ?? {},
        ...(failed === undefined ? {} : { op: failed.op }),
      }),
    );
    const wire = error instanceof BuildError ? error.wire : [];
    return new BuildError(codeOfNodeError(error), errorMessage(error), {
      cause: error,
      wire: [detail, ...wire],
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort(new BuildError("canceled", "gateway is closed"));
    for (const undo of this.#cleanups.splice(0).reverse()) await undo();
    for (const mount of this.#mounts.values()) await mount.then((m) => m.release()).catch(() => undefined);
    this.#mounts.clear();
    for (const tree of this.#failed.values()) await tree.ref?.release();
    this.#failed.clear();
    for (const ref of new Set(this.#refs.values())) if (!this.#kept.has(ref)) await ref.release();
    this.#refs.clear();
    if (!this.#hasReturned) this.#returned.reject(new BuildError("canceled", "context canceled"));
  }

  #proxy(id: string): ResultProxy | undefined {
    if (id === "") return undefined;
    const ref = this.#refs.get(id);
    if (ref === undefined) {
      throw new BuildError("not_found", `no such ref: ${id}, all [${[...this.#refs.keys()].join(" ")}]`);
    }
    return ref;
  }

  #keepFailed(tree: OpResult | undefined): string {
    if (tree?.ref === undefined) return "";
    const id = `${this.bridge.host.worker.id}::${tree.ref.id}`;
    if (!this.#failed.has(id)) this.#failed.set(id, { ref: tree.ref.clone() });
    return id;
  }

  #register(ref: ResultProxy | undefined): Ref {
    if (ref === undefined) return create(RefSchema, { id: "" });
    const { id } = ref;
    this.#refs.set(id, ref);
    return create(RefSchema, { id, ...(ref.definition === undefined ? {} : { def: ref.definition }) });
  }

  #solveResponse(request: SolveRequest, result: FrontendResult): SolveResponse {
    if ((result.refs?.size ?? 0) > 0 && !request.allowResultReturn) {
      throw new BuildError("invalid_argument", "solve did not return default result");
    }
    const message = create(ResultSchema, { metadata: Object.fromEntries(result.metadata) });
    let single = "";
    if (result.refs !== undefined) {
      const refs = Object.fromEntries([...result.refs].map(([key, ref]) => [key, this.#register(ref)]));
      message.result = request.allowResultArrayRef
        ? { case: "refs", value: { $typeName: "moby.buildkit.v1.frontend.RefMap", refs } }
        : {
            case: "refsDeprecated",
            value: {
              $typeName: "moby.buildkit.v1.frontend.RefMapDeprecated",
              refs: Object.fromEntries(Object.entries(refs).map(([key, ref]) => [key, ref.id])),
            },
          };
    } else {
      const ref = this.#register(result.ref);
      single = ref.id;
      message.result = request.allowResultArrayRef
        ? { case: "ref", value: ref }
        : { case: "refDeprecated", value: ref.id };
    }
    for (const [key, list] of result.attestations) {
      message.attestations[key] = {
        $typeName: "moby.buildkit.v1.frontend.Attestations",
        attestation: list.map((item) =>
          attestationToWire(item, item.ref === undefined ? undefined : this.#register(item.ref)),
        ),
      };
    }
    return create(SolveResponseSchema, { result: message, ref: request.allowResultReturn ? "" : single });
  }

  async #mount(ref: ImmutableRef | undefined, signal: AbortSignal): Promise<MountedTree> {
    if (ref === undefined) {
      const empty = localMount([]);
      return { path: empty.path, release: async () => empty[Symbol.dispose]() };
    }
    const mountable = await ref.mount(true, { signal, session: groupOf([this.bridge.sessionId]) });
    try {
      const dir = localMount(mountable.mounts);
      return {
        path: dir.path,
        release: async () => {
          dir[Symbol.dispose]();
          await mountable.release();
        },
      };
    } catch (error) {
      await mountable.release();
      throw error;
    }
  }
}

function subjectOf(state: FailureState): Solve["subject"] {
  if (state.fileAction !== undefined) {
    return { case: "file", value: create(FileActionSchema, { index: BigInt(state.fileAction) }) };
  }
  if (state.cacheInput !== undefined) {
    return { case: "cache", value: create(ContentCacheSchema, { index: BigInt(state.cacheInput) }) };
  }
  return { case: undefined };
}

function resultFromWire(result: Result, take: (id: string) => ResultProxy | undefined): FrontendResult {
  let ref: ResultProxy | undefined;
  let refs: Map<string, ResultProxy | undefined> | undefined;
  switch (result.result.case) {
    case "ref":
      ref = take(result.result.value.id);
      break;
    case "refDeprecated":
      ref = take(result.result.value);
      break;
    case "refs":
      refs = new Map(Object.entries(result.result.value.refs).map(([key, item]) => [key, take(item.id)]));
      break;
    case "refsDeprecated":
      refs = new Map(Object.entries(result.result.value.refs).map(([key, id]) => [key, take(id)]));
      break;
  }
  return {
    ref,
    refs,
    metadata: new Map(Object.entries(result.metadata)),
    attestations: new Map(
      Object.entries(result.attestations).map(([key, list]) => [
        key,
        list.attestation.map((item) =>
          attestationFromWire(item, item.ref === undefined ? undefined : take(item.ref.id)),
        ),
      ]),
    ),
  };
}
