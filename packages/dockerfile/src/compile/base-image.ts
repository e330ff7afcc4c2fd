import { isBuildError } from "@kiln/base";
import { quoteGo, withSuggestion } from "@kiln/formats";
import { EnvList, image as imageSource, scratch } from "@kiln/llb";
import {
  formatPlatformAll,
  formatReference,
  type Platform,
  parseReference,
  type Reference,
  withDefaultTag,
  withDigest,
} from "@kiln/oci";
import { Problem, withLocation } from "../base/problem.ts";
import { checkBasePlatform } from "./checks.ts";
import type { CompileContext } from "./context.ts";
import { followPaths, reachableFrom } from "./graph.ts";
import { cloneImage, emptyImage, type Image, parseImage } from "./image.ts";
import { namedContextFor } from "./named.ts";
import { stepName } from "./names.ts";
import type { StageState } from "./stage-state.ts";

/**
 * Finds the base images of all stages that have none among the stages, at the same time. Those of stages
 * that the target doesn't need only get a name. Returns what the target needs.
 */
export async function resolveBases(context: CompileContext, target: StageState): Promise<Set<StageState>> {
  const reachable = reachableFrom(target);
  const work: Promise<void>[] = [];
  for (const state of context.stages.all) {
    if (state.base !== undefined || state.isDispatched || state.isResolved) continue;
    const isNeeded = reachable.has(state) || context.settings.allStages;
    state.isResolved = isNeeded;
    if (state.baseName === "scratch" && state.namedContext === undefined) {
      state.state = scratch();
      state.image = emptyImage(context.targetPlatform);
      state.platform = context.targetPlatform;
      if (state.isImplied) state.isDispatched = true;
      continue;
    }
    work.push(resolveBase(context, state, isNeeded));
  }
  const outcomes = await Promise.allSettled(work);
  for (const outcome of outcomes) if (outcome.status === "rejected") throw outcome.reason;
  return reachable;
}

async function resolveBase(context: CompileContext, state: StageState, isNeeded: boolean): Promise<void> {
  try {
    await resolve(context, state, isNeeded);
  } catch (error) {
    throw withLocation(asProblem(error), state.stage.location);
  } finally {
    if (state.isImplied) state.isDispatched = true;
  }
}

/** Errors of the daemon get a position too. */
function asProblem(error: unknown): unknown {
  return isBuildError(error) ? new Problem(error.message, { code: error.code, cause: error }) : error;
}

async function resolve(context: CompileContext, state: StageState, isNeeded: boolean): Promise<void> {
  const original = state.baseName;
  const ref = parseName(original);
  const platform = state.platform ?? context.targetPlatform;
  state.baseName = formatReference(withDefaultTag(ref));
  let found: FoundBase = { platform, isScratch: false };
  if (isNeeded) {
    if (state.namedContext !== undefined) return replaceStage(state);
    if (await replaceBase(context, state, platform)) return;
    found = await findImage(context, state, { ref, original, platform });
  }
  state.platform = found.platform;
  if (found.isScratch) {
    state.state = scratch();
    return;
  }
  state.state = imageSource(state.baseName, {
    description: { "com.docker.dockerfile.v1.command": state.stage.code },
    platform: found.platform,
    resolveMode: context.settings.resolveMode,
    name: stepName(state, `FROM ${state.baseName}`, { platform: found.platform, variables: EnvList.of() }),
    location: { map: context.sourceMap, ranges: state.stage.location },
  });
  if (!isNeeded) return;
  const options = { location: state.stage.location, linter: context.linter };
  checkBasePlatform({ name: original, platform: state.image.platform }, found.platform, options);
}

function parseName(name: string): Reference {
  try {
    return parseReference(name);
  } catch (error) {
    if (!isBuildError(error)) throw error;
    throw new Problem(`failed to parse stage name ${quoteGo(name)}: ${error.message}`);
  }
}

/** A named context instead of the whole stage. */
async function replaceStage(state: StageState): Promise<void> {
  const { state: files, image } = await state.namedContext!.load();
  state.isDispatched = true;
  state.state = files;
  if (image === undefined) return;
  state.image = { ...image, created: undefined };
  if (image.platform.architecture !== "" && image.platform.os !== "") state.platform = image.platform;
}

/** A named context instead of the base image. */
async function replaceBase(context: CompileContext, state: StageState, platform: Platform): Promise<boolean> {
  const named = namedContextFor(context, state.baseName, {
    platform,
    resolveMode: context.settings.resolveMode,
    followPaths: () => followPaths(state.paths),
  });
  if (named === undefined) return false;
  const loaded = await named.load();
  const image = loaded.image ?? emptyImage(platform);
  state.baseImage = cloneImage(image);
  state.image = { ...image, created: undefined };
  state.state = loaded.state.setPlatform(platform);
  state.platform = platform;
  return true;
}

interface FoundBase {
  readonly platform: Platform;
  readonly isScratch: boolean;
}

async function findImage(
  context: CompileContext,
  state: StageState,
  wanted: { readonly ref: Reference; readonly original: string; readonly platform: Platform },
): Promise<FoundBase> {
  const prefix = context.settings.multiPlatform
    ? `[${formatPlatformAll(wanted.platform)} internal]`
    : "[internal]";
  const answer = await resolveImage(context, state, {
    original: wanted.original,
    platform: wanted.platform,
    logName: `${prefix} load metadata for ${state.baseName}`,
  });
  let ref = wanted.ref;
  if (formatReference(ref) !== answer.ref) ref = parseAnswer(answer.ref);
  const image = parseImage(answer.config);
  state.baseImage = cloneImage(image);
  image.created = undefined;
  state.image = image;
  if (answer.digest !== undefined) ref = withDigest(ref, answer.digest);
  state.baseName = formatReference(ref);
  const platform =
    state.platform === undefined && context.isImplicitTarget
      ? detectPlatform(image, wanted.platform, context.buildPlatforms)
      : wanted.platform;
  return { platform, isScratch: hasNoLayers(image) };
}

async function resolveImage(
  context: CompileContext,
  state: StageState,
  options: { readonly original: string; readonly platform: Platform; readonly logName: string },
) {
  const { original, platform, logName } = options;
  try {
    const resolveMode = context.settings.resolveMode;
    const answer = await context.host.resolveImage(state.baseName, { platform, resolveMode, logName });
    if ("redirect" in answer) throw new Problem(`could not resolve image: updated to ${answer.redirect}`);
    return answer;
  } catch (error) {
    const problem = asProblem(error);
    if (!(problem instanceof Problem)) throw error;
    const names = [...context.stages.names(), ...COMMON_IMAGES];
    const message = withSuggestion(`${original}: ${problem.message}`, original, names, true);
    throw new Problem(message, { code: problem.code, locations: problem.locations, cause: problem.cause });
  }
}

function parseAnswer(ref: string): Reference {
  try {
    return parseReference(ref);
  } catch (error) {
    if (!isBuildError(error)) throw error;
    throw new Problem(`failed to parse ref ${quoteGo(ref)}: ${error.message}`);
  }
}

/** Images of schema 1 may lack diff ids, so the history counts too. */
function hasNoLayers(image: Image): boolean {
  return (image.rootfs.diffIds ?? []).length === 0 && image.history.every((entry) => entry.emptyLayer);
}

function detectPlatform(image: Image, wanted: Platform, supported: readonly Platform[]): Platform {
  const { os, architecture } = image.platform;
  if (wanted.os === os && wanted.architecture === architecture) return wanted;
  return supported.find((p) => p.os === os && p.architecture === architecture) ?? wanted;
}

/** Suggestions for misspelt names. */
const COMMON_IMAGES: readonly string[] = [
  "alpine",
  "busybox",
  "centos",
  "debian",
  "golang",
  "ubuntu",
  "fedora",
].flatMap((name) => [name, `docker.io/library${name}`, `${name}:latest`, `docker.io/library${name}:latest`]);
