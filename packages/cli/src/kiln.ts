import type { Command } from "./command/command.ts";
import type { FlagSpec } from "./command/flags.ts";
import { runProgram } from "./command/run.ts";
import { warn } from "./log.ts";
import { reportError } from "./report-error.ts";
import { standardTerminal } from "./standard-terminal.ts";
import { stopSignal } from "./stop-signal.ts";
import { useSystemRandom } from "./system-random.ts";

/** Runs one of `kiln`'s commands on this machine. Resolves to the exit code. */
export async function runKiln(root: Command, argv: readonly string[]): Promise<number> {
  const terminal = standardTerminal();
  useSystemRandom();
  const debug = argv.includes("--debug") || argv.includes("-D");
  const name = (process.env.KILN_ARGV0 ?? "kiln").replace(/^docker-buildx$/, "buildx");
  const program = {
    name,
    root,
    globals: globalFlags(process.env),
    warn: (message: string) => warn(terminal.stderr, message),
  };
  try {
    return await runProgram(program, argv, { terminal, signal: stopSignal() });
  } catch (error) {
    return await reportError(error, terminal.stderr, debug);
  }
}

function globalFlags(env: NodeJS.ProcessEnv): FlagSpec[] {
  const builder: FlagSpec = {
    name: "builder",
    kind: "string",
    usage: "Override the configured builder instance",
  };
  return [
    env.BUILDX_BUILDER ? { ...builder, defaultValue: env.BUILDX_BUILDER } : builder,
    { name: "debug", short: "D", kind: "bool", usage: "Enable debug logging" },
  ];
}
