import { isOsAbsolute, normalizeWorkdir, toSlash } from "../base/os-path.ts";
import type { WorkdirInstruction } from "../instructions/types.ts";
import { rules, texts } from "../lint/rules.ts";
import type { StepContext } from "./context.ts";
import { addHistory } from "./history.ts";
import { expandName, stepName, upperFirstWord } from "./names.ts";
import type { StageState } from "./stage-state.ts";

const NS_PER_SECOND = 1_000_000_000n;

/** WORKDIR; without an instruction it is the base image's, which makes no directory. */
export function applyWorkdir(
  context: StepContext,
  state: StageState,
  step: WorkdirInstruction | { readonly path: string },
): void {
  const platform = state.platform!;
  if ("kind" in step) {
    if (!state.hasWorkdir && !isOsAbsolute(step.path, platform.os)) {
      context.linter.run(rules.workdirRelativePath, step.location, texts.workdirRelativePath(step.path));
    }
    state.hasWorkdir = true;
  }
  const { config } = state.image;
  config.workingDir = normalizeWorkdir(config.workingDir, step.path, platform.os);
  const dir = toSlash(config.workingDir, platform.os);
  state.state = state.state.setDir(dir);
  if (!("kind" in step)) return;
  if (dir !== "/") makeDirectory(context, state, { dir, step });
  addHistory(state, `WORKDIR ${dir}`, { isLayer: dir !== "/", epochSeconds: context.epochSeconds });
}

function makeDirectory(
  context: StepContext,
  state: StageState,
  { dir, step }: { dir: string; step: WorkdirInstruction },
): void {
  const { user } = state.image.config;
  const { env } = state.state;
  const name = upperFirstWord(expandName(step.code, env, context.lex));
  state.state = state.state.file(
    {
      kind: "mkdir",
      path: dir,
      mode: 0o755,
      parents: true,
      owner: user === "" ? undefined : user,
      timestamp: context.epochSeconds === undefined ? undefined : context.epochSeconds * NS_PER_SECOND,
    },
    {
      name: stepName(state, name, { platform: state.platform, variables: env }),
      location: { map: context.sourceMap, ranges: step.location },
    },
  );
}
