import { isBuildError } from "@kiln/base";
import { quoteGo, withSuggestion } from "@kiln/formats";
import { compareUtf8, EnvList } from "@kiln/llb";
import { type Platform, parsePlatform } from "@kiln/oci";
import { Problem, problemOf, setLocation, withLocation, wrapProblem } from "../base/problem.ts";
import { parseTrigger } from "../instructions/parse.ts";
import type { CopyInstruction, Instruction, RunInstruction, Stage } from "../instructions/types.ts";
import { type Expansion, expand, tryExpand } from "../shell/lex.ts";
import { parseFile } from "../syntax/parser.ts";
import { checkFromArgs, checkFromPlatform } from "./checks.ts";
import type { CompileContext } from "./context.ts";
import { namedContextFor } from "./named.ts";
import {
  type ArgInfo,
  copyNotes,
  impliedStage,
  type OutlineNotes,
  StageState,
  type Step,
} from "./stage-state.ts";

/** Makes the stages of a Dockerfile and adds them to the context's list. */
export function buildStages(
  context: CompileContext,
  stages: readonly Stage[],
  infos: ReadonlyMap<string, ArgInfo>,
): void {
  stages.forEach((stage, index) => {
    const state = buildStage(context, stage, infos);
    if (state.namedContext !== undefined) return;
    if (stage.name === "") state.label = `stage-${index}`;
  });
}

function buildStage(context: CompileContext, stage: Stage, infos: ReadonlyMap<string, ArgInfo>): StageState {
  const linter = context.linter.withComments(stage.comments);
  const known = { args: context.globalArgs, infos };
  const name = tryExpand(stage.baseName, context.globalArgs, context.lex);
  checkFromArgs(name.unmatched, known, { location: stage.location, linter });
  if (name.problem !== undefined) throw withLocation(name.problem, stage.location);
  if (name.text === "") {
    throw new Problem(`base name (${stage.baseName}) should not be blank`, { locations: [stage.location] });
  }
  const notes: OutlineNotes = { args: new Map(infos), used: new Set(), secrets: new Map(), ssh: new Map() };
  const state = new StageState(stage, copyNotes(notes));
  state.baseName = name.text;
  state.showsPlatform = context.settings.multiPlatform;
  const used = new Set(name.matched);
  if (stage.platform !== "") {
    const expansion = tryExpand(stage.platform, context.globalArgs, context.lex);
    checkFromArgs(expansion.unmatched, known, { location: stage.location, linter });
    checkFromPlatform(stage, expansion, { args: context.globalArgs, linter });
    if (expansion.problem !== undefined) {
      throw withLocation(
        wrapProblem(expansion.problem, "failed to process arguments for platform "),
        stage.location,
      );
    }
    state.platform = stagePlatform(context, stage, expansion);
    for (const key of expansion.matched) used.add(key);
  }
  if (stage.name !== "") {
    const named = namedContextFor(context, stage.name, {
      platform: state.platform,
      resolveMode: context.settings.resolveMode,
      followPaths: () => followPaths(state.paths),
    });
    if (named !== undefined) {
      state.namedContext = named;
      context.stages.add(state);
      state.base = undefined;
      return state;
    }
  }
  context.stages.add(state);
  for (const key of used) state.notes.used.add(key);
  state.stepCount = countSteps(state);
  state.ignoreCache = context.host.ignoresCache(stage.name);
  return state;
}

function stagePlatform(context: CompileContext, stage: Stage, expansion: Expansion): Platform {
  const hinted = (message: string): string => {
    for (const name of expansion.unmatched) {
      const better = withSuggestion(message, name, context.globalArgs.keys(), true);
      if (better !== message) return better;
    }
    return message;
  };
  if (expansion.text === "") {
    const message = hinted(`empty platform value from expression ${stage.platform}`);
    throw new Problem(message, { locations: [stage.location] });
  }
  try {
    return parsePlatform(expansion.text);
  } catch (error) {
    if (!isBuildError(error)) throw error;
    const message = `failed to parse platform ${stage.platform}: ${hinted(error.message)}`;
    throw new Problem(message, { locations: [stage.location, stage.location] });
  }
}

/** Steps that are counted in the names of vertices. */
function countSteps(state: StageState): number {
  const counted = state.stage.instructions.filter(
    ({ kind }) => kind === "add" || kind === "copy" || kind === "run" || kind === "workdir",
  ).length;
  return counted + (state.baseName !== "scratch" && state.base === undefined ? 1 : 0);
}

/** The stage to build. Throws a problem for a name that no stage has. */
export function targetStage(context: CompileContext): StageState {
  const { target } = context.settings;
  const found = target === "" ? context.stages.all.at(-1) : context.stages.byName(target);
  if (found !== undefined) return found;
  const message = `target stage ${quoteGo(target)} could not be found`;
  throw new Problem(withSuggestion(message, target, context.stages.names(), true));
}

/** Finds the stages and images that instructions take files from. */
export function connectStages(context: CompileContext): void {
  // Images that come up are appended, and have no instructions.
  for (let i = 0; i < context.stages.all.length; i++) {
    const state = context.stages.all[i]!;
    state.steps = state.stage.instructions.map((instruction) => ({
      instruction,
      sources: sourcesOf(context, instruction),
      isReplayed: false,
    }));
    for (const step of state.steps) addDeps(context, state, step);
  }
}

function addDeps(context: CompileContext, state: StageState, step: Step): void {
  for (const source of step.sources) {
    state.deps.set(source, step.instruction);
    if (source.isImplied) context.stages.add(source);
  }
}

function sourcesOf(context: CompileContext, instruction: Instruction): StageState[] {
  if (instruction.kind === "run") return mountSources(context, instruction);
  if (instruction.kind === "copy" && instruction.from !== "") return [copySource(context, instruction)];
  return [];
}

function mountSources(context: CompileContext, run: RunInstruction): StageState[] {
  return run.mounts.map((mount) => {
    const from = mount.from === "" ? "scratch" : mount.from;
    return context.stages.byName(from) ?? impliedStage(from, []);
  });
}

function copySource(context: CompileContext, copy: CopyInstruction): StageState {
  const { from } = copy;
  if (expand(from, EnvList.of(), context.lex).text !== from) {
    throw new Problem(
      "variable expansion is not supported for --from, define a new stage with FROM using ARG from global scope as a workaround",
    );
  }
  if (!/^[+-]?[0-9]+$/.test(from)) return context.stages.byName(from) ?? impliedStage(from, copy.location);
  const index = Number(from);
  const stage = context.stages.all[index];
  if (stage === undefined) throw new Problem(`invalid stage index ${index}`);
  return stage;
}

/** Everything that a stage needs, itself included. */
export function reachableFrom(stage: StageState): Set<StageState> {
  const found = new Set([stage]);
  for (const next of found) {
    if (next.base !== undefined) found.add(next.base);
    for (const dep of next.deps.keys()) found.add(dep);
  }
  return found;
}

/**
 * Puts the triggers of a stage's base in front of its own steps. True when they need stages or images that
 * must be resolved first.
 */
export function replayTriggers(context: CompileContext, state: StageState): boolean {
  const triggers = [...state.image.config.onBuild];
  if (state.base !== undefined && !state.hasTriggers) {
    for (const { instruction } of state.base.steps) {
      if (instruction.kind === "onbuild") triggers.push(instruction.expression);
    }
    state.hasTriggers = true;
  }
  if (triggers.length === 0) return false;
  let hasNew = false;
  try {
    const steps = triggers.map((trigger): Step => {
      const instruction = triggerInstruction(trigger, state);
      const step = { instruction, sources: sourcesOf(context, instruction), isReplayed: true };
      if (step.sources.length > 0) hasNew = true;
      addDeps(context, state, step);
      return step;
    });
    state.steps = [...steps, ...state.steps];
    state.stepCount += steps.length;
  } catch (error) {
    throw setLocation(problemOf(error), state.stage.location);
  }
  state.image.config.onBuild = [];
  return hasNew;
}

function triggerInstruction(text: string, state: StageState): Instruction {
  const { instructions, problems } = parseFile(text);
  if (problems[0] !== undefined) throw problems[0];
  const node = instructions[0];
  if (node === undefined || instructions.length !== 1) {
    throw new Problem("onbuild trigger should be a single expression");
  }
  const lines = state.stage.location.map((range) => range.start.line);
  return parseTrigger({ ...node, startLine: lines[0] ?? 0, endLine: lines.at(-1) ?? 0 });
}

/** Paths to limit a local source to; none when everything is used. */
export function followPaths(paths: ReadonlySet<string>): string[] {
  if (paths.has("/")) return [];
  return [...paths].map((path) => path.replace(/^\/+/, "")).sort(compareUtf8);
}
