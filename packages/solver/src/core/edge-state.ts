import type { AlternateInput, CacheKey, CacheKeyLink, CacheRecord } from "../cache/cache-key.ts";
import type { Match } from "../cache/cache-query.ts";
import type { OpState } from "./op-state.ts";

/**
 * What is known of an edge.
 *
 * - `cacheFast`: every key that follows from definitions is known.
 * - `cacheSlow`: so is every key that follows from the content of inputs.
 */
export type EdgeStatus<TResult> =
  | { readonly kind: "initial" | "cacheFast" | "cacheSlow" }
  | { readonly kind: "complete"; readonly result: TResult; readonly keys: readonly CacheKey<TResult>[] }
  | { readonly kind: "failed"; readonly error: unknown };

/** How much of an edge somebody needs: nothing, its fast keys, all keys, its result. */
export type Demand = 0 | 1 | 2 | 3;

/** How far an edge is, on the scale of {@link Demand}. */
export function levelOf<TResult>(status: EdgeStatus<TResult>): Demand {
  switch (status.kind) {
    case "initial":
    case "failed":
      return 0;
    case "cacheFast":
      return 1;
    case "cacheSlow":
      return 2;
    case "complete":
      return 3;
  }
}

/** What an edge does to get on. */
export type Mode = "none" | "hold" | "load" | "fast" | "phase1" | "phase2" | "complete";

/** Facts about one input of an edge, as bits; an edge counts for how many inputs each holds. */
export const FACT = {
  /** Its definition-based keys are known. */
  fast: 1,
  /** No further match can come from it. */
  closed: 2,
  /** Its result is there, preprocessed and with its content key. */
  ready: 4,
  /** It has no match yet, but may get one. */
  openUnmatched: 8,
  /** It has no match and won't get any: the edge can't be in a cache. */
  dead: 16,
  /** It has no match among its definition-based keys. */
  fastUnmatched: 32,
} as const;

const FACTS = Object.values(FACT);

/** A job's wish for the result of an edge. */
export interface Request<TOp, TResult> {
  readonly kind: "request";
  readonly id: number;
  edge: EdgeState<TOp, TResult>;
}

/** One input of an edge, as the edge sees it. */
export class Dep<TOp, TResult> {
  readonly kind = "dep";
  readonly user: EdgeState<TOp, TResult>;
  readonly index: number;
  edge: EdgeState<TOp, TResult>;
  demand: Demand = 0;
  facts = 0;
  /** How many of the keys of `edge` have been looked up. */
  seenKeys = 0;
  seenContent = false;
  readonly matches = new Map<string, Match<TResult>>();

  constructor(user: EdgeState<TOp, TResult>, index: number, edge: EdgeState<TOp, TResult>) {
    this.user = user;
    this.index = index;
    this.edge = edge;
  }

  has(fact: number): boolean {
    return (this.facts & fact) !== 0;
  }
}

/** Who needs an edge. */
export type Consumer<TOp, TResult> = Dep<TOp, TResult> | Request<TOp, TResult>;

let lastUid = 0;

/** One output of an active vertex, with everything that is known of how to get its result. */
export class EdgeState<TOp, TResult> {
  readonly op: OpState<TOp, TResult>;
  readonly index: number;
  readonly uid = ++lastUid;
  status: EdgeStatus<TResult> = { kind: "initial" };
  mode: Mode = "none";
  /** The edge that this one has been merged into. */
  owner: EdgeState<TOp, TResult> | undefined;
  readonly consumers = new Map<Consumer<TOp, TResult>, Demand>();
  /** Names of the result that caches may know; grows only. */
  readonly keys: CacheKey<TResult>[] = [];
  /** One per cache map, for vertices without inputs. */
  readonly rootKeys: CacheKey<TResult>[] = [];
  readonly alternates: AlternateInput<TResult>[] = [];
  /** Records not tried yet. */
  readonly records = new Map<string, CacheRecord<TResult>>();
  readonly tried = new Set<string>();
  load: { readonly task: number; readonly record: CacheRecord<TResult>; aborted: boolean } | undefined;
  readonly dirtyDeps = new Set<Dep<TOp, TResult>>();
  /** Names in the index of equal edges. */
  readonly indexed = new Set<string>();
  /** Something that could make it equal to another edge has changed. */
  indexStale = true;
  mapsSeen = 0;
  queued = false;
  #deps: Dep<TOp, TResult>[] | undefined;
  readonly #counts = new Map<number, number>();
  readonly #matchCounts = new Map<string, number>();
  readonly matched = new Set<string>();
  /** Matches that all closed inputs have in common; `undefined` while none is closed. */
  #common: Set<string> | undefined;
  #demands: [number, number, number, number] = [0, 0, 0, 0];
  #published = "";

  constructor(op: OpState<TOp, TResult>, index: number) {
    this.op = op;
    this.index = index;
  }

  get deps(): readonly Dep<TOp, TResult>[] {
    if (!this.#deps) {
      this.#deps = this.op.inputs.map((input, i) => new Dep(this, i, resolve(input.op.edge(input.index))));
      for (const dep of this.#deps) this.dirtyDeps.add(dep);
    }
    return this.#deps;
  }

  /** {@link EdgeState.deps}, if anybody has looked at them yet. */
  get knownDeps(): readonly Dep<TOp, TResult>[] {
    return this.#deps ?? [];
  }

  get level(): Demand {
    return levelOf(this.status);
  }

  get settled(): boolean {
    return this.status.kind === "complete" || this.status.kind === "failed";
  }

  /** The most that anybody needs. */
  get demand(): Demand {
    for (const level of [3, 2, 1] as const) if (this.#demands[level] > 0) return level;
    return 0;
  }

  setDemand(consumer: Consumer<TOp, TResult>, demand: Demand): void {
    const before = this.consumers.get(consumer);
    if (before !== undefined) this.#demands[before]--;
    if (demand === 0) {
      this.consumers.delete(consumer);
    } else {
      this.#demands[demand]++;
      this.consumers.set(consumer, demand);
    }
  }

  /** For how many inputs `fact` holds. */
  count(fact: number): number {
    return this.#counts.get(fact) ?? 0;
  }

  setFacts(dep: Dep<TOp, TResult>, facts: number): void {
    const changed = dep.facts ^ facts;
    if (changed === 0) return;
    for (const fact of FACTS) {
      if (changed & fact) this.#counts.set(fact, this.count(fact) + (facts & fact ? 1 : -1));
    }
    dep.facts = facts;
    if (changed & FACT.closed) this.#closedChanged(dep);
  }

  /** Adds what an input's keys lead to; returns what all inputs lead to since then. */
  addMatches(dep: Dep<TOp, TResult>, found: ReadonlyMap<string, Match<TResult>>): Match<TResult>[] {
    const complete: Match<TResult>[] = [];
    for (const [name, match] of found) {
      if (dep.matches.has(name)) continue;
      dep.matches.set(name, match);
      const count = (this.#matchCounts.get(name) ?? 0) + 1;
      this.#matchCounts.set(name, count);
      if (count < this.deps.length) continue;
      this.matched.add(name);
      complete.push(match);
    }
    return complete;
  }

  /** True when no match can come that isn't there yet. */
  get noFurtherMatch(): boolean {
    return this.#common?.isSubsetOf(this.matched) ?? false;
  }

  /** True when what consumers see has changed since the last call. */
  takeChange(): boolean {
    const now = `${this.status.kind} ${this.keys.length}`;
    if (now === this.#published) return false;
    this.#published = now;
    return true;
  }

  #closedChanged(dep: Dep<TOp, TResult>): void {
    if (dep.has(FACT.closed)) {
      const names = new Set(dep.matches.keys());
      this.#common = this.#common?.intersection(names) ?? names;
      return;
    }
    this.#common = undefined;
    for (const other of this.deps) {
      if (!other.has(FACT.closed)) continue;
      const names = new Set(other.matches.keys());
      this.#common = this.#common === undefined ? names : (this.#common as Set<string>).intersection(names);
    }
  }
}

/** The edge that stands for `edge` after merges. */
export function resolve<TOp, TResult>(edge: EdgeState<TOp, TResult>): EdgeState<TOp, TResult> {
  let last = edge;
  while (last.owner) last = last.owner;
  for (let at = edge; at.owner && at.owner !== last; ) {
    const next: EdgeState<TOp, TResult> = at.owner;
    at.owner = last;
    at = next;
  }
  return last;
}

/** Names of an input's result: those of the result itself once it is there. */
export function inputLinks<TOp, TResult>(dep: Dep<TOp, TResult>): CacheKeyLink<TResult>[] {
  const { edge, user, index } = dep;
  const selector = user.op.maps[0]?.deps[index]?.selector ?? "";
  const keys = edge.status.kind === "complete" ? edge.status.keys : edge.keys;
  const out = keys.map((key) => ({ key, selector }));
  const content = user.op.content[index]!.work;
  if (content.kind === "done" && content.value) out.push({ key: content.value, selector: "" });
  return out;
}
