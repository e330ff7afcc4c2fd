import { quoteGo } from "@kiln/formats";
import { type EnvList, git, http, type State } from "@kiln/llb";
import { digestProblem } from "@kiln/oci";
import { parseGitRef } from "../base/git-ref.ts";
import { equalFold } from "../base/go-text.ts";
import { Problem, withLocation, wrapProblem } from "../base/problem.ts";
import type { AddInstruction, ArgInstruction, Stage } from "../instructions/types.ts";
import { expand, type LexOptions } from "../shell/lex.ts";
import type { CompileInput } from "./compile.ts";
import { httpFilename, isHttp } from "./copy.ts";

const KEY = "SOURCE_DATE_EPOCH";

/** `SOURCE_DATE_EPOCH` as seconds, and the arguments with it in place of what was given. */
export interface Epoch {
  readonly seconds: bigint | undefined;
  readonly buildArgs: ReadonlyMap<string, string>;
  readonly globalArgs: EnvList;
}

/** What the epoch is found with. */
export interface EpochInput extends CompileInput {
  readonly lex: LexOptions;
  readonly stages: readonly Stage[];
  readonly globalArgs: EnvList;
}

/** Reads the epoch: an integer, `context`, a named context, or a stage with one remote ADD. */
export async function resolveEpoch(input: EpochInput): Promise<Epoch> {
  const { buildArgs } = input.settings;
  const given = buildArgs.get(KEY) ?? (input.globalArgs.get(KEY) || undefined);
  if (given === undefined) return { seconds: undefined, buildArgs, globalArgs: input.globalArgs };
  const seconds = await secondsOf(input, given);
  const text = seconds === undefined ? "" : String(seconds);
  const args = new Map(buildArgs);
  if (args.has(KEY)) {
    if (text === "") args.delete(KEY);
    else args.set(KEY, text);
  }
  let { globalArgs } = input;
  if (globalArgs.has(KEY)) globalArgs = text === "" ? globalArgs.delete(KEY) : globalArgs.set(KEY, text);
  return { seconds, buildArgs: args, globalArgs };
}

async function secondsOf(input: EpochInput, value: string): Promise<bigint | undefined> {
  if (value === "") return undefined;
  const number = /^[+-]?[0-9]{1,20}$/.test(value) ? BigInt(value.replace("+", "")) : undefined;
  if (number !== undefined && BigInt.asIntN(64, number) === number) return number;
  const { state, logName } = await sourceOf(input, value);
  return input.host.epochOf?.(state, logName);
}

async function sourceOf(input: EpochInput, value: string): Promise<{ state: State; logName: string }> {
  if (value === "context") {
    const state = await input.host.mainContext([]);
    return { state, logName: "[internal] resolve main build context metadata" };
  }
  const named = input.host.namedContext(value, {});
  if (named !== undefined) {
    const { state } = await named.load();
    return { state, logName: `[internal] resolve ${KEY} named context ${value}` };
  }
  const stage = input.stages.find(({ name }) => equalFold(name, value));
  if (stage === undefined) throw new Problem(`invalid ${KEY}: ${value}`);
  try {
    const state = stageSource(input, stage);
    return { state, logName: `[internal] resolve ${KEY} source stage ${stage.name}` };
  } catch (error) {
    throw withLocation(error, stage.location);
  }
}

function stageSource(input: EpochInput, stage: Stage): State {
  let args = input.globalArgs.delete(KEY);
  let base: string;
  try {
    base = expand(stage.baseName, args, input.lex).text;
  } catch (error) {
    throw wrapProblem(error, `failed to process source stage base name ${quoteGo(stage.baseName)}`);
  }
  if (base !== "scratch") throw new Problem(`${KEY} stage must use FROM scratch`);
  let found: State | undefined;
  for (const instruction of stage.instructions) {
    if (instruction.kind === "arg") args = withArgs(input, args, instruction);
    else if (instruction.kind !== "add") {
      throw new Problem(
        `${KEY} stage does not meet source-only requirements: unsupported ${instruction.name} instruction`,
      );
    } else if (found !== undefined) throw new Problem(`${KEY} stage must contain exactly one remote ADD`);
    else found = addSource(input, args, instruction);
  }
  if (found === undefined) throw new Problem(`${KEY} stage must contain exactly one remote ADD`);
  return found;
}

function withArgs(input: EpochInput, args: EnvList, instruction: ArgInstruction): EnvList {
  let out = args;
  for (const { key, value } of instruction.args) {
    const given = input.settings.buildArgs.get(key);
    if (given !== undefined) out = out.set(key, given);
    else if (value !== undefined) out = out.set(key, expand(value, out, input.lex).text);
  }
  return out;
}

function addSource(input: EpochInput, args: EnvList, add: AddInstruction): State {
  const [first, ...more] = add.sources;
  if (first === undefined || more.length > 0 || add.files.length > 0) {
    throw new Problem(`${KEY} stage must contain exactly one remote ADD source`);
  }
  const source = expand(first, args, input.lex).text;
  const checksum = expand(add.checksum, args, input.lex).text;
  if (isHttp(source)) {
    const problem = checksum === "" ? undefined : digestProblem(checksum);
    if (problem !== undefined) throw new Problem(problem);
    return http(source, { filename: httpFilename(source), checksum });
  }
  const ref = parseGitRef(source);
  if (ref === undefined || ref.looksLocal) {
    throw new Problem(`${KEY} stage source must be a single HTTP(S) or Git ADD`);
  }
  return git(ref.remote, {
    ref: ref.ref,
    subdir: ref.subdir,
    advice: input.settings.gitAdvice,
    keepGitDir: add.keepGitDir === true || ref.keepGitDir === true,
    checksum: checksum === "" ? ref.checksum : checksum,
    skipSubmodules: ref.submodules === false,
  });
}
