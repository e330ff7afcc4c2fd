import type { EnvList } from "@kiln/llb";
import { defaultPathEnv } from "@kiln/oci";
import { parseBool } from "../base/go-text.ts";
import { withLocation } from "../base/problem.ts";
import { parseMount } from "../instructions/mount.ts";
import type { Instruction, KeyValue, RunMount, SourcesAndDest } from "../instructions/types.ts";
import { type LexOptions, tryExpand } from "../shell/lex.ts";
import { applyArg } from "./arg.ts";
import { checkVariables } from "./checks.ts";
import {
  applyCmd,
  applyEntrypoint,
  applyEnv,
  applyHealthcheck,
  applyLabel,
  applyMaintainer,
  applyShell,
  applyStopSignal,
  applyUser,
  applyVolume,
} from "./config-instructions.ts";
import type { CompileContext, StepContext } from "./context.ts";
import { applyCopy } from "./copy.ts";
import { applyExpose } from "./expose.ts";
import { cloneImage } from "./image.ts";
import { applyRun } from "./run.ts";
import type { StageState, Step } from "./stage-state.ts";
import { applyWorkdir } from "./workdir.ts";

/** Takes over what the base stage has come to. */
export function inherit(state: StageState): void {
  const { base } = state;
  if (base === undefined) return;
  state.state = base.state;
  state.platform = base.platform;
  state.image = cloneImage(base.image);
  // Triggers of the base ran here already, or will.
  state.image.config.onBuild = [];
  state.baseImage = base.baseImage && cloneImage(base.baseImage);
  // The base's files are used through this stage.
  state.paths = base.paths;
  state.hasWorkdir = base.hasWorkdir;
  state.buildArgs = [...state.buildArgs, ...base.buildArgs];
}

/** Compiles a stage: its base's settings, then every step. */
export function compileStage(context: StepContext, state: StageState): void {
  inherit(state);
  state.isDispatched = true;
  // A stage on a context without platform gets none from BuildKit either.
  state.platform ??= { architecture: "", os: "" };
  applyImageSettings(context, state);
  for (const step of state.steps) {
    try {
      applyStep(withComments(context, step), state, step);
    } catch (error) {
      throw withLocation(error, step.instruction.location);
    }
  }
  noteScans(context, state);
}

function withComments(context: StepContext, step: Step): StepContext {
  return { ...context, linter: context.linter.withComments(step.instruction.comments) };
}

function applyImageSettings(context: StepContext, state: StageState): void {
  const { config } = state.image;
  const os = state.platform?.os ?? "";
  if (os !== "windows" && !config.env.some((entry) => /^PATH(?:=|$)/.test(entry))) {
    config.env.push(`PATH=${defaultPathEnv(os)}`);
  }
  for (const entry of config.env) {
    const equals = entry.indexOf("=");
    const key = equals < 0 ? entry : entry.slice(0, equals);
    state.state = state.state.setEnv(key, equals < 0 ? "" : entry.slice(equals + 1));
  }
  if (context.settings.hostname !== "") state.state = state.state.setHostname(context.settings.hostname);
  try {
    if (config.workingDir !== "") applyWorkdir(context, state, { path: config.workingDir });
  } catch (error) {
    throw withLocation(error, state.stage.location);
  }
  if (config.user !== "") state.state = state.state.setUser(config.user);
  state.state = state.state.setNetwork(context.settings.networkMode);
}

/** Whether the stage, or its context, is to be scanned for an SBOM. */
function noteScans(context: CompileContext, state: StageState): void {
  state.scansContext = isScanned(context, state, "BUILDKIT_SBOM_SCAN_CONTEXT");
  state.scansStage = isScanned(context, state, "BUILDKIT_SBOM_SCAN_STAGE");
}

function isScanned(context: CompileContext, state: StageState, name: string): boolean {
  let value = context.globalArgs.get(name);
  for (const arg of state.buildArgs) if (arg.key === name && arg.value !== undefined) value = arg.value;
  if (value === undefined) return false;
  return parseBool(value) ?? value.split(",").includes(state.label);
}

function applyStep(context: StepContext, state: StageState, step: Step): void {
  state.isReplaying = step.isReplayed;
  const instruction = expanded(context, state, step.instruction);
  switch (instruction.kind) {
    case "add":
    case "copy":
      applyCopy(context, state, { instruction, source: step.sources[0] });
      return;
    case "run":
      applyRun(context, state, { run: instruction, sources: step.sources });
      return;
    case "arg":
      applyArg(context, state, instruction);
      return;
    case "workdir":
      applyWorkdir(context, state, instruction);
      return;
    case "expose":
      applyExpose(context, state, instruction);
      return;
    case "onbuild":
      state.image.config.onBuild.push(instruction.expression);
      return;
    default:
      applyConfig(context, state, instruction);
  }
}

type ConfigInstruction = Exclude<
  Instruction,
  { kind: "add" | "copy" | "run" | "arg" | "workdir" | "expose" | "onbuild" }
>;

function applyConfig(context: StepContext, state: StageState, instruction: ConfigInstruction): void {
  switch (instruction.kind) {
    case "cmd":
      applyCmd(context, state, instruction);
      return;
    case "entrypoint":
      applyEntrypoint(context, state, instruction);
      return;
    case "env":
      applyEnv(context, state, instruction);
      return;
    case "healthcheck":
      applyHealthcheck(context, state, instruction);
      return;
    case "label":
      applyLabel(context, state, instruction);
      return;
    case "maintainer":
      applyMaintainer(context, state, instruction);
      return;
    case "shell":
      applyShell(context, state, instruction);
      return;
    case "stopsignal":
      applyStopSignal(context, state, instruction);
      return;
    case "user":
      applyUser(context, state, instruction);
      return;
    case "volume":
      applyVolume(context, state, instruction);
      return;
  }
}

/** Heredocs keep their quotes and know one escape character only. */
const RAW: LexOptions = { escapeToken: "\\", skipQuotes: true };

/** The instruction with variables replaced where the language allows them. */
function expanded(context: StepContext, state: StageState, instruction: Instruction): Instruction {
  const { env } = state.state;
  const one = expander(context, state, { instruction, env, lex: context.lex });
  switch (instruction.kind) {
    case "add":
    case "copy": {
      const flags = { chown: one(instruction.chown), chmod: one(instruction.chmod) };
      const sum = instruction.kind === "add" ? { checksum: one(instruction.checksum) } : {};
      const raw = expander(context, state, { instruction, env, lex: RAW });
      return { ...instruction, ...flags, ...sum, ...expandSources(instruction, one, raw) };
    }
    case "env":
    case "label":
      return { ...instruction, pairs: instruction.pairs.map((pair) => expandPair(pair, one)) };
    case "run": {
      const mounts = instruction.mountFlags.map((flag): RunMount => parseMount(flag, one));
      return { ...instruction, mounts };
    }
    case "workdir":
      return { ...instruction, path: one(instruction.path) };
    case "user":
      return { ...instruction, user: one(instruction.user) };
    case "stopsignal":
      return { ...instruction, signal: one(instruction.signal) };
    case "volume":
      return { ...instruction, volumes: instruction.volumes.map(one) };
    default:
      return instruction;
  }
}

type Expander = (word: string) => string;

function expander(
  context: StepContext,
  state: StageState,
  how: { readonly instruction: Instruction; readonly env: EnvList; readonly lex: LexOptions },
): Expander {
  return (word) => {
    const { text, unmatched, problem } = tryExpand(word, how.env, how.lex);
    const options = { stage: state, variables: how.env, linter: context.linter };
    checkVariables(how.instruction, unmatched, options);
    if (problem !== undefined) throw problem;
    return text;
  };
}

function expandPair(pair: KeyValue, one: Expander): KeyValue {
  const key = one(pair.key);
  return { key, value: one(pair.value), legacy: pair.legacy };
}

function expandSources(from: SourcesAndDest, one: Expander, raw: Expander): SourcesAndDest {
  const sources = from.sources.map(one);
  const dest = one(from.dest);
  const files = from.files.map((file) => (file.expand ? { ...file, data: raw(file.data) } : file));
  return { sources, dest, files };
}
