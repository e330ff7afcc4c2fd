import { BuildError } from "@kiln/base";
import type { Command } from "./command/command.ts";

/** A command of Buildx that Kiln doesn't have: it says so by name. */
function unsupported(name: string): Command {
  return {
    name,
    short: "Not supported",
    hidden: true,
    body: () =>
      Promise.resolve({
        usage: "",
        flags: [],
        minArgs: 0,
        maxArgs: 0,
        takesAnything: true,
        run: () =>
          Promise.reject(new BuildError("unimplemented", `the command ${name} isn't supported by kiln yet`)),
      }),
  };
}

/** All commands of `kiln`; what each does loads when it's used. */
export const kilnCommands: Command = {
  name: "kiln",
  short: "Extended build capabilities with BuildKit",
  subcommands: [
    {
      name: "bake",
      aliases: ["f"],
      short: "Build from a file",
      body: async () => (await import("./bake/bake-command.ts")).bakeCommand,
    },
    {
      name: "build",
      aliases: ["b"],
      short: "Start a build",
      body: async () => (await import("./build/build-command.ts")).buildCommand,
    },
    {
      name: "check",
      short: "Check Dockerfiles, and correct them",
      body: async () => (await import("./check/check-command.ts")).checkCommand,
    },
    {
      name: "create",
      short: "Create a new builder instance",
      body: async () => (await import("./builders/create.ts")).createCommand,
    },
    {
      name: "dial-stdio",
      short: "Proxy current stdio streams to builder instance",
      body: async () => (await import("./builders/dial-stdio.ts")).dialStdioCommand,
    },
    {
      name: "du",
      short: "Disk usage",
      body: async () => (await import("./cache/du.ts")).duCommand,
    },
    {
      name: "history",
      short: "Commands to work on build records",
      subcommands: [
        {
          name: "export",
          short: "Export build records into Docker Desktop bundle",
          body: async () => (await import("./history/export.ts")).historyExportCommand,
        },
        {
          name: "import",
          short: "Import build records into Docker Desktop",
          body: async () => (await import("./history/import.ts")).historyImportCommand,
        },
        {
          name: "inspect",
          short: "Inspect a build record",
          body: async () => (await import("./history/inspect.ts")).historyInspectCommand,
          subcommands: [
            {
              name: "attachment",
              short: "Inspect a build record attachment",
              body: async () => (await import("./history/attachment.ts")).attachmentCommand,
            },
          ],
        },
        {
          name: "logs",
          short: "Print the logs of a build record",
          body: async () => (await import("./history/logs.ts")).historyLogsCommand,
        },
        {
          name: "ls",
          short: "List build records",
          body: async () => (await import("./history/ls.ts")).historyLsCommand,
        },
        {
          name: "open",
          short: "Open a build record in Docker Desktop",
          body: async () => (await import("./history/open.ts")).historyOpenCommand,
        },
        {
          name: "rm",
          short: "Remove build records",
          body: async () => (await import("./history/rm.ts")).historyRmCommand,
        },
        {
          name: "trace",
          short: "Show the OpenTelemetry trace of a build record",
          body: async () => (await import("./history/trace.ts")).historyTraceCommand,
        },
      ],
    },
    {
      name: "inspect",
      short: "Inspect current builder instance",
      body: async () => (await import("./builders/inspect.ts")).inspectCommand,
    },
    {
      name: "ls",
      short: "List builder instances",
      body: async () => (await import("./builders/ls.ts")).lsCommand,
    },
    {
      name: "prune",
      short: "Remove build cache",
      body: async () => (await import("./cache/prune.ts")).pruneCommand,
    },
    {
      name: "rm",
      short: "Remove one or more builder instances",
      body: async () => (await import("./builders/rm.ts")).rmCommand,
    },
    {
      name: "stop",
      short: "Stop builder instance",
      body: async () => (await import("./builders/stop.ts")).stopCommand,
    },
    {
      name: "use",
      short: "Set the current builder instance",
      body: async () => (await import("./builders/use.ts")).useCommand,
    },
    {
      name: "version",
      short: "Show version information",
      body: async () => (await import("./version-command.ts")).versionCommand,
    },
    ...["dap", "debug", "imagetools", "install", "policy", "replay", "uninstall"].map(unsupported),
  ],
};
