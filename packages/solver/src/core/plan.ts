import { type Demand, type Dep, type EdgeState, FACT, type Mode } from "./edge-state.ts";

/**
 * What an edge should do next, from what it knows and what is asked of it. Pure: the whole strategy of
 * looking before running is here and in {@link depDemand}.
 *
 * 1. A record at hand is loaded, when the result is wanted.
 * 2. What is known already is not worked for.
 * 3. While a cache is still being opened, only definition-based keys are asked for: it may have the result.
 * 4. An edge that can't be in a cache asks for the results of all inputs at once and runs.
 * 5. Otherwise the definition-based keys of all inputs come first. They cost next to nothing.
 * 6. Then inputs without a match are looked at closer, down to their content (phase 1), so that an input
 *    that has matches is not made just to be looked at.
 * 7. Only when that settles nothing are the others looked at (phase 2).
 *
 * An edge that no cache can have any more will have to run: while its consumers make up their minds, it holds
 * on to inputs that are being made, so that nothing is cancelled only to be started again.
 */
export function planEdge<TOp, TResult>(edge: EdgeState<TOp, TResult>, demand: Demand): Mode {
  const { op, level } = edge;
  if (demand === 0 || edge.settled) return "none";
  const { exec } = op;
  if (demand === 3) {
    if (exec.work.kind === "done" || (exec.work.kind === "running" && exec.wantedBy.has(edge)))
      return "complete";
    if (edge.load || edge.records.size > 0) return "load";
  } else if (level >= demand) {
    return mustRun(edge) ? "hold" : "none";
  }
  if (op.waits) return op.inputs.length === 0 ? "none" : "fast";
  if (op.inputs.length === 0) return "complete";
  if (mustRun(edge)) return demand === 3 ? "complete" : "hold";
  if (level < 1) return "fast";
  if (edge.count(FACT.openUnmatched) > 0) return "phase1";
  if (edge.count(FACT.closed) < op.inputs.length) return "phase2";
  return demand === 3 ? "complete" : "none";
}

/** No cache can have the result any more. */
function mustRun<TOp, TResult>(edge: EdgeState<TOp, TResult>): boolean {
  const { op } = edge;
  return op.inputs.length > 0 && !op.waits && (op.ignoreCache || edge.count(FACT.dead) > 0);
}

/** What an edge in `mode` needs of one of its inputs. */
export function depDemand<TOp, TResult>(mode: Mode, dep: Dep<TOp, TResult>): Demand {
  switch (mode) {
    case "none":
    case "load":
      return 0;
    case "hold":
      return dep.demand;
    case "fast":
      return 1;
    case "complete":
      return 3;
    case "phase1":
      return dep.has(FACT.openUnmatched) ? closer(dep) : 1;
    case "phase2":
      return dep.has(FACT.closed) ? 1 : closer(dep);
  }
}

/** Next step towards knowing all keys of an input: its own slow keys, then its content. */
function closer<TOp, TResult>(dep: Dep<TOp, TResult>): Demand {
  return dep.edge.level >= 2 ? 3 : 2;
}

/** True when the edge needs the next cache map of its op. */
export function needsMap<TOp, TResult>(edge: EdgeState<TOp, TResult>, mode: Mode, demand: Demand): boolean {
  const { op } = edge;
  if (op.mapsDone || edge.settled || demand === 0 || mode === "load") return false;
  if (op.maps.length === 0) return true;
  // Only vertices without inputs have several; the next one is asked for when the last didn't help.
  return mode !== "none";
}

/** The facts about an input, see {@link FACT}. */
export function depFacts<TOp, TResult>(dep: Dep<TOp, TResult>): number {
  const { user, index } = dep;
  const map = user.op.maps[0];
  const level = dep.edge.level;
  let facts = level >= 1 ? FACT.fast : 0;
  if (!map) return facts;
  const spec = map.deps[index]!;
  const content = user.op.content[index]!.work.kind === "done";
  const unmatched = dep.matches.size === 0;
  if (level === 3 && (content || (!spec.computeContentKey && !spec.preprocess))) facts |= FACT.ready;
  if (user.op.waits) return facts; // a match can still come
  if (level >= 2 && (content || !spec.computeContentKey)) {
    facts |= FACT.closed;
    if (unmatched) facts |= FACT.dead;
  } else if (unmatched) {
    facts |= FACT.openUnmatched;
  }
  if (level >= 1 && unmatched) facts |= FACT.fastUnmatched;
  return facts;
}
