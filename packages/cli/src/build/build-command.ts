import { rmSync } from "node:fs";
import type { BuildRequest } from "@kiln/bake";
import { BuildError, errorMessage, nodeReason } from "@kiln/base";
import { prefixed } from "@kiln/client";
import { BuilderRegistry } from "@kiln/driver";
import type { CommandBody, CommandContext } from "../command/command.ts";
import { usageError } from "../command/flags.ts";
import { kilndCommand } from "../kilnd-command.ts";
import { Printer } from "../printer.ts";
import { buildFlags } from "./build-flags.ts";
import { callOutput } from "./call-result.ts";
import {
  decodeResponse,
  imageId,
  metadataProvenanceMode,
  warningsJson,
  writeImageId,
  writeMetadataFile,
} from "./metadata.ts";
import { isTrue } from "./outputs.ts";
import { envBool, requestFromFlags } from "./request-from-flags.ts";
import { type BuildOutcome, runBuild } from "./run-build.ts";
import { StdinSource } from "./stdin-source.ts";

/** `kiln build`. */
export const buildCommand: CommandBody = {
  usage: "[OPTIONS] PATH | URL | -",
  flags: buildFlags,
  minArgs: 1,
  maxArgs: 1,
  run: runBuildCommand,
};

/** How progress is shown, and whether the image's id is printed at the end. */
export interface ProgressChoice {
  readonly mode: string;
  readonly printsId: boolean;
}

/** What `--progress` and `--quiet` ask for. */
export function chooseProgress(progress: string, quiet: boolean): ProgressChoice {
  if (progress === "quiet") return { mode: "quiet", printsId: true };
  if (!quiet) return { mode: progress === "none" ? "quiet" : progress, printsId: false };
  if (progress === "auto") return { mode: "quiet", printsId: true };
  if (progress === "none") return { mode: "quiet", printsId: true };
  throw usageError(`progress=${progress} and quiet cannot be used together`);
}

async function runBuildCommand(ctx: CommandContext): Promise<number> {
  const { flags, terminal } = ctx;
  const context = ctx.args[0] as string;
  if (context === "") {
    throw usageError('failed to build: please specify build context (e.g. "." for the current directory)');
  }
  const { env } = terminal;
  const { request, allowsLocalDelete } = requestFromFlags(flags, context, env);
  refuseUnsupported(request, ctx);
  const iidFile = flags.string("iidfile");
  if (iidFile !== "") removeStale(iidFile);
  const registry = new BuilderRegistry(env, kilndCommand(env));
  const builder = registry.find(flags.string("builder"));
  const choice = chooseProgress(flags.string("progress"), flags.bool("quiet"));
  const printer = new Printer({
    mode: choice.mode,
    output: terminal.stderr,
    env,
    debug: ctx.debug,
    description: `building with ${JSON.stringify(builder.name)} instance using ${builder.driver} driver`,
    label: `${builder.driver}:${builder.name}`,
  });
  const metadataFile = flags.string("metadata-file");
  let outcome: BuildOutcome;
  try {
    outcome = await runBuild(request, {
      builder,
      registry,
      env,
      rules: {
        push: flags.bool("push"),
        load: flags.bool("load"),
        allowsLocalDelete,
        stdoutIsTerminal: terminal.stdout.isTTY === true,
        cwd: terminal.cwd(),
      },
      stdin: new StdinSource({ [Symbol.asyncIterator]: () => terminal.stdin[Symbol.asyncIterator]() }),
      stdout: terminal.stdout,
      onStatus: printer.update,
      warn: printer.warn,
      signal: ctx.signal,
      provenance: request.call || metadataFile === "" ? "disabled" : metadataProvenanceMode(env),
      debug: ctx.debug,
    });
  } catch (error) {
    printer.end();
    throw prefixed(frontendCapError(error) ?? error, "failed to build");
  } finally {
    printer.end();
    await Promise.all(builder.nodes.map((node) => node.close()));
  }
  return finishCommand(ctx, { request, outcome, printer, choice });
}

function finishCommand(
  ctx: CommandContext,
  build: {
    readonly request: BuildRequest;
    readonly outcome: BuildOutcome;
    readonly printer: Printer;
    readonly choice: ProgressChoice;
  },
): number {
  const { flags, terminal } = ctx;
  const { request, outcome, printer, choice } = build;
  const { response } = outcome;
  if (choice.printsId && request.call === undefined) terminal.stdout.write(`${imageId(response)}\n`);
  const iidFile = flags.string("iidfile");
  if (iidFile !== "") writeImageId(iidFile, imageId(response));
  const metadataFile = flags.string("metadata-file");
  if (metadataFile !== "") {
    const data = decodeResponse(response);
    const { warnings } = printer;
    if (
      request.call === undefined &&
      warnings.length > 0 &&
      isTrue(terminal.env["BUILDX_METADATA_WARNINGS"])
    ) {
      data.set("buildx.build.warnings", warningsJson(warnings));
    }
    writeMetadataFile(metadataFile, data);
  }
  if (request.call) {
    const output = callOutput(request.call, response, outcome.dockerfileLabel);
    terminal.stdout.write(output.text);
    if (output.failure) throw output.failure;
    if (output.exitCode !== 0) return output.exitCode;
  }
  const message = response.get("frontend.result.inlinemessage");
  if (message !== undefined) terminal.stdout.write(`\n${message}\n`);
  return 0;
}

function removeStale(path: string): void {
  try {
    rmSync(path, { force: true });
  } catch (error) {
    throw new BuildError("unknown", `removing image ID file: remove ${path}: ${nodeReason(error)}`, {
      cause: error,
    });
  }
}

/** Refuses, by name, what a later version of Kiln will do. */
export function refuseUnsupported(request: BuildRequest, ctx: CommandContext): void {
  const refuse = (what: string): never => {
    throw new BuildError("unimplemented", `${what} isn't supported by kiln yet`);
  };
  if (request.policy.some(({ disabled }) => !disabled)) refuse("--policy");
  if (envBool(ctx.terminal.env, "BUILDX_SEND_GIT_QUERY_AS_INPUT")) refuse("BUILDX_SEND_GIT_QUERY_AS_INPUT");
}

/** Old frontends don't know named contexts: a message that says what to do about it. */
export function frontendCapError(error: unknown): BuildError | undefined {
  const message = errorMessage(error);
  if (message.includes("unsupported frontend capability moby.buildkit.frontend.contexts")) {
    return new BuildError(
      "unimplemented",
      "current frontend does not support --build-context. Named contexts are supported since Dockerfile v1.4. Use #syntax directive in Dockerfile or update to latest BuildKit.",
      { cause: error },
    );
  }
  if (message.includes("unsupported frontend capability moby.buildkit.frontend.gitquerystring")) {
    return new BuildError(
      "unimplemented",
      "current frontend does not support Git URLs with query string components. Git URLs with query string are supported since Dockerfile v1.18 and BuildKit v0.24. Use BUILDKIT_SYNTAX build-arg, #syntax directive in Dockerfile or update to latest BuildKit.",
      { cause: error },
    );
  }
  return undefined;
}
