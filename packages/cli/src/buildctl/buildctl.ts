import { errorMessage, isBuildError } from "@kiln/base";
import type { Command, TextSink } from "../command/command.ts";
import { ExitCode } from "../command/command.ts";
import type { FlagSpec } from "../command/flags.ts";
import { runProgram } from "../command/run.ts";
import { standardTerminal } from "../standard-terminal.ts";
import { stopSignal } from "../stop-signal.ts";
import { useSystemRandom } from "../system-random.ts";
import { buildctlHelp } from "./help.ts";

const text = (name: string, usage: string, defaultValue?: string): FlagSpec => ({
  name,
  kind: "string",
  usage,
  ...(defaultValue === undefined ? {} : { defaultValue }),
});

function globalFlags(env: NodeJS.ProcessEnv): FlagSpec[] {
  return [
    { name: "debug", kind: "bool", usage: "enable debug output in logs" },
    text("addr", "buildkitd address", env.BUILDKIT_HOST || "unix:///run/buildkit/buildkitd.sock"),
    text("log-format", "log formatter: json or text", "text"),
    text("tlsservername", "buildkitd server name for certificate validation"),
    text("tlscacert", "CA certificate for validation"),
    text("tlscert", "client certificate"),
    text("tlskey", "client key"),
    text(
      "tlsdir",
      "directory containing CA certificate, client certificate, and client key. Supported file names are (ca.pem, cert.pem, key.pem) or (ca.crt, tls.crt, tls.key)",
    ),
    text("timeout", "timeout backend connection after value seconds", "5"),
    { name: "wait", kind: "bool", usage: "block RPCs until the connection becomes available" },
  ];
}

const commands: Command = {
  name: "buildctl",
  short: "build utility",
  subcommands: [
    { name: "du", short: "disk usage", body: async () => (await import("./cache.ts")).duCommand },
    {
      name: "prune",
      short: "clean up build cache",
      body: async () => (await import("./cache.ts")).pruneCommand,
    },
    {
      name: "prune-histories",
      short: "clean up build histories",
      body: async () => (await import("./histories.ts")).pruneHistoriesCommand,
    },
    {
      name: "build",
      aliases: ["b"],
      short: "build",
      body: async () => (await import("./build.ts")).buildCommand,
    },
    {
      name: "debug",
      short: "debug utilities",
      subcommands: [
        {
          name: "dump-llb",
          short:
            "dump LLB in human-readable format. LLB can be also passed via stdin. This command does not require the daemon to be running.",
          body: async () => (await import("./dump-llb.ts")).dumpLlbCommand,
        },
        {
          name: "dump-metadata",
          short: "dump the meta in human-readable format.",
          body: async () => (await import("./dump-metadata.ts")).dumpMetadataCommand,
        },
        {
          name: "workers",
          short: "list workers",
          body: async () => (await import("./workers.ts")).workersCommand,
        },
        {
          name: "info",
          short: "display internal information",
          body: async () => (await import("./workers.ts")).infoCommand,
        },
        {
          name: "monitor",
          short: "display build events",
          body: async () => (await import("./histories.ts")).monitorCommand,
        },
        {
          name: "logs",
          short: "display build logs",
          body: async () => (await import("./histories.ts")).logsCommand,
        },
        {
          name: "ctl",
          short: "control build records",
          body: async () => (await import("./histories.ts")).ctlCommand,
        },
        {
          name: "get",
          short: "retrieve a blob from contentstore",
          body: async () => (await import("./histories.ts")).getCommand,
        },
        {
          name: "histories",
          short: "list build records",
          body: async () => (await import("./histories.ts")).historiesCommand,
        },
      ],
    },
    {
      name: "dial-stdio",
      short: "Proxy the stdio stream to the daemon connection. Should not be invoked manually.",
      hidden: true,
      body: async () => (await import("./dial-stdio.ts")).dialStdioCommand,
    },
  ],
};

/** Runs `buildctl` on this machine. Resolves to the exit code. */
export async function runBuildctl(argv: readonly string[]): Promise<number> {
  const terminal = standardTerminal();
  useSystemRandom();
  try {
    return await runProgram(
      {
        name: "buildctl",
        root: commands,
        globals: globalFlags(process.env),
        warn: (message) => terminal.stderr.write(`level=warning msg=${JSON.stringify(message)}\n`),
        style: "go",
        help: buildctlHelp,
      },
      argv,
      { terminal, signal: stopSignal() },
    );
  } catch (error) {
    return report(error, terminal.stderr, argv.includes("--debug"));
  }
}

async function report(error: unknown, output: TextSink, debug: boolean): Promise<number> {
  if (error instanceof ExitCode) return error.code;
  const [{ failureOf }, { sanitizeText, sourceExcerpt }] = await Promise.all([
    import("@kiln/client"),
    import("@kiln/progress"),
  ]);
  const { sources, denyMessages } = failureOf(error);
  let out = sources.map(({ source, ranges }) => sourceExcerpt(source, ranges)).join("");
  for (const message of denyMessages) out += `policy deny: ${sanitizeText(message)}\n`;
  out += `error: ${sanitizeText(errorMessage(error))}\n`;
  if (isBuildError(error) && error.hint !== undefined) out += `hint: ${error.hint}\n`;
  if (debug && error instanceof Error && error.stack) out += `${error.stack}\n`;
  output.write(out);
  return 1;
}
