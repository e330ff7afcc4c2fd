import type { Range } from "@kiln/llb";
import type { AccessInfo, StageState } from "./stage-state.ts";

/** An ARG that a target takes. */
export interface OutlineArg {
  readonly name: string;
  readonly description: string;
  readonly value: string;
  readonly location: readonly Range[];
}

/** A secret or SSH agent that a target takes. */
export interface OutlineAccess {
  readonly name: string;
  readonly required: boolean;
  readonly location: readonly Range[];
}

/** What a target takes. */
export interface Outline {
  readonly name: string;
  readonly description: string;
  readonly args: readonly OutlineArg[];
  readonly secrets: readonly OutlineAccess[];
  readonly ssh: readonly OutlineAccess[];
}

/** The outline of a compiled target. */
export function outlineOf(target: StageState): Outline {
  const stages = inOrder(target);
  return {
    name: target.stage.name,
    description: target.stage.description,
    args: byLine(argsOf(stages)),
    secrets: byLine(accessOf(stages, (stage) => stage.notes.secrets)),
    ssh: byLine(accessOf(stages, (stage) => stage.notes.ssh)),
  };
}

/** The target, its bases, and what they copy from; first visits only. */
function inOrder(target: StageState): StageState[] {
  const seen = new Set<StageState>();
  const stack = [target];
  for (let stage = stack.pop(); stage !== undefined; stage = stack.pop()) {
    if (seen.has(stage)) continue;
    seen.add(stage);
    stack.push(...[...stage.deps.keys()].reverse());
    if (stage.base !== undefined) stack.push(stage.base);
  }
  return [...seen];
}

function argsOf(stages: readonly StageState[]): OutlineArg[] {
  const seen = new Set<string>();
  const out: OutlineArg[] = [];
  for (const { notes } of stages) {
    const used = new Set(notes.used);
    for (const key of used) for (const other of notes.args.get(key)?.uses ?? []) used.add(other);
    for (const key of used) {
      const info = notes.args.get(key);
      if (info === undefined || seen.has(key)) continue;
      seen.add(key);
      const { definition, value, location } = info;
      out.push({ name: definition.key, description: definition.description, value, location });
    }
  }
  return out;
}

function accessOf(
  stages: readonly StageState[],
  notes: (stage: StageState) => ReadonlyMap<string, AccessInfo>,
): OutlineAccess[] {
  const seen = new Map<string, OutlineAccess>();
  for (const stage of stages) {
    for (const [name, info] of notes(stage)) if (!seen.has(name)) seen.set(name, { name, ...info });
  }
  return [...seen.values()];
}

function byLine<T extends { readonly location: readonly Range[] }>(items: readonly T[]): T[] {
  const line = (item: T): number => item.location[0]?.start.line ?? 0;
  return items.toSorted((a, b) => line(a) - line(b));
}
