import type { ArgDefinition, ArgInstruction } from "../instructions/types.ts";
import { tryExpand } from "../shell/lex.ts";
import { checkSecretName, checkVariables, NON_ENV_ARGS } from "./checks.ts";
import type { StepContext } from "./context.ts";
import { addHistory } from "./history.ts";
import type { StageState } from "./stage-state.ts";

/** ARG inside a stage. */
export function applyArg(context: StepContext, state: StageState, instruction: ArgInstruction): void {
  const texts = instruction.args.map((arg) => applyOne(context, state, { arg, instruction }));
  addHistory(state, `ARG ${texts.join(" ")}`, { epochSeconds: context.epochSeconds });
}

function applyOne(
  context: StepContext,
  state: StageState,
  { arg, instruction }: { arg: ArgDefinition; instruction: ArgInstruction },
): string {
  checkSecretName("ARG", arg.key, { location: instruction.location, linter: context.linter });
  const given = context.buildArgs.get(arg.key);
  let value = given ?? arg.value;
  let isInherited = false;
  if (given === undefined && arg.value !== undefined)
    value = expandDefault(context, state, { arg, instruction });
  else if (given === undefined) {
    value = context.globalArgs.get(arg.key);
    isInherited = value !== undefined;
  }
  const definition = { ...arg, value };
  if (value !== undefined && !NON_ENV_ARGS.has(arg.key)) state.state = state.state.setEnv(arg.key, value);
  if (!isInherited) {
    const info = { definition, value: value ?? "", uses: new Set<string>(), location: instruction.location };
    state.notes.args.set(arg.key, info);
  }
  state.notes.used.add(arg.key);
  state.buildArgs.push(definition);
  return value === undefined ? arg.key : `${arg.key}=${value}`;
}

function expandDefault(
  context: StepContext,
  state: StageState,
  { arg, instruction }: { arg: ArgDefinition; instruction: ArgInstruction },
): string {
  const { env } = state.state;
  const { text, unmatched, problem } = tryExpand(arg.value!, env, context.lex);
  checkVariables(instruction, unmatched, { stage: state, variables: env, linter: context.linter });
  if (problem !== undefined) throw problem;
  return text;
}
