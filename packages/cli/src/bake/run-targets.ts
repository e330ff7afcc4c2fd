/**
 * Builds many targets side by side. A target whose context is another one's result takes it as soon as that one's
 * frontend has answered; the other's build stays open until all that use it are through, so that its files can still
 * be asked for. Targets that are spread over nodes link node by node.
 */

import type { Result } from "@kiln/api/gateway";
import type { BuildRequest } from "@kiln/bake";
import {
  BuildError,
  createDeferred,
  type Deferred,
  errorMessage,
  isBuildError,
  isCanceled,
  Semaphore,
} from "@kiln/base";
import { type GatewayClient, prefixed } from "@kiln/client";
import type { ResolvedNode } from "@kiln/driver";
import type { LinkedContext } from "../build/linked-context.ts";
import { type BuildEnvironment, type BuildOutcome, nodesOf, runBuild } from "../build/run-build.ts";
import { checkLimit, type Jobs } from "./jobs.ts";
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

/**
 * Builds all requests. What goes wrong with a target is in {@link TargetResults.failure}; what keeps all of them
 * from starting is thrown.
 */
export async function runTargets(
  requests: readonly BuildRequest[],
  environment: TargetsEnvironment,
  builds: Builds = { resolve: nodesOf, run: runBuild },
): Promise<TargetResults> {
  checkLimit(requests.length, environment.jobs);
  const states = await planTargets(requests, environment, builds);
  await using sharedDirs = new SharedDirs(requests);
  return await new TargetsRun(states, environment, { sharedDirs, builds }).all();
}

/** How one target's nodes are found, and how it is built. */
export interface Builds {
  readonly resolve: typeof nodesOf;
  readonly run: typeof runBuild;
}

/** A target on one node. */
interface NodeState {
  /** The frontend's answer, for those that take it as a context. */
  readonly result: Deferred<Result | undefined>;
  readonly evaluated: Deferred<void>;
}

interface TargetState {
  readonly request: BuildRequest;
  readonly nodes: ReadonlyMap<ResolvedNode["node"], NodeState>;
  readonly resolved: readonly ResolvedNode[];
  /** Names of contexts that are other targets. */
  readonly links: ReadonlyMap<string, string>;
  /** Targets that use this one's result. */
  readonly users: TargetState[];
}

/** Finds every target's nodes and who uses whom. @throws BuildError for links across nodes. */
async function planTargets(
  requests: readonly BuildRequest[],
  environment: TargetsEnvironment,
  builds: Builds,
): Promise<Map<string, TargetState>> {
  const byPlatforms = new Map<string, Promise<ResolvedNode[]>>();
  const resolve = (request: BuildRequest): Promise<ResolvedNode[]> => {
    const key = request.platforms.join(",");
    const known = byPlatforms.get(key) ?? builds.resolve(request, environment);
    byPlatforms.set(key, known);
    return known;
  };
  const states = new Map<string, TargetState>();
  for (const request of requests) {
    const resolved = await resolve(request);
    const nodes = new Map(
      resolved.map(({ node }) => [
        node,
        { result: createDeferred<Result | undefined>(), evaluated: createDeferred<void>() },
      ]),
    );
    for (const { result, evaluated } of nodes.values()) {
      // Nobody may be waiting when a target fails.
      result.promise.catch(() => undefined);
      evaluated.promise.catch(() => undefined);
    }
    states.set(request.name, { request, nodes, resolved, links: linksOf(request), users: [] });
  }
  for (const state of states.values()) linkTargets(state, states);
  return states;
}

function linkTargets(state: TargetState, states: ReadonlyMap<string, TargetState>): void {
  const { request, links, nodes } = state;
  for (const [context, name] of links) {
    const linked = states.get(name);
    if (!linked) throw new BuildError("not_found", `failed to find target ${name} for context ${context}`);
    if ([...nodes.keys()].some((node) => !linked.nodes.has(node))) {
      throw new BuildError(
        "failed_precondition",
        `failed to use ${name} as context ${context} for ${request.name} because targets build with different drivers`,
      );
    }
    if (!linked.users.includes(state)) linked.users.push(state);
  }
}

/** Contexts of a request that are other targets, by the contexts' names. */
function linksOf(request: BuildRequest): Map<string, string> {
  return new Map(
    [...request.contexts].flatMap(([context, value]) =>
      value.startsWith("target:") ? [[context, value.slice("target:".length)] as const] : [],
    ),
  );
}

class TargetsRun {
  readonly #environment: TargetsEnvironment;
  readonly #sharedDirs: SharedDirs;
  readonly #builds: Builds;
  readonly #states: ReadonlyMap<string, TargetState>;
  readonly #slots: Semaphore;
  readonly #stop = new AbortController();
  readonly #signal: AbortSignal;
  /** All targets run at once: frontends answer before anything is evaluated, so that all caches are known by then. */
  readonly #isUnlimited: boolean;
  readonly #evaluated = new Set<TargetState>();
  readonly #allEvaluated = createDeferred<void>();

  constructor(
    states: ReadonlyMap<string, TargetState>,
    environment: TargetsEnvironment,
    { sharedDirs, builds }: { readonly sharedDirs: SharedDirs; readonly builds: Builds },
  ) {
    const { parallel } = environment.jobs;
    this.#environment = environment;
    this.#sharedDirs = sharedDirs;
    this.#builds = builds;
    this.#slots = new Semaphore(parallel);
    this.#isUnlimited = parallel === 0 || parallel >= states.size;
    this.#signal = AbortSignal.any([environment.signal, this.#stop.signal]);
    this.#states = states;
    this.#allEvaluated.promise.catch(() => undefined);
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
          this.#allEvaluated.reject(error);
          if (this.#environment.jobs.mode !== "defer-error") this.#stop.abort(canceled());
          for (const { result, evaluated } of state.nodes.values()) {
            result.reject(error);
            evaluated.reject(error);
          }
        }
      }),
    );
    const isDeferred = this.#environment.jobs.mode === "defer-error";
    const [first = failures[0], ...more] = failures.filter((error) => !isCanceled(error));
    return { outcomes, failure: isDeferred && more.length > 0 ? combined([first, ...more]) : first };
  }

  #named(state: TargetState, error: unknown): unknown {
    return this.#states.size === 1 ? error : prefixed(error, `target ${state.request.name}`);
  }

  async #one(state: TargetState): Promise<BuildOutcome> {
    const { merger, groupRef, onStatus } = this.#environment;
    const { request, resolved } = state;
    // What a target waits for isn't work: it takes its slot when its inputs are there.
    const contexts = await this.#contexts(state);
    using slot = await this.#slots.acquire(this.#signal);
    return await this.#builds.run(
      request,
      {
        ...this.#environment,
        signal: this.#signal,
        onStatus: merger.forTarget(request.name, this.#states.size > 1),
      },
      {
        nodes: resolved,
        contexts: ({ node }) => contexts.get(node) ?? [],
        onResult: (result, gateway, { node }) =>
          this.#onResult(state, { result, gateway, node, release: () => slot[Symbol.dispose]() }),
        onClientStatus: onStatus,
        silent: true,
        groupRef,
        sharedDirs: (client, dirs, sharedKey) => this.#sharedDirs.attrsFor(client, dirs, sharedKey),
      },
    );
  }

  /** Waits for the results that a target takes as contexts. */
  async #contexts(state: TargetState): Promise<Map<ResolvedNode["node"], LinkedContext[]>> {
    const { nodes } = this.#environment.builder;
    const entries = [...state.nodes.keys()].map(async (node) => {
      const linked = [...state.links].map(async ([name, target]) => {
        const result = await ofLinked(target, this.#states.get(target)?.nodes.get(node)?.result.promise);
        return { name, key: `${nodes.indexOf(node)}-${target}`, result };
      });
      return [node, await Promise.all(linked)] as const;
    });
    return new Map(await Promise.all(entries));
  }

  async #onResult(
    state: TargetState,
    built: {
      readonly result: Result | undefined;
      readonly gateway: GatewayClient;
      readonly node: ResolvedNode["node"];
      readonly release: () => void;
    },
  ): Promise<void> {
    const { users, links } = state;
    const { result, gateway, node } = built;
    const own = state.nodes.get(node) as NodeState;
    const waitsForAll = this.#environment.jobs.mode === "defer-output";
    const isLinked = users.length > 0 || links.size > 0;
    if (this.#isUnlimited) {
      own.result.resolve(result);
      await Promise.allSettled(users.map((user) => user.nodes.get(node)?.result.promise));
    }
    await Promise.all(
      [...links.values()].map((target) =>
        ofLinked(target, this.#states.get(target)?.nodes.get(node)?.evaluated.promise),
      ),
    );
    if (isLinked || waitsForAll) await evaluate(result, gateway);
    own.result.resolve(result);
    own.evaluated.resolve();
    await this.#afterEvaluation(state, built);
  }

  async #afterEvaluation(
    state: TargetState,
    { node, release }: { readonly node: ResolvedNode["node"]; readonly release: () => void },
  ): Promise<void> {
    await Promise.all([...state.nodes.values()].map(({ evaluated }) => evaluated.promise));
    this.#evaluated.add(state);
    if (this.#evaluated.size === this.#states.size) this.#allEvaluated.resolve();
    if (state.users.length > 0) {
      release();
      await Promise.allSettled(state.users.map((user) => user.nodes.get(node)?.evaluated.promise));
    }
    if (this.#environment.jobs.mode === "defer-output") await this.#allEvaluated.promise;
  }
}

function canceled(): BuildError {
  return new BuildError("canceled", "context canceled");
}

/** One error that tells of all; places in files are those of the first. */
function combined(failures: readonly unknown[]): BuildError {
  const [first] = failures;
  const known = isBuildError(first) ? first : undefined;
  return new BuildError(known?.code ?? "unknown", failures.map(errorMessage).join("\n"), {
    cause: first,
    wire: known?.wire ?? [],
  });
}

/** Waits for another target; its failure is told by itself. */
async function ofLinked<T>(name: string, promise: Promise<T> | undefined): Promise<T | undefined> {
  try {
    return await promise;
  } catch (error) {
    if (isCanceled(error)) throw error;
    throw new BuildError("failed_precondition", `not built: target ${name} failed`, { cause: error });
  }
}

async function evaluate(result: Result | undefined, gateway: GatewayClient): Promise<void> {
  await Promise.all(refsOf(result).map(({ id }) => (id === "" ? undefined : gateway.evaluate(id))));
}

function refsOf(result: Result | undefined): { readonly id: string }[] {
  if (result?.result.case === "ref") return [result.result.value];
  return result?.result.case === "refs" ? Object.values(result.result.value.refs) : [];
}
