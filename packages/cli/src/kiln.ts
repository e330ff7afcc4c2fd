import { BuildError } from "@kiln/base";
import type { Terminal } from "./command/command.ts";
import type { FlagSpec } from "./command/flags.ts";
import { runProgram } from "./command/run.ts";
import { kilnCommands } from "./kiln-commands.ts";
import { warn } from "./log.ts";
import { reportError } from "./report-error.ts";

/** Signals that are taken as a wish to stop; the third one ends the program at once. */
const MAX_SIGNALS = 3;

/** Runs `kiln` on this machine. Resolves to the exit code. */
export async function runKiln(argv: readonly string[]): Promise<number> {
  const terminal: Terminal = {
    stdin: process.stdin,
    stdout: process.stdout,
    stderr: process.stderr,
    env: process.env,
    cwd: () => process.cwd(),
  };
  const debug = argv.includes("--debug") || argv.includes("-D");
  const name = (process.env.KILN_ARGV0 ?? "kiln").replace(/^docker-buildx$/, "buildx");
  const program = {
    name,
    root: kilnCommands,
    globals: globalFlags(process.env),
    warn: (message: string) => warn(terminal.stderr, message),
  };
  ignoreClosedPipes();
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

/** Aborts on the first SIGINT or SIGTERM. */
export function stopSignal(): AbortSignal {
  const controller = new AbortController();
  let count = 0;
  const onSignal = (): void => {
    count++;
    controller.abort(new BuildError("canceled", "context canceled"));
    if (count >= MAX_SIGNALS) process.exit(1);
  };
  process.on("SIGINT", onSignal);
  process.on("SIGTERM", onSignal);
  return controller.signal;
}

/** A reader that goes away (`kiln … | head`) ends the program quietly. */
export function ignoreClosedPipes(): void {
  for (const stream of [process.stdout, process.stderr]) {
    stream.on("error", (error: NodeJS.ErrnoException) => {
      if (error.code !== "EPIPE") throw error;
      process.exit(process.exitCode ?? 0);
    });
  }
}
