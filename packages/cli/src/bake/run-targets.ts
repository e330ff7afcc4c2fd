/**
 * Builds the targets of a bake definition. A target whose context is another target (`target:NAME`) waits for that
 * one's result; the other's build stays open until all that wait for it are done, so that its files can still be asked
 * for.
 */

import type { Result } from "@kiln/api/gateway";
import type { Definition } from "@kiln/api/pb";
import type { BuildRequest } from "@kiln/bake";
import { BuildError, createDeferred, type Deferred, isCanceled, Semaphore } from "@kiln/base";
import { type GatewayClient, prefixed } from "@kiln/client";
import {
  type BuildEnvironment,
  type BuildOutcome,
  type LinkedInput,
  type LinkedInputs,
  runBuild,
} from "../build/run-build.ts";
import type { Jobs } from "./jobs.ts";
import type { StatusMerger } from "./prefix-status.ts";
import { SharedDirs } from "./shared-dirs.ts";

/** What targets are built with. */
export interface TargetsEnvironment extends BuildEnvironment {
  readonly jobs: Jobs;
  readonly merger: StatusMerger;
  /** Names the records of this command. */
  readonly groupRef: string;
}

/** What became of the targets: those that succeeded, and the error that ends the command. */
export interface TargetResults {
  readonly outcomes: ReadonlyMap<string, BuildOutcome>;
  readonly failure: unknown;
}

/** Builds all requests. Never rejects: see {@link TargetResults.failure}. */
export async function runTargets(
  requests: readonly BuildRequest[],
  environment: TargetsEnvironment,
): Promise<TargetResults> {
  checkLimit(requests, environment.jobs);
  await using sharedDirs = new SharedDirs(requests);
  return await new TargetsRun(requests, environment, sharedDirs).all();
}

interface TargetState {
  readonly request: BuildRequest;
  /** Targets that use this one's result. */
  readonly users: readonly string[];
  readonly result: Deferred<LinkedInput>;
  readonly done: Deferred<void>;
}

class TargetsRun {
  readonly #environment: TargetsEnvironment;
  readonly #sharedDirs: SharedDirs;
  readonly #states: ReadonlyMap<string, TargetState>;
  readonly #slots: Semaphore;
  readonly #stop = new AbortController();
  readonly #signal: AbortSignal;
  readonly #evaluated = new Set<string>();
  readonly #allEvaluated = createDeferred<void>();

  constructor(requests: readonly BuildRequest[], environment: TargetsEnvironment, sharedDirs: SharedDirs) {
    this.#environment = environment;
    this.#sharedDirs = sharedDirs;
    this.#slots = new Semaphore(environment.jobs.parallel);
    this.#signal = AbortSignal.any([environment.signal, this.#stop.signal]);
    this.#states = new Map(
      requests.map((request) => [
        request.name,
        {
          request,
          users: requests.filter((user) => linksOf(user).has(request.name)).map(({ name }) => name),
          result: createDeferred<LinkedInput>(),
          done: createDeferred<void>(),
        },
      ]),
    );
  }

  async all(): Promise<TargetResults> {
    const outcomes = new Map<string, BuildOutcome>();
    const failures: unknown[] = [];
    await Promise.all(
      [...this.#states.values()].map(async (state) => {
        try {
          outcomes.set(state.request.name, await this.#one(state));
        } catch (error) {
          failures.push(this.#named(state, error));
          state.result.reject(error);
          this.#allEvaluated.reject(error);
          if (this.#environment.jobs.mode !== "defer-error") this.#stop.abort(canceled());
        } finally {
          state.done.resolve();
        }
      }),
    );
    return { outcomes, failure: failures.find((error) => !isCanceled(error)) ?? failures[0] };
  }

  #named(state: TargetState, error: unknown): unknown {
    if (this.#states.size === 1 && !isCanceled(error)) return error;
    return this.#states.size === 1 ? error : prefixed(error, `target ${state.request.name}`);
  }

  async #one(state: TargetState): Promise<BuildOutcome> {
    const { merger, groupRef } = this.#environment;
    const { request } = state;
    let slot: Disposable | undefined;
    const inputs = async (): Promise<LinkedInputs> => {
      const links = [...linksOf(request)].map(async ([target, context]) => {
        const linked = this.#states.get(target);
        if (!linked) throw new BuildError("not_found", `failed to find target ${target}`);
        return [context, await linked.result.promise] as const;
      });
      return new Map(await Promise.all(links));
    };
    // What a target waits for isn't work: it takes its slot when its inputs are there.
    const ready = await inputs();
    slot = await this.#slots.acquire(this.#signal);
    try {
      return await runBuild(
        request,
        {
          ...this.#environment,
          signal: this.#signal,
          onStatus: merger.forTarget(request.name, this.#states.size > 1),
        },
        {
          inputs: () => Promise.resolve(ready),
          onResult: (result, gateway) =>
            this.#onResult(state, { result, gateway, release: () => slot?.[Symbol.dispose]() }),
          silent: true,
          groupRef,
          sharedDirs: (client, dirs) => this.#sharedDirs.attrsFor(client, dirs),
        },
      );
    } finally {
      slot[Symbol.dispose]();
    }
  }

  async #onResult(
    state: TargetState,
    built: {
      readonly result: Result | undefined;
      readonly gateway: GatewayClient;
      readonly release: () => void;
    },
  ): Promise<void> {
    const waitsForAll = this.#environment.jobs.mode === "defer-output";
    if (state.users.length > 0 || waitsForAll) await evaluate(built.result, built.gateway);
    this.#evaluated.add(state.request.name);
    if (this.#evaluated.size === this.#states.size) this.#allEvaluated.resolve();
    if (state.users.length > 0) {
      built.release();
      state.result.resolve(linkedInput(built.result));
      await Promise.all(state.users.map((user) => this.#states.get(user)?.done.promise));
    }
    if (!waitsForAll) return;
    await this.#allEvaluated.promise;
  }
}

function canceled(): BuildError {
  return new BuildError("canceled", "context canceled");
}

/** Targets that a request's contexts name, with the contexts' names. */
function linksOf(request: BuildRequest): Map<string, string> {
  const links = new Map<string, string>();
  if (request.call) return links;
  for (const [context, value] of request.contexts) {
    if (value.startsWith("target:")) links.set(value.slice("target:".length), context);
  }
  return links;
}

async function evaluate(result: Result | undefined, gateway: GatewayClient): Promise<void> {
  await Promise.all(refsOf(result).map(({ id }) => (id === "" ? undefined : gateway.evaluate(id))));
}

function refsOf(
  result: Result | undefined,
): { readonly id: string; readonly def?: Definition | undefined }[] {
  if (result?.result.case === "ref") return [result.result.value];
  return result?.result.case === "refs" ? Object.values(result.result.value.refs) : [];
}

function linkedInput(result: Result | undefined): LinkedInput {
  const refs = refsOf(result);
  if (refs.length > 1) {
    throw new BuildError(
      "unimplemented",
      "contexts of other targets with several platforms aren't supported by kiln yet",
    );
  }
  return { definition: refs[0]?.def, metadata: result?.metadata ?? {} };
}

/** In `defer-output` all targets must be able to run at the same time. */
function checkLimit(requests: readonly BuildRequest[], jobs: Jobs): void {
  if (jobs.mode !== "defer-output" || jobs.parallel === 0 || jobs.parallel >= requests.length) return;
  throw new BuildError(
    "invalid_argument",
    `jobs mode defer-output needs ${requests.length} targets at a time, but the limit is ${jobs.parallel}`,
  );
}
