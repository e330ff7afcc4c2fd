import { Cap, type EnvList, type Mount, type RunOptions, scratch } from "@kiln/llb";
import { bytesFromText } from "../base/bytes.ts";
import { trimSpace } from "../base/go-text.ts";
import { Problem } from "../base/problem.ts";
import type { RunInstruction } from "../instructions/types.ts";
import type { Variables } from "../shell/lex.ts";
import { chompTabs, heredocIn } from "../syntax/heredoc.ts";
import { shellOf } from "./config-instructions.ts";
import type { StepContext } from "./context.ts";
import { addHistory, runHistory } from "./history.ts";
import { expandName, stepName, upperFirstWord } from "./names.ts";
import { runMounts } from "./run-mounts.ts";
import type { StageState } from "./stage-state.ts";

/** A RUN with the stages that its mounts come from. */
export interface RunStep {
  readonly run: RunInstruction;
  readonly sources: readonly StageState[];
}

/** RUN. */
export function applyRun(context: StepContext, state: StageState, step: RunStep): void {
  const { run } = step;
  // A process can use any file of its stage.
  state.paths.add("/");
  const script = scriptOf(state, run);
  const args = run.command.shell ? [...shellOf(state), script.words.join(" ")] : script.words;
  const access = runMounts(context, state, step);
  const { env } = state.state;
  const lex = { ...context.lex, rawQuotes: true, skipUnset: true };
  const shown = upperFirstWord(expandName(run.code + script.summary, maskSecrets(run, env), lex));
  const options: RunOptions = {
    args,
    ...daemonOptions(context, run),
    mounts: [...script.mounts, ...access.mounts, ...sharedMemory(context)],
    secrets: access.secrets,
    ssh: access.ssh,
    proxyEnv: context.proxyEnv,
    network: run.network === "default" ? undefined : run.network,
    security: run.security,
    ignoreCache: state.ignoreCache,
    description: { "com.docker.dockerfile.v1.command": run.code },
    name: stepName(state, shown, { platform: state.state.platform, variables: env }),
    location: { map: context.sourceMap, ranges: run.location },
  };
  state.state = state.state.run(options).root;
  const text = `RUN ${runHistory(args, state)} # buildkit`;
  addHistory(state, text, { isLayer: true, epochSeconds: context.epochSeconds });
}

interface Script {
  readonly words: readonly string[];
  readonly mounts: readonly Mount[];
  /** For the name: the first line of a heredoc. */
  readonly summary: string;
}

/** What a RUN executes: its words, or what its heredocs say. */
function scriptOf(state: StageState, run: RunInstruction): Script {
  const { args, files, shell } = run.command;
  const first = files[0];
  if (first === undefined) return { words: args, mounts: [], summary: "" };
  const text = args[0];
  if (text === undefined || args.length !== 1 || !shell) {
    throw new Problem(`parsing produced an invalid run command: [${args.join(" ")}]`);
  }
  if (heredocIn(text) === undefined) {
    // The shell reads the documents itself.
    const whole = text + files.map(({ data, name }) => `\n${data}${name}`).join("");
    return { words: [whole], mounts: [], summary: "" };
  }
  const data = first.chomp ? chompTabs(first.data) : first.data;
  const summary = ` (${summarize(first.data)})`;
  if (state.image.platform.os === "windows" || !data.startsWith("#!")) {
    return { words: [data], mounts: [], summary };
  }
  const file = scratch().file(
    { kind: "mkfile", path: first.name, mode: 0o755, data: bytesFromText(data) },
    { name: "[internal] preparing inline document" },
  );
  const mount: Mount = { target: "/dev/pipes/", source: file, selector: "/", readonly: true };
  return { words: [`/dev/pipes/${first.name}`], mounts: [mount], summary };
}

function summarize(text: string): string {
  const lines = trimSpace(text).replaceAll("\r\n", "\n").split("\n");
  return lines.length > 1 ? `${lines[0]}...` : lines[0]!;
}

/** Options of the request, as far as the daemon knows them. */
function daemonOptions(context: StepContext, run: RunInstruction): Partial<RunOptions> {
  const { llbCaps } = context.host;
  const { ulimits, devices, cgroupParent, linuxResources, extraHosts } = context.settings;
  const own = run.devices.map(({ name, required }) => ({ name, optional: !required }));
  return {
    extraHosts,
    ...(llbCaps.has(Cap.execMetaUlimit) ? { ulimits } : {}),
    ...(llbCaps.has(Cap.execMetaCdi) ? { devices: [...devices, ...own] } : {}),
    ...(llbCaps.has(Cap.execMetaCgroupParent) ? { cgroupParent } : {}),
    ...(llbCaps.has(Cap.execMetaLinuxResources) ? { linuxResources } : {}),
  };
}

function sharedMemory(context: StepContext): Mount[] {
  const size = context.settings.shmSize;
  if (size <= 0n || !context.host.llbCaps.has(Cap.execMountTmpfsSize)) return [];
  return [{ target: "/dev/shm", tmpfs: { size } }];
}

/** The environment with stars for variables that come from secrets. */
function maskSecrets(run: RunInstruction, env: EnvList): Variables {
  const secrets = run.mounts.flatMap(({ type, env: name }) =>
    type === "secret" && name !== undefined ? [name] : [],
  );
  if (secrets.length === 0) return env;
  const hidden = new Set(secrets);
  return {
    get: (name) => (hidden.has(name) ? "****" : env.get(name)),
    keys: () => [...env.keys().filter((name) => !hidden.has(name)), ...hidden],
  };
}
