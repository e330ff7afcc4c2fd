/**
 * The solver's core: a synchronous, deterministic state machine. Events go in as method calls, commands
 * come out; nothing is awaited. The same events in the same order give the same commands.
 *
 * Every edge that something has happened to is in the queue. {@link Core.run} takes them out one by one:
 *
 * 1. Look: take over new cache maps, keys of inputs, content keys; ask the caches what they lead to.
 * 2. Merge: when another active edge is bound to give the same result, hand everything over to it.
 * 3. Judge: what is known by now ({@link EdgeState.status}).
 * 4. Plan: what to ask of inputs and of the op (`plan.ts`), as a function of what is known and asked for.
 *    Demands and wishes are set to what the plan says; what nobody wants any more is aborted.
 * 5. Tell the consumers if anything changed for them.
 *
 * Work belongs to ops, so two outputs of an op share it; loading from a cache belongs to edges.
 */
import type { CacheKey, CacheRecord } from "../cache/cache-key.ts";
import type { CacheSource, PendingCacheSource } from "../cache/cache-source.ts";
import type { CacheMapAnswer, CacheMapDep, ResultHooks } from "../types.ts";
import { adopt, contentEnded, slotOf } from "./commit.ts";
import { EdgeIndex } from "./edge-index.ts";
import { type EdgeState, type Request, resolve } from "./edge-state.ts";
import type { OpState, WorkSlot } from "./op-state.ts";
import { IDLE } from "./op-state.ts";
import { sourceOpened } from "./sources.ts";
import { stepEdge } from "./step.ts";

/** What the shell is to do. */
export type Command<TOp, TResult> =
  | {
      readonly kind: "cacheMap";
      readonly task: number;
      readonly op: OpState<TOp, TResult>;
      readonly index: number;
    }
  | {
      readonly kind: "exec";
      readonly task: number;
      readonly op: OpState<TOp, TResult>;
      /** Lent until the task settles. */
      readonly inputs: readonly TResult[];
    }
  | {
      readonly kind: "contentKey";
      readonly task: number;
      readonly op: OpState<TOp, TResult>;
      readonly input: number;
      readonly inputOp: OpState<TOp, TResult>;
      readonly spec: CacheMapDep<TOp, TResult>;
      /** Lent until the task settles. */
      readonly result: TResult;
    }
  | {
      readonly kind: "load";
      readonly task: number;
      readonly op: OpState<TOp, TResult>;
      readonly record: CacheRecord<TResult>;
      /** The record comes from an imported cache: what it was built from is wanted too. */
      readonly withParents: boolean;
    }
  | { readonly kind: "abort"; readonly task: number }
  | { readonly kind: "release"; readonly result: TResult }
  | { readonly kind: "settled"; readonly request: number; readonly outcome: Outcome<TResult> }
  | { readonly kind: "merged"; readonly from: OpState<TOp, TResult>; readonly into: OpState<TOp, TResult> }
  | {
      readonly kind: "warning";
      readonly op: OpState<TOp, TResult>;
      readonly error: unknown;
      readonly what: string;
    };

/** How a request ended. The receiver owns `result`. */
export type Outcome<TResult> =
  | { readonly kind: "complete"; readonly result: TResult; readonly keys: readonly CacheKey<TResult>[] }
  | { readonly kind: "failed"; readonly error: unknown };

/** How a task ended. Results in it are the core's from then on. */
export type TaskEnd<TOp, TResult> =
  | { readonly kind: "cacheMap"; readonly answer: CacheMapAnswer<TOp, TResult> }
  | { readonly kind: "exec"; readonly results: readonly TResult[] }
  | { readonly kind: "contentKey"; readonly digest: string }
  | {
      readonly kind: "load";
      readonly result: TResult;
      readonly parents?: ReadonlyMap<string, TResult> | undefined;
    }
  | {
      readonly kind: "failed";
      readonly error: unknown;
      /** The failure may be due to somebody who is gone: don't remember it. */
      readonly retry?: boolean;
    };

/** What the core is given. */
export interface CorePorts<TResult> {
  readonly main: CacheSource<TResult>;
  readonly results: ResultHooks<TResult>;
  /** Nanoseconds since the epoch. */
  readonly now: () => bigint;
  /** A name that no other has. */
  readonly newId: () => string;
  /** Chooses which of `n` queued edges is next; the first when absent. Tests permute with it. */
  readonly pick?: ((n: number) => number) | undefined;
}

/** A running task. */
export interface Task<TOp, TResult> {
  readonly id: number;
  readonly op: OpState<TOp, TResult>;
  readonly what: "cacheMap" | "exec" | "contentKey" | "load";
  readonly edge?: EdgeState<TOp, TResult> | undefined;
  readonly input?: number | undefined;
  readonly lent: readonly TResult[];
}

/** See the head of this file. */
export class Core<TOp, TResult> {
  readonly ports: CorePorts<TResult>;
  readonly index = new EdgeIndex<TOp, TResult>();
  readonly tasks = new Map<number, Task<TOp, TResult>>();
  /** Caches that are being opened, each with the vertices that it may answer for. */
  readonly expected = new Map<PendingCacheSource<TResult>, Set<OpState<TOp, TResult>>>();
  readonly #requests = new Map<number, Request<TOp, TResult>>();
  readonly #queue: EdgeState<TOp, TResult>[] = [];
  #head = 0;
  #commands: Command<TOp, TResult>[] = [];
  #lastTask = 0;
  /** Edges looked at so far: the measure of the core's work. */
  steps = 0;

  constructor(ports: CorePorts<TResult>) {
    this.ports = ports;
  }

  /** Event: somebody wants the result of an edge. */
  request(id: number, edge: EdgeState<TOp, TResult>): void {
    const request: Request<TOp, TResult> = { kind: "request", id, edge: resolve(edge) };
    this.#requests.set(id, request);
    request.edge.setDemand(request, 3);
    this.touch(request.edge);
  }

  /** Event: they don't any more. Nothing is said back. */
  withdraw(id: number): void {
    const request = this.#requests.get(id);
    if (!request) return;
    this.#requests.delete(id);
    request.edge.setDemand(request, 0);
    this.touch(request.edge);
  }

  /** Event: a cache is being opened; {@link Core.sourceOpened} must follow. */
  sourceExpected(pending: PendingCacheSource<TResult>): void {
    if (!this.expected.has(pending)) this.expected.set(pending, new Set());
  }

  /** Event: a cache has been opened, or there is none. */
  sourceOpened(pending: PendingCacheSource<TResult>, source: CacheSource<TResult> | undefined): void {
    sourceOpened(this, pending, source);
  }

  /** Event: a task has settled. */
  taskEnded(id: number, end: TaskEnd<TOp, TResult>): void {
    const task = this.tasks.get(id);
    if (!task) return;
    this.tasks.delete(id);
    for (const result of task.lent) this.release(result);
    if (task.op.deleted) {
      this.#dropEnd(end);
      return;
    }
    if (task.what === "load") this.#loadEnded(task, end);
    else this.#workEnded(task, end);
  }

  /** Processes up to `maxSteps` queued edges; true when there are more. */
  run(maxSteps = Number.POSITIVE_INFINITY): boolean {
    for (let n = 0; n < maxSteps; n++) {
      const edge = this.#next();
      if (!edge) {
        this.#failStuck();
        return this.#head < this.#queue.length;
      }
      this.steps++;
      try {
        stepEdge(this, edge);
      } catch (error) {
        this.#failEdge(edge, error);
      }
    }
    return this.#head < this.#queue.length;
  }

  /** The commands since the last call, in order. */
  take(): Command<TOp, TResult>[] {
    const out = this.#commands;
    this.#commands = [];
    return out;
  }

  /** True while there is something for {@link Core.run} or {@link Core.take}. */
  get busy(): boolean {
    return this.#head < this.#queue.length || this.#commands.length > 0;
  }

  /** Requests that are open, for tests. */
  get openRequests(): number {
    return this.#requests.size;
  }

  emit(command: Command<TOp, TResult>): void {
    this.#commands.push(command);
  }

  release(result: TResult): void {
    this.emit({ kind: "release", result });
  }

  /** Puts an edge into the queue. */
  touch(edge: EdgeState<TOp, TResult>): void {
    if (edge.queued || edge.op.deleted) return;
    edge.queued = true;
    this.#queue.push(edge);
  }

  /** Answers a request and forgets it. */
  settle(request: Request<TOp, TResult>, outcome: Outcome<TResult>): void {
    this.#requests.delete(request.id);
    request.edge.setDemand(request, 0);
    this.emit({ kind: "settled", request: request.id, outcome });
  }

  startTask(task: Omit<Task<TOp, TResult>, "id">): number {
    const id = ++this.#lastTask;
    this.tasks.set(id, { id, ...task });
    return id;
  }

  /** Says that `edge` (no longer) waits for some work of its op; work that nobody waits for is aborted. */
  want<T>(slot: WorkSlot<TOp, TResult, T>, edge: EdgeState<TOp, TResult>, wanted: boolean): void {
    if (wanted) {
      slot.wantedBy.add(edge);
    } else if (slot.wantedBy.delete(edge) && slot.wantedBy.size === 0) {
      const { work } = slot;
      if (work.kind !== "running" || work.aborted) return;
      work.aborted = true;
      this.emit({ kind: "abort", task: work.task });
    }
  }

  /** Runs a question to a cache; one that fails is a warning and an empty answer. */
  askCache<T>(op: OpState<TOp, TResult>, what: string, ask: () => T, otherwise: T): T {
    try {
      return ask();
    } catch (error) {
      this.emit({ kind: "warning", op, error, what });
      return otherwise;
    }
  }

  #next(): EdgeState<TOp, TResult> | undefined {
    const { pick } = this.ports;
    const left = this.#queue.length - this.#head;
    if (left === 0) return undefined;
    if (pick) {
      const at = this.#head + pick(left);
      [this.#queue[this.#head], this.#queue[at]] = [this.#queue[at]!, this.#queue[this.#head]!];
    }
    const edge = this.#queue[this.#head++]!;
    edge.queued = false;
    if (this.#head > 1024 && this.#head * 2 > this.#queue.length) {
      this.#queue.splice(0, this.#head);
      this.#head = 0;
    }
    return edge;
  }

  /** A hook threw: only those who need the edge are to suffer. */
  #failEdge(edge: EdgeState<TOp, TResult>, error: unknown): void {
    if (edge.status.kind === "complete") this.release(edge.status.result);
    edge.status = { kind: "failed", error };
    this.touch(edge);
  }

  /** Guards against waiting for ever: with nothing running, nothing can settle an open request. */
  #failStuck(): void {
    if (this.tasks.size > 0 || this.expected.size > 0) return;
    for (const request of [...this.#requests.values()]) {
      const { vertex } = request.edge.op;
      const error = new Error(`solver error: nothing left to do for ${vertex.name} (${vertex.digest})`);
      this.settle(request, { kind: "failed", error });
    }
  }

  #loadEnded(task: Task<TOp, TResult>, end: TaskEnd<TOp, TResult>): void {
    const edge = task.edge!;
    const { load } = edge;
    if (!load || load.task !== task.id) {
      this.#dropEnd(end);
      return;
    }
    edge.load = undefined;
    this.touch(edge);
    const { record } = load;
    if (end.kind === "load") {
      edge.status = { kind: "complete", result: end.result, keys: [record.key] };
      this.#adoptParents(edge, record, end);
    } else if (end.kind === "failed" && !load.aborted) {
      edge.records.delete(record.id);
      edge.tried.add(record.id);
      this.emit({ kind: "warning", op: edge.op, error: end.error, what: "failed to load cache" });
    }
  }

  /** Copies what came out of an imported cache into the main one. */
  #adoptParents(
    edge: EdgeState<TOp, TResult>,
    record: CacheRecord<TResult>,
    end: TaskEnd<TOp, TResult> & { kind: "load" },
  ): void {
    if (record.source !== this.ports.main) {
      this.askCache(edge.op, "failed to save cache", () => adopt(this, record, end), undefined);
    }
    for (const result of end.parents?.values() ?? []) this.release(result);
  }

  #workEnded(task: Task<TOp, TResult>, end: TaskEnd<TOp, TResult>): void {
    const { op } = task;
    const slot = slotOf(task);
    const aborted = slot.work.kind === "running" && slot.work.aborted;
    for (const edge of op.edges.values()) this.touchInput(edge, task.input);
    if (end.kind === "failed") {
      slot.work = aborted || end.retry ? IDLE : { kind: "failed", error: end.error };
    } else if (end.kind === "cacheMap") {
      this.#mapEnded(op, end.answer);
    } else if (end.kind === "exec") {
      op.exec.work = { kind: "done", value: end.results };
    } else if (end.kind === "contentKey") {
      contentEnded(op.content[task.input!]!, end.digest);
    }
  }

  /** Puts an edge into the queue, with one of its inputs to look at again. */
  touchInput(edge: EdgeState<TOp, TResult>, input: number | undefined): void {
    if (input !== undefined && !edge.owner) {
      edge.dirtyDeps.add(edge.deps[input]!);
      edge.indexStale = true;
    }
    this.touch(edge);
  }

  #mapEnded(op: OpState<TOp, TResult>, answer: CacheMapAnswer<TOp, TResult>): void {
    const expected = op.inputs.length;
    const got = answer.cacheMap.deps.length;
    if (got !== expected) {
      const text = `invalid cache map: expected dependency count ${expected}, got ${got}`;
      op.map.work = { kind: "failed", error: new Error(text) };
      return;
    }
    op.maps.push(answer.cacheMap);
    op.mapsDone = answer.done || expected > 0;
    op.map.work = IDLE;
  }

  #dropEnd(end: TaskEnd<TOp, TResult>): void {
    if (end.kind === "exec") for (const result of end.results) this.release(result);
    if (end.kind === "load") {
      this.release(end.result);
      for (const result of end.parents?.values() ?? []) this.release(result);
    }
  }
}
