import { isBuildError, redactUrls } from "@kiln/base";
import { newId, quoteGo } from "@kiln/formats";
import {
  basePath,
  Cap,
  type CopyAction,
  git,
  http,
  joinPath,
  merge,
  type OpOptions,
  parseGoUrl,
  type State,
  scratch,
} from "@kiln/llb";
import { digestProblem, type Platform } from "@kiln/oci";
import { bytesFromText } from "../base/bytes.ts";
import { type GitRef, isGitRef, parseGitRef } from "../base/git-ref.ts";
import { cut } from "../base/go-text.ts";
import { isOsAbsolute, normalizePath, toSlash, withoutDrive } from "../base/os-path.ts";
import { Problem, wrapProblem } from "../base/problem.ts";
import type { AddInstruction, CopyInstruction } from "../instructions/types.ts";
import { checkIgnored } from "./checks.ts";
import { parseChmod } from "./chmod.ts";
import type { StepContext } from "./context.ts";
import { addHistory } from "./history.ts";
import { expandName, stepName, upperFirstWord } from "./names.ts";
import type { StageState } from "./stage-state.ts";

/** A COPY or ADD with the stage that it takes files from. */
export interface CopyStep {
  readonly instruction: AddInstruction | CopyInstruction;
  readonly source: StageState | undefined;
}

/** What the actions of one instruction share. */
interface Plan {
  readonly context: StepContext;
  readonly state: StageState;
  readonly step: CopyStep;
  readonly platform: Platform;
  readonly dest: string;
  readonly name: string;
  readonly common: Pick<CopyAction, "owner" | "mode" | "excludePatterns" | "createDestPath">;
  /** From one git source to the next, as BuildKit carries them. */
  keepGitDir: boolean | undefined;
  checksum: string;
}

/** COPY and ADD. */
export function applyCopy(context: StepContext, state: StageState, step: CopyStep): void {
  const { instruction, source } = step;
  if (source !== undefined && !source.isDispatched) {
    const from = instruction.kind === "copy" ? instruction.from : "";
    throw new Problem(
      `cannot copy from stage ${quoteGo(from)}, it needs to be defined before current stage ${quoteGo(state.label)}`,
    );
  }
  compileCopy(context, state, step);
  for (const path of instruction.sources) {
    if (instruction.kind === "add" && /^https?:\/\//.test(path)) continue;
    (source?.paths ?? state.contextPaths).add(joinPath("/", path));
  }
}

function compileCopy(context: StepContext, state: StageState, step: CopyStep): void {
  const { instruction } = step;
  const platform = state.platform!;
  const dest = destination(state.state.dir, instruction.dest, platform.os);
  const mode = instruction.chmod === "" ? undefined : parseChmod(instruction.chmod);
  checkChecksum(instruction);
  const { env } = state.state;
  const shown = upperFirstWord(expandName(instruction.code, env, context.lex));
  const plan: Plan = {
    context,
    state,
    step,
    platform,
    dest,
    name: stepName(state, shown, { platform, variables: env }),
    common: {
      owner: instruction.chown === "" ? undefined : instruction.chown,
      mode,
      excludePatterns: instruction.exclude,
      createDestPath: true,
    },
    keepGitDir: instruction.kind === "add" ? instruction.keepGitDir : undefined,
    checksum: instruction.kind === "add" ? instruction.checksum : "",
  };
  const actions = [
    ...instruction.sources.map((source) => sourceAction(plan, source)),
    ...inlineActions(plan),
  ];
  commitFiles(plan, actions, shown);
  const text = historyText(instruction);
  addHistory(state, `${redactUrls(text)} # buildkit`, { isLayer: true, epochSeconds: context.epochSeconds });
}

function checkChecksum(instruction: AddInstruction | CopyInstruction): void {
  if (instruction.kind !== "add" || instruction.checksum === "") return;
  const [source, ...more] = instruction.sources;
  if (source === undefined || more.length > 0) {
    throw new Problem("checksum can't be specified for multiple sources");
  }
  if (!isHttp(source) && !isGitRef(source)) throw new Problem("checksum requires HTTP(S) or Git sources");
}

function historyText(instruction: AddInstruction | CopyInstruction): string {
  const words = [instruction.kind.toUpperCase()];
  if (instruction.kind === "copy" && instruction.parents) words.push("--parents");
  if (instruction.chown !== "") words.push(`--chown=${instruction.chown}`);
  if (instruction.chmod !== "") words.push(`--chmod=${instruction.chmod}`);
  words.push(...instruction.sources, ...instruction.files.map(({ path }) => `<<${path}`), instruction.dest);
  return words.join(" ");
}

/** A path in the stage, with its trailing slash. */
function destination(dir: string, path: string, os: string): string {
  const clean = noDrive(path, os, true);
  if (isOsAbsolute(clean, os)) return normalizePath("/", clean, { os, keepSlash: true });
  return normalizePath(dir, clean === "." || clean === "" ? "./" : clean, { os, keepSlash: true });
}

function noDrive(path: string, os: string, keepSlash: boolean): string {
  try {
    return withoutDrive(path, os, keepSlash);
  } catch (error) {
    throw wrapProblem(error, "removing drive letter");
  }
}

function rooted(path: string, os: string): string {
  try {
    return normalizePath("/", path, { os, keepSlash: false });
  } catch (error) {
    throw wrapProblem(error, "removing drive letter");
  }
}

/** True for a web address that is no git repository. */
export function isHttp(source: string): boolean {
  return /^https?:\/\//.test(source) && !isGitRef(source);
}

function sourceAction(plan: Plan, source: string): CopyAction {
  const isAdd = plan.step.instruction.kind === "add";
  const ref = parseGitRef(source);
  if (ref !== undefined && !ref.looksLocal) {
    if (!isAdd) throw new Problem("source can't be a git ref for COPY");
    return gitAction(plan, ref);
  }
  if (isHttp(source)) {
    if (!isAdd) throw new Problem("source can't be a URL for COPY");
    return httpAction(plan, source);
  }
  return fileAction(plan, source);
}

function gitAction(plan: Plan, ref: GitRef): CopyAction {
  if (plan.keepGitDir !== undefined && ref.keepGitDir !== undefined && plan.keepGitDir !== ref.keepGitDir) {
    throw new Problem("inconsistent keep-git-dir configuration");
  }
  plan.keepGitDir = ref.keepGitDir ?? plan.keepGitDir;
  if (plan.checksum !== "" && ref.checksum !== "" && plan.checksum !== ref.checksum) {
    throw new Problem(`checksum mismatch ${quoteGo(plan.checksum)} != ${quoteGo(ref.checksum)}`);
  }
  if (ref.checksum !== "") plan.checksum = ref.checksum;
  const from = git(ref.remote, {
    name: plan.name,
    ref: ref.ref,
    subdir: ref.subdir,
    advice: plan.context.settings.gitAdvice,
    keepGitDir: plan.keepGitDir,
    checksum: plan.checksum,
    skipSubmodules: ref.submodules === false,
    fetchByCommit: ref.fetchByCommit,
  });
  return { kind: "copy", from, src: "/", dest: plan.dest, ...plan.common };
}

/** The last part of a URL's path. */
export function httpFilename(url: string): string {
  try {
    const base = basePath(parseGoUrl(url).path);
    return base === "." || base === "/" ? "__unnamed__" : base;
  } catch (error) {
    if (isBuildError(error)) return "__unnamed__";
    throw error;
  }
}

function httpAction(plan: Plan, url: string): CopyAction {
  const { instruction } = plan.step;
  const filename = httpFilename(url);
  const problem = plan.checksum === "" ? undefined : digestProblem(plan.checksum);
  if (problem !== undefined) throw new Problem(problem);
  const from = http(url, {
    filename,
    name: plan.name,
    checksum: plan.checksum,
    description: { "com.docker.dockerfile.v1.command": "" },
  });
  const attemptUnpack = instruction.kind === "add" && instruction.unpack === true;
  return { kind: "copy", from, src: filename, dest: plan.dest, attemptUnpack, ...plan.common };
}

function fileAction(plan: Plan, path: string): CopyAction {
  const { context, step, platform } = plan;
  const { instruction, source } = step;
  const isAdd = instruction.kind === "add";
  checkIgnored(path, source === undefined ? context.ignore : undefined, {
    keyword: isAdd ? "Add" : "Copy",
    location: instruction.location,
    linter: context.linter,
  });
  const { src, ...patterns } =
    instruction.kind === "copy" && instruction.parents
      ? parentPatterns(path, platform.os)
      : { src: path, includePatterns: [], requiredPaths: [] };
  const unpack = instruction.kind === "add" ? (instruction.unpack ?? true) : false;
  return {
    kind: "copy",
    from: source === undefined ? context.buildContext : source.state,
    src: rooted(src, platform.os),
    dest: plan.dest,
    followSymlinks: true,
    contentsOnly: true,
    attemptUnpack: unpack,
    allowWildcard: true,
    allowEmptyWildcard: true,
    ...patterns,
    ...plan.common,
  };
}

/** `--parents`: what is kept of the path begins behind `/./`. */
function parentPatterns(path: string, os: string) {
  const [before, behind, hasPivot] = cut(path, "/./");
  const src = hasPivot ? before : "/";
  const pattern = rooted(hasPivot ? behind : path, os);
  const isFixed = !hasWildcards(src) && !hasWildcards(pattern);
  return {
    src,
    includePatterns: [pattern.replace(/^\//, "")],
    requiredPaths: isFixed ? [rooted(joinPath(src, pattern), os)] : [],
  };
}

function hasWildcards(path: string): boolean {
  return /^(?:[^*?[\\]|\\[\s\S])*[*?[]/.test(path);
}

function inlineActions(plan: Plan): CopyAction[] {
  const { os } = plan.platform;
  return plan.step.instruction.files.map(({ path, data }) => {
    const name = noDrive(path, os, false);
    const from: State = scratch().file(
      { kind: "mkfile", path: name, mode: 0o644, data: bytesFromText(data) },
      { name: "[internal] preparing inline document" },
    );
    return { kind: "copy", from, src: toSlash(name, os), dest: plan.dest, ...plan.common };
  });
}

/** Writes the files on the stage, or with `--link` beside it, to be laid over it. */
function commitFiles(plan: Plan, actions: readonly CopyAction[], shown: string): void {
  const { context, state, platform } = plan;
  const { instruction } = plan.step;
  const variables = state.state.env;
  const options: OpOptions = {
    name: plan.name,
    location: { map: context.sourceMap, ranges: instruction.location },
    ignoreCache: state.ignoreCache,
  };
  if (!instruction.link || instruction.chmod !== "" || !context.host.llbCaps.has(Cap.mergeOp)) {
    state.state = state.state.file(actions, options);
    return;
  }
  const id = newId();
  state.step--;
  const name = stepName(state, shown, { platform, variables });
  const copied = scratch().file(actions, { ...options, progressGroup: { id, name, weak: true } });
  state.step--;
  const merged = merge([state.state, copied], {
    ...options,
    progressGroup: { id, name },
    name: stepName(state, `LINK ${shown}`, { platform, variables }),
  });
  state.state = state.state.withOutput(merged.output);
}
