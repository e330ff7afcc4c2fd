import { BuildError, createDeferred, type Deferred, withSignal } from "@kiln/base";
import type { CacheLoadContext, CacheResultStore, CacheSource, Remote } from "../cache/cache-source.ts";
import type { CacheResultInfo } from "../cache/key-store.ts";
import { MemoryKeyStore } from "../cache/memory-key-store.ts";
import { digestOfText } from "../digest.ts";
import { Solver, type SolverOptions } from "../solver.ts";
import type { Timers } from "../timers.ts";
import type { CacheMap, OpContext, OpRunner, ResultHooks, Vertex } from "../types.ts";
import type { GraphOp } from "./graph.ts";

/** A result of the fake engine: a text, and whether it was released. */
export interface FakeResult {
  readonly id: string;
  readonly value: string;
  released: boolean;
}

/** Numbers that look random and are the same for one seed (mulberry32). */
export function seededRandom(seed: number): (n: number) => number {
  let state = seed >>> 0;
  return (n) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) % n;
  };
}

/** A clock that stands still until it is moved. */
export class VirtualTimers implements Timers {
  #now = 1_700_000_000_000;
  #waiting: { readonly at: number; readonly fn: () => void }[] = [];

  now(): number {
    return this.#now;
  }

  after(ms: number, fn: () => void): Disposable {
    const entry = { at: this.#now + ms, fn };
    this.#waiting.push(entry);
    const stop = (): void => {
      this.#waiting = this.#waiting.filter((other) => other !== entry);
    };
    return { [Symbol.dispose]: stop };
  }

  /** Moves the clock, and runs what is due. */
  advance(ms: number): void {
    this.#now += ms;
    const due = this.#waiting.filter((entry) => entry.at <= this.#now).sort((a, b) => a.at - b.at);
    this.#waiting = this.#waiting.filter((entry) => entry.at > this.#now);
    for (const entry of due) entry.fn();
  }
}

/** What a {@link FakeEngine} does differently. */
export interface FakeEngineOptions {
  /** Permutes everything that can be permuted. */
  readonly seed?: number;
  /** Called at each step of each op; what it throws fails the op. */
  readonly fault?: (what: string, name: string) => void;
  readonly options?: Partial<SolverOptions<GraphOp, FakeResult>>;
}

/** Result store of a fake cache; loads what was saved, unless told to fail. */
export class FakeResultStore implements CacheResultStore<FakeResult> {
  readonly kept = new Map<string, FakeResult>();
  readonly #engine: FakeEngine;
  readonly #name: string;
  loads = 0;
  readonly save?: (result: FakeResult, createdAtNs: bigint) => CacheResultInfo;

  constructor(engine: FakeEngine, name: string, writable: boolean) {
    this.#engine = engine;
    this.#name = name;
    if (writable) this.save = (result, createdAtNs) => this.keep(result, createdAtNs);
  }

  keep(result: FakeResult, createdAtNs: bigint): CacheResultInfo {
    const id = `${this.#name}::${result.value}`;
    if (!this.kept.has(id)) this.kept.set(id, this.#engine.hooks.clone(result));
    return { id, createdAtNs };
  }

  exists(id: string): boolean {
    return this.kept.has(id);
  }

  async load(info: CacheResultInfo, ctx: CacheLoadContext): Promise<FakeResult> {
    this.loads++;
    await this.#engine.step("load", info.id, ctx.signal);
    const kept = this.kept.get(info.id);
    if (!kept) throw new BuildError("not_found", `no result ${info.id}`);
    return this.#engine.hooks.clone(kept);
  }

  async remotes(info: CacheResultInfo): Promise<readonly Remote[]> {
    const kept = this.kept.get(info.id);
    if (!kept) return [];
    const digest = digestOfText(kept.value);
    return [{ descriptors: [{ mediaType: "", digest, size: kept.value.length }], provider: undefined }];
  }

  drop(): void {
    for (const result of this.kept.values()) void this.#engine.hooks.release(result);
    this.kept.clear();
  }
}

/**
 * Runs graphs made by `graph` without doing anything: the value of a vertex is a text made of its seed and
 * the values of its inputs. Every step waits until {@link FakeEngine.settle} lets it go on, in an order
 * that the seed decides.
 */
export class FakeEngine {
  readonly timers = new VirtualTimers();
  readonly cache: CacheSource<FakeResult>;
  readonly store: FakeResultStore;
  readonly solver: Solver<GraphOp, FakeResult>;
  /** Names of the vertices that ran, in order; `what name` for other steps. */
  readonly log: string[] = [];
  readonly executed: string[] = [];
  readonly warnings: string[] = [];
  readonly running = new Map<string, number>();
  fault: ((what: string, name: string) => void) | undefined;
  /** Handles that are not released. */
  live = 0;
  readonly #random: (n: number) => number;
  #paused: Deferred<void>[] = [];
  #lastResult = 0;

  constructor(opts: FakeEngineOptions = {}) {
    const random = seededRandom(opts.seed ?? 1);
    this.#random = opts.seed === undefined ? () => 0 : random;
    this.fault = opts.fault;
    this.store = new FakeResultStore(this, "main", true);
    this.cache = { id: "main", keys: new MemoryKeyStore(), results: this.store };
    let lastId = 0;
    this.solver = new Solver<GraphOp, FakeResult>({
      resolveOp: (vertex) => this.#runner(vertex),
      cache: this.cache,
      results: this.hooks,
      timers: this.timers,
      newId: () => `id${++lastId}`,
      onWarning: (error) => this.warnings.push(String(error)),
      ...(opts.seed === undefined ? {} : { pick: random }),
      ...opts.options,
    });
  }

  readonly hooks: ResultHooks<FakeResult> = {
    id: (result) => result.id,
    clone: (result) => {
      if (result.released) throw new Error(`clone of released ${result.id}`);
      return this.result(result.value);
    },
    release: (result) => {
      if (result.released) throw new Error(`second release of ${result.id}`);
      result.released = true;
      this.live--;
    },
  };

  result(value: string): FakeResult {
    this.live++;
    return { id: `r${++this.#lastResult}`, value, released: false };
  }

  /** Waits for its turn. */
  async step(what: string, name: string, signal: AbortSignal): Promise<void> {
    this.log.push(`${what} ${name}`);
    const pause = createDeferred<void>();
    this.#paused.push(pause);
    try {
      await withSignal(pause.promise, signal);
    } finally {
      this.#paused = this.#paused.filter((p) => p !== pause);
    }
    this.fault?.(what, name);
  }

  /** Lets steps go on, one after the other, until nothing is waiting; `between` runs before each. */
  async settle(between?: () => void): Promise<void> {
    for (let idle = 0; idle < 3; ) {
      await new Promise((resolve) => setImmediate(resolve));
      this.timers.advance(1);
      if (this.#paused.length === 0) {
        idle++;
        continue;
      }
      idle = 0;
      between?.();
      const at = this.#random(this.#paused.length);
      this.#paused.splice(at, 1)[0]?.resolve();
    }
  }

  /** Settles until `promise` does. */
  async run<T>(promise: Promise<T>): Promise<T> {
    promise.catch(() => undefined);
    await this.settle();
    return promise;
  }

  /** An empty cache that can't be written by the solver. */
  remote(id: string): { source: CacheSource<FakeResult>; store: FakeResultStore } {
    const store = new FakeResultStore(this, id, false);
    return { source: { id, keys: new MemoryKeyStore(), results: store }, store };
  }

  #runner(vertex: Vertex<GraphOp>): OpRunner<GraphOp, FakeResult> {
    const { op } = vertex;
    return {
      acquire: async () => () => undefined,
      cacheMap: async (index, ctx) => {
        await this.step("map", vertex.name, ctx.signal);
        return { cacheMap: this.#cacheMap(op, index), done: index >= op.seeds.length - 1 };
      },
      exec: (inputs, ctx) => this.#exec(vertex, inputs, ctx),
    };
  }

  #cacheMap(op: GraphOp, index: number): CacheMap<GraphOp, FakeResult> {
    return {
      digest: op.seeds[index]!.startsWith("random:") ? op.seeds[index]! : digestOfText(op.seeds[index]!),
      deps: op.inputs.map((input) => ({
        selector: input.selector,
        computeContentKey: input.content
          ? async (result, ctx) => {
              if (result.released) throw new Error("content key of a released result");
              await this.step("content", op.name, ctx.signal);
              return digestOfText(`content of ${contentOf(result.value)}`);
            }
          : undefined,
      })),
    };
  }

  async #exec(
    { name, op, digest }: Vertex<GraphOp>,
    inputs: readonly FakeResult[],
    ctx: OpContext<GraphOp, FakeResult>,
  ): Promise<FakeResult[]> {
    for (const input of inputs) if (input.released) throw new Error(`${name} got a released input`);
    const running = (this.running.get(digest) ?? 0) + 1;
    this.running.set(digest, running);
    if (running > 1) throw new Error(`${name} runs twice at once`);
    try {
      await this.step("exec", name, ctx.signal);
      this.executed.push(name);
      const outputs = op.values(inputs.map((input) => input.value));
      if (!op.build) return outputs.map((value) => this.result(value));
      using built = await ctx.build(op.build);
      return [this.result(built.result.value)];
    } finally {
      this.running.set(digest, running - 1);
    }
  }
}

/** Two results of one content differ in nothing that content keys see: what is before `#`. */
export function contentOf(value: string): string {
  return value.split("#")[0]!;
}
