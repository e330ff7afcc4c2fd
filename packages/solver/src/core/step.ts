import type { CacheRecord } from "../cache/cache-key.ts";
import { CacheKey, type CacheKeyLink } from "../cache/cache-key.ts";
import { addLinks, compareRecords, findRoot, followLinks, type Match } from "../cache/cache-query.ts";
import { commitExec } from "./commit.ts";
import type { Core } from "./core.ts";
import { mergeOf, moveAlternates } from "./edge-index.ts";
import {
  type Consumer,
  type Demand,
  type Dep,
  type EdgeState,
  FACT,
  inputLinks,
  type Mode,
  resolve,
} from "./edge-state.ts";
import type { OpState } from "./op-state.ts";
import { depDemand, depFacts, needsMap, planEdge } from "./plan.ts";
import { addKey, joinSources, QUERY } from "./sources.ts";

/** One turn of an edge: look, merge, judge, plan, tell. See `core.ts`. */
export function stepEdge<TOp, TResult>(core: Core<TOp, TResult>, edge: EdgeState<TOp, TResult>): void {
  if (edge.owner || edge.op.deleted) return;
  if (!edge.settled) {
    const demand = edge.demand;
    let changed: readonly Dep<TOp, TResult>[] = [];
    if (demand > 0) {
      adoptMaps(core, edge);
      changed = lookAtInputs(core, edge);
      if (edge.indexStale && mergeEqual(core, edge)) return;
    }
    judge(edge);
    applyPlan(core, edge, { demand, changed });
  }
  tellConsumers(core, edge);
  if (edge.settled) settleEdge(core, edge);
}

/** Makes consumers look again, if what they see has changed. */
function tellConsumers<TOp, TResult>(core: Core<TOp, TResult>, edge: EdgeState<TOp, TResult>): void {
  if (!edge.takeChange()) return;
  for (const consumer of edge.consumers.keys()) {
    if (consumer.kind === "dep") touchDep(core, consumer);
  }
}

function touchDep<TOp, TResult>(core: Core<TOp, TResult>, dep: Dep<TOp, TResult>): void {
  dep.user.dirtyDeps.add(dep);
  core.touch(dep.user);
}

/** Lets go of everything a settled edge doesn't need, and answers its requests. */
function settleEdge<TOp, TResult>(core: Core<TOp, TResult>, edge: EdgeState<TOp, TResult>): void {
  setMode(core, edge, "none", NO_TURN);
  const { status } = edge;
  for (const consumer of [...edge.consumers.keys()]) {
    if (consumer.kind !== "request") continue;
    if (status.kind === "complete") {
      const result = core.ports.results.clone(status.result);
      core.settle(consumer, { kind: "complete", result, keys: status.keys });
    } else if (status.kind === "failed") {
      core.settle(consumer, status);
    }
  }
}

function fail<TOp, TResult>(edge: EdgeState<TOp, TResult>, error: unknown): void {
  if (!edge.settled) edge.status = { kind: "failed", error };
}

// --- look

function adoptMaps<TOp, TResult>(core: Core<TOp, TResult>, edge: EdgeState<TOp, TResult>): void {
  const { op } = edge;
  for (; edge.mapsSeen < op.maps.length; edge.mapsSeen++) {
    edge.indexStale = true;
    if (op.inputs.length > 0) {
      for (const dep of edge.deps) edge.dirtyDeps.add(dep);
      continue;
    }
    const key = new CacheKey<TResult>({
      digest: op.maps[edge.mapsSeen]!.digest,
      output: edge.index,
      vertex: op.vertex.digest,
      exportCache: op.vertex.options.exportCache,
      origin: op,
    });
    key.alternates = edge.alternates;
    edge.rootKeys.push(key);
    if (op.ignoreCache) continue;
    if (core.askCache(op, QUERY, () => findRoot(op.sources, key), false)) addKey(core, edge, key);
  }
}

/** Returns the inputs that were looked at: all that have changed. */
function lookAtInputs<TOp, TResult>(
  core: Core<TOp, TResult>,
  edge: EdgeState<TOp, TResult>,
): readonly Dep<TOp, TResult>[] {
  if (edge.knownDeps.length === 0 && edge.deps.length === 0) return [];
  const changed = [...edge.dirtyDeps];
  const fresh: Match<TResult>[] = [];
  for (const dep of changed) {
    const now = resolve(dep.edge);
    if (now !== dep.edge) moveDep(core, dep, now);
    fresh.push(...probe(core, dep));
    edge.setFacts(dep, depFacts(dep));
  }
  edge.dirtyDeps.clear();
  for (const match of fresh) addKey(core, edge, matchedKey(edge, match));
  return changed;
}

/** Points an input to the edge that its own has been merged into. */
export function moveDep<TOp, TResult>(
  core: Core<TOp, TResult>,
  dep: Dep<TOp, TResult>,
  to: EdgeState<TOp, TResult>,
): void {
  if (dep.edge !== to) {
    dep.edge.setDemand(dep, 0);
    dep.edge = to;
    dep.seenKeys = 0;
    dep.user.indexStale = true;
    if (dep.demand > 0) {
      to.setDemand(dep, dep.demand);
      core.touch(to);
    }
  }
}

/** Asks the caches about names of an input that are new; returns what all inputs lead to since then. */
function probe<TOp, TResult>(core: Core<TOp, TResult>, dep: Dep<TOp, TResult>): Match<TResult>[] {
  const { user: edge, index } = dep;
  const { op } = edge;
  const map = op.maps[0];
  if (!map || op.ignoreCache) return [];
  const question = { digest: map.digest, input: index, output: edge.index };
  const selector = map.deps[index]!.selector ?? "";
  const links: CacheKeyLink<TResult>[] = dep.edge.keys.slice(dep.seenKeys).map((key) => ({ key, selector }));
  dep.seenKeys = dep.edge.keys.length;
  const ask = (asked: readonly CacheKeyLink<TResult>[]): Map<string, Match<TResult>> =>
    core.askCache(op, QUERY, () => followLinks(op.sources, asked, question), new Map());
  const out = links.length > 0 ? edge.addMatches(dep, ask(links)) : [];
  const content = op.content[index]!.work;
  if (dep.seenContent || content.kind !== "done" || dep.edge.status.kind !== "complete") return out;
  dep.seenContent = true;
  if (!content.value) return out;
  const found = ask([{ key: content.value, selector: "" }]);
  const definitions = inputLinks(dep).filter((link) => link.key !== content.value);
  core.askCache(op, QUERY, () => addLinks(definitions, found.values(), question), undefined);
  out.push(...edge.addMatches(dep, found));
  return out;
}

/** The key of an edge for an id that all its inputs lead to. */
function matchedKey<TOp, TResult>(edge: EdgeState<TOp, TResult>, match: Match<TResult>): CacheKey<TResult> {
  const { op } = edge;
  const key = new CacheKey<TResult>({
    digest: op.maps[0]!.digest,
    output: edge.index,
    vertex: op.vertex.digest,
    deps: edge.deps.map((dep) => inputLinks(dep)),
    exportCache: op.vertex.options.exportCache,
    origin: op,
  });
  key.alternates = edge.alternates;
  for (const source of op.sources) key.ids.set(source, source === match.source ? match.id : "");
  return key;
}

// --- merge

/** Merges with an equal edge if there is one; true when `edge` is the one that is gone. */
function mergeEqual<TOp, TResult>(core: Core<TOp, TResult>, edge: EdgeState<TOp, TResult>): boolean {
  edge.indexStale = false;
  for (const other of core.index.update(edge)) {
    if (other.owner || other.op === edge.op) continue;
    const merge = mergeOf(edge, other);
    if (!merge) continue;
    mergeInto(core, merge.from, merge.into);
    if (merge.from === edge) return true;
  }
  return false;
}

function mergeInto<TOp, TResult>(
  core: Core<TOp, TResult>,
  from: EdgeState<TOp, TResult>,
  into: EdgeState<TOp, TResult>,
): void {
  moveAlternates(from, into);
  setMode(core, from, "none", NO_TURN);
  core.index.remove(from);
  from.owner = into;
  for (const [consumer] of [...from.consumers]) moveConsumer(core, consumer, from, into);
  from.op.mergedInto.add(into.op);
  for (const holder of from.op.holders) hold(holder, into.op);
  joinSources(core, from.op, into.op);
  core.emit({ kind: "merged", from: from.op, into: into.op });
  core.touch(into);
  for (const sibling of from.op.edges.values()) {
    sibling.indexStale = true; // it is equal to an edge of that vertex too
    core.touch(sibling);
  }
}

function moveConsumer<TOp, TResult>(
  core: Core<TOp, TResult>,
  consumer: Consumer<TOp, TResult>,
  from: EdgeState<TOp, TResult>,
  into: EdgeState<TOp, TResult>,
): void {
  if (consumer.kind === "request") {
    from.setDemand(consumer, 0);
    consumer.edge = into;
    into.setDemand(consumer, 3);
  } else {
    moveDep(core, consumer, into);
    touchDep(core, consumer);
  }
}

/** Makes `holder` keep `first` active, with all that it needs and all that edges of those were merged into. */
export function hold<TOp, TResult>(
  holder: { readonly held: Set<OpState<TOp, TResult>> } & OpHolder<TOp, TResult>,
  first: OpState<TOp, TResult>,
): void {
  const waiting = [first];
  for (let op = waiting.pop(); op !== undefined; op = waiting.pop()) {
    if (holder.held.has(op) || holder.op === op) continue;
    holder.held.add(op);
    op.holders.add(holder);
    for (const input of op.inputs) waiting.push(input.op);
    waiting.push(...op.mergedInto);
  }
}

type OpHolder<TOp, TResult> = { readonly op?: OpState<TOp, TResult> | undefined };

// --- judge

function judge<TOp, TResult>(edge: EdgeState<TOp, TResult>): void {
  if (edge.settled) return;
  const { op } = edge;
  if (op.waits) {
    edge.status = { kind: "initial" };
    return;
  }
  if (op.inputs.length === 0) {
    edge.status = {
      kind:
        op.mapsDone && edge.mapsSeen === op.maps.length
          ? "cacheSlow"
          : edge.keys.length > 0
            ? "cacheFast"
            : "initial",
    };
    return;
  }
  const total = op.inputs.length;
  if (edge.mapsSeen === 0) return;
  const slow =
    op.ignoreCache || edge.count(FACT.dead) > 0 || edge.count(FACT.closed) === total || edge.noFurtherMatch;
  const fast = edge.count(FACT.fast) === total || edge.count(FACT.fastUnmatched) > 0;
  edge.status = { kind: slow ? "cacheSlow" : fast ? "cacheFast" : "initial" };
}

// --- plan

/** What an edge's turn is about. */
interface Turn<TOp, TResult> {
  readonly demand: Demand;
  /** Inputs that have changed since the last turn. */
  readonly changed: readonly Dep<TOp, TResult>[];
}

const NO_TURN = { demand: 0, changed: [] } as const;

function applyPlan<TOp, TResult>(
  core: Core<TOp, TResult>,
  edge: EdgeState<TOp, TResult>,
  turn: Turn<TOp, TResult>,
): void {
  const mode = planEdge(edge, turn.demand);
  setMode(core, edge, mode, turn);
  if (edge.settled) return;
  if (mode === "load" && !edge.load) startLoad(core, edge);
  const { work } = edge.op.exec;
  if (mode === "complete" && turn.demand === 3 && work.kind === "done" && canRun(edge)) {
    commitExec(core, edge, work.value);
  }
}

/** Sets what is asked of inputs and of the op to what `mode` says. */
function setMode<TOp, TResult>(
  core: Core<TOp, TResult>,
  edge: EdgeState<TOp, TResult>,
  mode: Mode,
  turn: Turn<TOp, TResult>,
): void {
  const deps = edge.mode === mode ? turn.changed : mode === "none" ? edge.knownDeps : edge.deps;
  edge.mode = mode;
  for (const dep of deps) applyDep(core, edge, dep);
  if (mode !== "load" && edge.load && !edge.load.aborted) {
    edge.load.aborted = true;
    core.emit({ kind: "abort", task: edge.load.task });
  }
  wantMap(core, edge, needsMap(edge, mode, turn.demand));
  wantExec(core, edge, !edge.settled && mode === "complete" && turn.demand === 3 && canRun(edge));
}

function applyDep<TOp, TResult>(
  core: Core<TOp, TResult>,
  edge: EdgeState<TOp, TResult>,
  dep: Dep<TOp, TResult>,
): void {
  const now = resolve(dep.edge); // merged while nothing was asked of it
  if (now !== dep.edge) {
    moveDep(core, dep, now);
    touchDep(core, dep);
  }
  const demand = edge.settled ? 0 : depDemand(edge.mode, dep);
  if (demand !== dep.demand) {
    const raised = demand > dep.demand;
    dep.demand = demand;
    dep.edge.setDemand(dep, demand);
    core.touch(dep.edge);
    if (raised && isStale(dep)) touchDep(core, dep);
  }
  if (demand > 0 && dep.edge.status.kind === "failed") {
    fail(edge, dep.edge.status.error);
    return;
  }
  wantContent(core, dep, demand === 3);
}

/** Its edge has changed while nothing was asked of it, so nobody was told. */
function isStale<TOp, TResult>(dep: Dep<TOp, TResult>): boolean {
  return dep.edge.settled || dep.seenKeys < dep.edge.keys.length || dep.facts !== depFacts(dep);
}

function canRun<TOp, TResult>(edge: EdgeState<TOp, TResult>): boolean {
  const { op } = edge;
  return op.mapsDone && edge.mapsSeen === op.maps.length && edge.count(FACT.ready) === op.inputs.length;
}

function wantMap<TOp, TResult>(
  core: Core<TOp, TResult>,
  edge: EdgeState<TOp, TResult>,
  wanted: boolean,
): void {
  const { map } = edge.op;
  core.want(map, edge, wanted);
  if (!wanted) return;
  if (map.work.kind === "failed") {
    fail(edge, map.work.error);
    return;
  }
  if (map.work.kind !== "idle") return;
  const task = core.startTask({ op: edge.op, what: "cacheMap", lent: [] });
  map.work = { kind: "running", task, aborted: false };
  core.emit({ kind: "cacheMap", task, op: edge.op, index: edge.op.maps.length });
}

function wantExec<TOp, TResult>(
  core: Core<TOp, TResult>,
  edge: EdgeState<TOp, TResult>,
  wanted: boolean,
): void {
  const { op } = edge;
  const { exec } = op;
  core.want(exec, edge, wanted);
  if (!wanted) return;
  if (exec.work.kind === "failed") {
    fail(edge, exec.work.error);
    return;
  }
  if (exec.work.kind !== "idle") return;
  const inputs = edge.deps.map((dep) => lend(core, dep.edge));
  const task = core.startTask({ op, what: "exec", lent: inputs });
  exec.work = { kind: "running", task, aborted: false };
  core.emit({ kind: "exec", task, op, inputs });
}

function wantContent<TOp, TResult>(core: Core<TOp, TResult>, dep: Dep<TOp, TResult>, wanted: boolean): void {
  const { user: edge, index } = dep;
  const { op } = edge;
  const spec = op.maps[0]?.deps[index];
  const slot = op.content[index]!;
  const useful =
    wanted && dep.edge.status.kind === "complete" && (spec?.computeContentKey || spec?.preprocess);
  core.want(slot, edge, Boolean(useful));
  if (!useful) return;
  if (slot.work.kind === "failed") {
    fail(edge, slot.work.error);
    return;
  }
  if (slot.work.kind !== "idle") return;
  const result = lend(core, dep.edge);
  const task = core.startTask({ op, what: "contentKey", input: index, lent: [result] });
  slot.work = { kind: "running", task, aborted: false };
  core.emit({ kind: "contentKey", task, op, input: index, inputOp: dep.edge.op, spec: spec!, result });
}

function lend<TOp, TResult>(core: Core<TOp, TResult>, edge: EdgeState<TOp, TResult>): TResult {
  const { status } = edge;
  if (status.kind !== "complete") throw new Error(`input ${edge.op.vertex.digest} is not complete`);
  return core.ports.results.clone(status.result);
}

function startLoad<TOp, TResult>(core: Core<TOp, TResult>, edge: EdgeState<TOp, TResult>): void {
  const { main } = core.ports;
  let record: CacheRecord<TResult> | undefined;
  for (const candidate of edge.records.values()) {
    if (!record || compareRecords(candidate, record, main) < 0) record = candidate;
  }
  if (!record) return;
  const { op } = edge;
  const task = core.startTask({ op, what: "load", edge, lent: [] });
  edge.load = { task, record, aborted: false };
  core.emit({ kind: "load", task, op, record, withParents: record.source !== main });
}
