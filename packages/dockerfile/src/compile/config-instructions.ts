import { formatDuration, quoteGo } from "@kiln/formats";
import { upper } from "../base/go-text.ts";
import { Problem } from "../base/problem.ts";
import type {
  CmdInstruction,
  EntrypointInstruction,
  EnvInstruction,
  HealthcheckInstruction,
  LabelInstruction,
  MaintainerInstruction,
  ShellInstruction,
  StopSignalInstruction,
  UserInstruction,
  VolumeInstruction,
} from "../instructions/types.ts";
import { rules, texts } from "../lint/rules.ts";
import { checkOnce, checkSecretName } from "./checks.ts";
import type { StepContext } from "./context.ts";
import { addHistory } from "./history.ts";
import type { StageState } from "./stage-state.ts";

function commit(context: StepContext, state: StageState, text: string): void {
  addHistory(state, text, { epochSeconds: context.epochSeconds });
}

export function applyEnv(context: StepContext, state: StageState, env: EnvInstruction): void {
  for (const { key, value, legacy } of env.pairs) {
    if (legacy) {
      context.linter.run(rules.legacyKeyValueFormat, env.location, texts.legacyKeyValueFormat(env.name));
    }
    checkSecretName("ENV", key, { location: env.location, linter: context.linter });
    state.state = state.state.setEnv(key, value);
    setEnv(state.image.config.env, key, value);
  }
  commit(context, state, `ENV${env.pairs.map(({ key, value }) => ` ${key}=${value}`).join("")}`);
}

/** Replaces the variable where it stands, or appends it. */
function setEnv(env: string[], key: string, value: string): void {
  const entry = `${key}=${value}`;
  const prefix = `${key}=`;
  const at = env.findIndex((old) => old.startsWith(prefix) || old === key);
  if (at < 0) env.push(entry);
  else env[at] = entry;
}

export function applyLabel(context: StepContext, state: StageState, label: LabelInstruction): void {
  for (const { key, value, legacy } of label.pairs) {
    if (legacy) {
      context.linter.run(rules.legacyKeyValueFormat, label.location, texts.legacyKeyValueFormat(label.name));
    }
    state.image.config.labels.set(key, value);
  }
  commit(context, state, `LABEL${label.pairs.map(({ key, value }) => ` ${key}=${value}`).join("")}`);
}

export function applyMaintainer(context: StepContext, state: StageState, step: MaintainerInstruction): void {
  state.image.author = step.maintainer;
  commit(context, state, `MAINTAINER ${step.maintainer}`);
}

/** The shell that texts are handed to. */
export function shellOf(state: StageState): readonly string[] {
  if (state.image.config.shell.length > 0) return state.image.config.shell;
  return state.image.platform.os === "windows" ? ["cmd", "/S", "/C"] : ["/bin/sh", "-c"];
}

function commandOf(
  context: StepContext,
  state: StageState,
  step: CmdInstruction | EntrypointInstruction,
): readonly string[] {
  if (!step.command.shell) return step.command.args;
  if (state.image.config.shell.length === 0) {
    context.linter.run(rules.jsonArgsRecommended, step.location, texts.jsonArgsRecommended(step.name));
  }
  return [...shellOf(state), step.command.args.join(" ")];
}

function quoted(words: readonly string[]): string {
  return `[${words.map(quoteGo).join(" ")}]`;
}

export function applyCmd(context: StepContext, state: StageState, cmd: CmdInstruction): void {
  checkOnce(cmd, state.cmd, context.linter);
  const { config } = state.image;
  config.cmd = commandOf(context, state, cmd);
  config.argsEscaped = true;
  commit(context, state, `CMD ${quoted(config.cmd)}`);
}

export function applyEntrypoint(context: StepContext, state: StageState, step: EntrypointInstruction): void {
  checkOnce(step, state.entrypoint, context.linter);
  const { config } = state.image;
  config.entrypoint = commandOf(context, state, step);
  if (state.cmd.location === undefined) config.cmd = [];
  commit(context, state, `ENTRYPOINT ${quoted(config.entrypoint)}`);
}

export function applyHealthcheck(
  context: StepContext,
  state: StageState,
  step: HealthcheckInstruction,
): void {
  checkOnce(step, state.healthcheck, context.linter);
  state.image.config.healthcheck = {
    test: step.test,
    interval: step.intervalNs,
    timeout: step.timeoutNs,
    startPeriod: step.startPeriodNs,
    startInterval: step.startIntervalNs,
    retries: step.retries,
  };
  const fields = [
    `Test:[${step.test.join(" ")}]`,
    `Interval:${formatDuration(step.intervalNs)}`,
    `Timeout:${formatDuration(step.timeoutNs)}`,
    `StartPeriod:${formatDuration(step.startPeriodNs)}`,
    `StartInterval:${formatDuration(step.startIntervalNs)}`,
    `Retries:${step.retries}`,
  ];
  commit(context, state, `HEALTHCHECK {${fields.join(" ")}}`);
}

export function applyUser(context: StepContext, state: StageState, step: UserInstruction): void {
  state.state = state.state.setUser(step.user);
  state.image.config.user = step.user;
  commit(context, state, `USER ${step.user}`);
}

export function applyVolume(context: StepContext, state: StageState, step: VolumeInstruction): void {
  for (const volume of step.volumes) {
    if (volume === "") throw new Problem("VOLUME specified can not be an empty string");
    state.image.config.volumes.add(volume);
  }
  commit(context, state, `VOLUME [${step.volumes.join(" ")}]`);
}

const SIGNALS: ReadonlySet<string> = new Set(
  [
    "ABRT ALRM BUS CHLD CLD CONT FPE HUP ILL INT IO IOT KILL PIPE POLL PROF PWR QUIT SEGV STKFLT STOP SYS TERM",
    "TRAP TSTP TTIN TTOU URG USR1 USR2 VTALRM WINCH XCPU XFSZ RTMIN RTMAX",
  ]
    .join(" ")
    .split(" ")
    .concat(Array.from({ length: 15 }, (_, i) => `RTMIN+${i + 1}`))
    .concat(Array.from({ length: 14 }, (_, i) => `RTMAX-${i + 1}`)),
);

export function applyStopSignal(context: StepContext, state: StageState, step: StopSignalInstruction): void {
  const isNumber = /^[+-]?[0-9]{1,18}$/.test(step.signal);
  const name = upper(step.signal).replace(/^SIG/, "");
  if (isNumber ? Number(step.signal) === 0 : !SIGNALS.has(name)) {
    throw new Problem(`invalid signal: ${step.signal}`);
  }
  state.image.config.stopSignal = step.signal;
  commit(context, state, `STOPSIGNAL ${step.signal}`);
}

export function applyShell(context: StepContext, state: StageState, step: ShellInstruction): void {
  state.image.config.shell = step.shell;
  commit(context, state, `SHELL [${step.shell.join(" ")}]`);
}
