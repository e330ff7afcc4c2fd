import { LazyOutput, type MarshalOptions, type SourceMap, State } from "@kiln/llb";
import { normalizePlatform, type Platform } from "@kiln/oci";
import { PatternMatcher } from "@kiln/patterns";
import { textFromBytes } from "../base/bytes.ts";
import { lineRanges, Problem } from "../base/problem.ts";
import { parseInstructions } from "../instructions/parse.ts";
import type { Stage } from "../instructions/types.ts";
import { type LintConfig, Linter, type LintWarning, parseLintOptions } from "../lint/linter.ts";
import { rules, texts } from "../lint/rules.ts";
import { findDirective } from "../syntax/directives.ts";
import { parseFile } from "../syntax/parser.ts";
import { resolveBases } from "./base-image.ts";
import { checkCasing, checkCircles, checkDefaultBases, checkStageNames } from "./checks.ts";
import type { BuildSettings, CompileContext } from "./context.ts";
import { compileStage, inherit } from "./dispatch.ts";
import { resolveEpoch } from "./epoch.ts";
import { automaticArgs, globalArgs, proxyEnvOf } from "./global-args.ts";
import {
  buildStages,
  connectStages,
  followPaths,
  reachableFrom,
  replayTriggers,
  targetStage,
} from "./graph.ts";
import type { CompileHost } from "./host.ts";
import type { Image } from "./image.ts";
import { Stages } from "./stage-list.ts";
import type { ArgInfo, StageState } from "./stage-state.ts";

/** What {@link compile} takes. */
export interface CompileInput {
  /** The Dockerfile, with its bytes and how it can be read again. */
  readonly sourceMap: SourceMap;
  readonly settings: BuildSettings;
  readonly host: CompileHost;
  /** Instead of the `# check=` directive. */
  readonly lint?: LintConfig | undefined;
  /** Gets findings as they come up. */
  readonly report?: ((warning: LintWarning) => void) | undefined;
}

/** A compiled target. */
export interface Compiled {
  readonly state: State;
  /** Options that the state is to be marshalled with. */
  readonly marshal: MarshalOptions;
  readonly image: Image;
  /** The base image's config; undefined for scratch. */
  readonly baseImage: Image | undefined;
  readonly epochSeconds: bigint | undefined;
  /** Further file systems to scan for an SBOM, by name. */
  readonly scans: ReadonlyMap<string, State>;
  readonly ignoresCache: boolean;
  /** For outlines. */
  readonly target: StageState;
}

interface Prepared {
  readonly context: CompileContext;
  readonly target: StageState;
  readonly setContext: (context: State) => void;
}

/** Compiles a Dockerfile to LLB. Throws a problem for the first mistake, as BuildKit does. */
export async function compile(input: CompileInput): Promise<Compiled> {
  const { context, target, setContext } = await prepare(input);
  const reachable = await resolveStages(context, target);
  const contextPaths = await compileStages(context, reachable);
  target.paths.add("/");
  await finish(context, target, { contextPaths, setContext });
  const scans = new Map<string, State>();
  if (target.scansContext) scans.set("context", context.buildContext);
  let ignoresCache = target.ignoreCache;
  for (const stage of reachableFrom(target)) {
    if (stage === target || !stage.scansStage) continue;
    scans.set(stage.label, stage.state);
    ignoresCache ||= stage.ignoreCache;
  }
  return {
    state: target.state,
    marshal: { platform: context.targetPlatform, caps: context.host.llbCaps },
    image: target.image,
    baseImage: target.baseImage,
    epochSeconds: context.epochSeconds,
    scans,
    ignoresCache,
    target,
  };
}

async function prepare(input: CompileInput): Promise<Prepared> {
  const text = textFromBytes(input.sourceMap.data);
  if (text === "") throw new Problem("the Dockerfile cannot be empty");
  const linter = new Linter(input.lint ?? checkDirective(text), input.report);
  const file = parseFile(text);
  if (file.problems[0] !== undefined) throw file.problems[0];
  for (const line of file.emptyContinuations) {
    linter.run(rules.noEmptyContinuation, lineRanges(line, line), texts.noEmptyContinuation());
  }
  const dockerfile = parseInstructions(file.instructions, linter);
  if (dockerfile.problems[0] !== undefined) throw dockerfile.problems[0];
  const { stages } = dockerfile;
  if (stages.length === 0) throw new Problem("dockerfile contains no stages to build");
  checkStageNames(stages, linter);
  checkCasing(stages, linter);

  const { settings } = input;
  const platforms = platformsOf(settings);
  const lex = { escapeToken: file.escapeToken };
  const automatic = automaticArgs(platforms.build[0]!, platforms.target, {
    overrides: settings.buildArgs,
    stage: settings.target === "" ? stages.at(-1)!.name : settings.target,
  });
  checkDefaultBases(stages, dockerfile.globalArgs, { args: automatic, lex, linter });
  const globals = globalArgs(automatic, dockerfile.globalArgs, { lex, buildArgs: settings.buildArgs });
  const epoch = await resolveEpoch({ ...input, lex, stages, globalArgs: globals.args });
  let real: State | undefined;
  const context: CompileContext = {
    settings,
    host: input.host,
    sourceMap: input.sourceMap,
    linter,
    lex,
    buildArgs: epoch.buildArgs,
    globalArgs: epoch.globalArgs,
    epochSeconds: epoch.seconds,
    targetPlatform: platforms.target,
    buildPlatforms: platforms.build,
    isImplicitTarget: settings.targetPlatform === undefined,
    proxyEnv: proxyEnvOf(epoch.buildArgs),
    stages: new Stages(),
    buildContext: State.of(new LazyOutput(() => real?.output)),
  };
  const target = connect(context, stages, globals.infos);
  return {
    context,
    target,
    setContext: (state) => {
      real = state;
    },
  };
}

function checkDirective(text: string): LintConfig {
  try {
    return parseLintOptions(findDirective("check", text)?.value ?? "");
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    throw new Problem(`failed to parse check options: ${error.message}`);
  }
}

function connect(
  context: CompileContext,
  stages: readonly Stage[],
  infos: ReadonlyMap<string, ArgInfo>,
): StageState {
  buildStages(context, stages, infos);
  const target = targetStage(context);
  connectStages(context);
  checkCircles(context.stages.all);
  // A lone stage needs no name.
  const [only, ...more] = context.stages.all;
  if (only !== undefined && more.length === 0) only.label = "";
  return target;
}

function platformsOf(settings: BuildSettings): { build: readonly Platform[]; target: Platform } {
  const fallback: Platform = settings.targetPlatform ?? { os: "linux", architecture: "amd64" };
  const build = settings.buildPlatforms.length > 0 ? settings.buildPlatforms : [fallback];
  return { build, target: settings.targetPlatform ?? build[0]! };
}

/** Finds base images until triggers bring up no new ones. */
async function resolveStages(context: CompileContext, target: StageState): Promise<Set<StageState>> {
  for (;;) {
    const reachable = await resolveBases(context, target);
    let hasNew = false;
    for (const stage of context.stages.all) {
      if (!reachable.has(stage)) continue;
      inherit(stage);
      if (replayTriggers(context, stage)) hasNew = true;
    }
    if (!hasNew) return reachable;
  }
}

async function compileStages(context: CompileContext, reachable: Set<StageState>): Promise<Set<string>> {
  const patterns = await context.host.ignorePatterns();
  const ignore = patterns.length > 0 ? new PatternMatcher(patterns) : undefined;
  const contextPaths = new Set<string>();
  for (const stage of context.stages.all) {
    if (!context.settings.allStages && (!reachable.has(stage) || stage.isDispatched)) continue;
    compileStage({ ...context, ignore }, stage);
    for (const path of stage.contextPaths) contextPaths.add(path);
  }
  return contextPaths;
}

async function finish(
  context: CompileContext,
  target: StageState,
  rest: { readonly contextPaths: ReadonlySet<string>; readonly setContext: (state: State) => void },
): Promise<void> {
  const { image } = target;
  for (const [key, value] of context.settings.labels) image.config.labels.set(key, value);
  const problem = context.linter.problem();
  if (problem !== undefined) throw problem;
  rest.setContext(await context.host.mainContext(followPaths(rest.contextPaths)));
  if (!context.isImplicitTarget) image.platform = adjusted(image.platform, context.targetPlatform);
  image.platform = normalizePlatform(image.platform);
}

/** The image is for the platform that was asked for, whatever its base is for. */
function adjusted(own: Platform, target: Platform): Platform {
  const isSame = own.os === target.os && own.architecture === target.architecture;
  return {
    os: target.os,
    architecture: target.architecture,
    variant: target.variant || !isSame ? target.variant : own.variant,
    "os.version": target["os.version"] || !isSame ? target["os.version"] : own["os.version"],
    "os.features": target["os.features"] ?? own["os.features"],
  };
}
