/** `kiln bake`. */
import {
  type BakeDefinition,
  type BakeFailure,
  type BakeHost,
  type BakeOptions,
  type BakeOutcome,
  type BakePlan,
  type BuildRequest,
  checkOptions,
  ejectPlan,
  graphSvg,
  moduleDeclarations,
  readBake,
  readDefinition,
  warningTexts,
} from "@kiln/bake";
import { BuildError } from "@kiln/base";
import { type Builder, BuilderRegistry } from "@kiln/driver";
import { newId } from "@kiln/formats";
import { nodeBakeHost } from "../bake-host.ts";
import { chooseProgress, frontendCapError, refuseUnsupported } from "../build/build-command.ts";
import { commonBuildFlags } from "../build/build-flags.ts";
import type { FetchedTree } from "../build/inputs.ts";
import {
  decodeResponse,
  metadataProvenanceMode,
  warningsJson,
  writeMetadataFile,
} from "../build/metadata.ts";
import { isTrue } from "../build/outputs.ts";
import { callText } from "../build/parse-options.ts";
import { envBool, localPlatform } from "../build/request-from-flags.ts";
import { StdinSource } from "../build/stdin-source.ts";
import type { CommandBody, CommandContext } from "../command/command.ts";
import type { FlagSpec } from "../command/flags.ts";
import { kilndCommand } from "../kilnd-command.ts";
import { Printer } from "../printer.ts";
import { askForEntitlements } from "./ask-entitlements.ts";
import { definitionPermissions } from "./evaluate-definition.ts";
import { type Jobs, parseJobs } from "./jobs.ts";
import {
  type BakeArguments,
  type LoadedDefinition,
  loadDefinition,
  parseBakeArguments,
} from "./load-definition.ts";
import { StatusMerger } from "./prefix-status.ts";
import { printCalls } from "./print-calls.ts";
import { type Question, questionFlags, questionOf } from "./questions.ts";
import { runTargets, type TargetResults } from "./run-targets.ts";

const list = (name: string, usage: string, short?: string): FlagSpec => ({
  name,
  kind: "list",
  usage,
  ...(short === undefined ? {} : { short }),
});

/** The command. */
export const bakeCommand: CommandBody = {
  usage: "[OPTIONS] [TARGET...]",
  minArgs: 0,
  maxArgs: Number.POSITIVE_INFINITY,
  flags: [
    ...commonBuildFlags,
    ...questionFlags,
    list("allow", "Allow build to access specified resources"),
    list("file", "Build definition file", "f"),
    {
      name: "jobs",
      short: "j",
      kind: "string",
      usage:
        'Number of targets built at a time, and how failures count ("fail-fast", "defer-error", "defer-output")',
    },
    {
      name: "list-targets",
      kind: "bool",
      hidden: true,
      usage: "List available targets",
      deprecated: "list-targets is deprecated, use list=targets instead",
    },
    {
      name: "list-variables",
      kind: "bool",
      hidden: true,
      usage: "List defined variables",
      deprecated: "list-variables is deprecated, use list=variables instead",
    },
    { name: "load", kind: "bool", usage: 'Shorthand for "--set=*.output=type=docker". Conditional.' },
    list(
      "policy",
      'Global policy evaluation options (format: "[disabled=true|false][,strict=true|false][,log-level=level]")',
    ),
    { name: "provenance", kind: "string", usage: 'Shorthand for "--set=*.attest=type=provenance"' },
    { name: "push", kind: "bool", usage: 'Shorthand for "--set=*.output=type=registry". Conditional.' },
    { name: "sbom", kind: "string", usage: 'Shorthand for "--set=*.attest=type=sbom"' },
    list("set", 'Override target value (e.g., "targetpattern.key=value")'),
    list("var", 'Set a variable value (e.g., "name=value")'),
  ],
  run: runBake,
};

async function runBake(ctx: CommandContext): Promise<number> {
  const { flags, terminal } = ctx;
  const question = questionOf(flags);
  if (question.kind === "types") {
    terminal.stdout.write(moduleDeclarations());
    return 0;
  }
  const given = parseBakeArguments(ctx.args);
  const { permissions, others: allow } = definitionPermissions(flags.list("allow"));
  checkOptions({ ...bakeOptions(ctx, given, { files: [] }), allow });
  const jobs = parseJobs(flags.string("jobs"));
  const registry = new BuilderRegistry(terminal.env, kilndCommand(terminal.env));
  const builder =
    question.kind === "build" || given.url !== "" ? registry.find(flags.string("builder")) : undefined;
  const printer = newPrinter(ctx, builder);
  try {
    const host = nodeBakeHost({ cwd: terminal.cwd(), env: terminal.env, localPlatform: localPlatform() });
    const definition = await loadDefinition(ctx, { host, printer, builder, url: given.url, permissions });
    const { files } = definition;
    const options = { ...bakeOptions(ctx, given, definition), allow };
    if (question.kind === "list") {
      const read = unwrap<BakeDefinition>(readDefinition(files, host, options), printer, ctx);
      printer.end();
      terminal.stdout.write(read.list(question.request));
      return 0;
    }
    const plan = unwrap<BakePlan>(readBake(files, host, options), printer, ctx);
    if (question.kind === "keys" || question.kind === "changes") {
      const load = async (other: BakeHost): Promise<LoadedDefinition> =>
        loadDefinition(ctx, { host: other, printer, builder: undefined, url: "", permissions });
      const { answerKeys } = await import("./keys/answer-keys.ts");
      const { warn } = printer;
      const text = await answerKeys(ctx, { question, plan, host, options, load, warn, url: given.url });
      printer.end();
      terminal.stdout.write(text);
      return 0;
    }
    if (question.kind !== "build" || builder === undefined) {
      printer.end();
      terminal.stdout.write(withNewline(answerOf(question, plan)));
      return 0;
    }
    return await build(ctx, {
      plan,
      builder,
      registry,
      printer,
      jobs,
      targets: given.targets,
      tree: definition.tree,
    });
  } finally {
    printer.end();
    await Promise.all((builder?.nodes ?? []).map((node) => node.close()));
  }
}

function withNewline(text: string): string {
  return text.endsWith("\n") ? text : `${text}\n`;
}

function answerOf(question: Question, plan: BakePlan): string {
  if (question.kind === "eject") return ejectPlan(plan, question.format);
  return question.kind === "graph" ? graphSvg(plan.graph()) : plan.print();
}

function newPrinter(ctx: CommandContext, builder: Builder | undefined): Printer {
  return new Printer({
    mode: chooseProgress(ctx.flags.string("progress"), false).mode,
    output: ctx.terminal.stderr,
    env: ctx.terminal.env,
    debug: ctx.debug,
    ...(builder === undefined
      ? {}
      : {
          description: `building with ${JSON.stringify(builder.name)} instance using ${builder.driver} driver`,
          label: `${builder.driver}:${builder.name}`,
        }),
  });
}

function bakeOptions(ctx: CommandContext, given: BakeArguments, definition: LoadedDefinition): BakeOptions {
  const { flags } = ctx;
  return {
    targets: given.targets,
    commandContext: given.commandContext,
    ...(definition.remote === undefined ? {} : { remote: definition.remote }),
    set: flags.list("set"),
    vars: flags.list("var"),
    push: flags.bool("push"),
    load: flags.bool("load"),
    call: callText(flags),
    policy: flags.list("policy"),
    stdoutIsTerminal: ctx.terminal.stdout.isTTY === true,
    ...(flags.changed("no-cache") ? { noCache: flags.bool("no-cache") } : {}),
    ...(flags.changed("pull") ? { pull: flags.bool("pull") } : {}),
    ...(flags.string("sbom") === "" ? {} : { sbom: flags.string("sbom") }),
    ...(flags.string("provenance") === "" ? {} : { provenance: flags.string("provenance") }),
  };
}

function unwrap<T extends BakeDefinition>(outcome: BakeOutcome<T>, printer: Printer, ctx: CommandContext): T {
  const { diagnostics } = outcome.ok ? outcome.value : outcome;
  for (const text of warningTexts(diagnostics)) printer.warn(text);
  if (outcome.ok) return outcome.value;
  printer.end();
  const failure: BakeFailure = outcome.failure;
  if (failure.excerpt !== "") ctx.terminal.stderr.write(withNewline(failure.excerpt));
  throw new BuildError("invalid_argument", failure.message);
}

interface BakeRun {
  readonly plan: BakePlan;
  readonly builder: Builder;
  readonly registry: BuilderRegistry;
  readonly printer: Printer;
  readonly jobs: Jobs;
  /** What the user asked for. */
  readonly targets: readonly string[];
  /** What a remote definition came with. */
  readonly tree: FetchedTree | undefined;
}

async function build(ctx: CommandContext, run: BakeRun): Promise<number> {
  const { flags, terminal } = ctx;
  const { plan, builder, registry } = run;
  for (const request of plan.targets) refuseUnsupported(request, ctx);
  let { printer } = run;
  if (plan.entitlementPrompt !== undefined) {
    printer.end();
    await askForEntitlements(ctx, plan.entitlementPrompt);
    printer = newPrinter(ctx, builder);
  }
  const groupRef = newId();
  registry.store.localState.saveGroup(groupRef, [], run.targets);
  const metadataFile = flags.string("metadata-file");
  warnWithoutOutput(plan.targets, ctx, { builder, printer });
  let results: TargetResults;
  try {
    results = await runTargets(plan.targets, {
      builder,
      registry,
      env: terminal.env,
      rules: {
        push: false,
        load: false,
        allowsLocalDelete: true,
        stdoutIsTerminal: terminal.stdout.isTTY === true,
        cwd: terminal.cwd(),
      },
      stdin: new StdinSource(terminal.stdin),
      stdout: terminal.stdout,
      onStatus: printer.update,
      warn: printer.warn,
      signal: ctx.signal,
      provenance: metadataFile === "" ? "disabled" : metadataProvenanceMode(terminal.env),
      debug: ctx.debug,
      jobs: run.jobs,
      merger: new StatusMerger(printer.update),
      groupRef,
      ...(run.tree === undefined ? {} : { tree: run.tree }),
    });
  } finally {
    printer.end();
  }
  const keepsPartial = run.jobs.mode === "defer-error";
  if (metadataFile !== "" && (results.failure === undefined || keepsPartial)) {
    writeResults(metadataFile, results, { printer, ctx });
  }
  if (results.failure !== undefined) throw frontendCapError(results.failure) ?? results.failure;
  return printCalls(ctx, plan, results);
}

function writeResults(
  path: string,
  results: TargetResults,
  opts: { readonly printer: Printer; readonly ctx: CommandContext },
): void {
  const data = new Map<string, unknown>();
  for (const [name, { response }] of results.outcomes) data.set(name, decodeResponse(response));
  const { warnings } = opts.printer;
  if (warnings.length > 0 && isTrue(opts.ctx.terminal.env["BUILDX_METADATA_WARNINGS"])) {
    data.set("buildx.build.warnings", warningsJson(warnings));
  }
  writeMetadataFile(path, data);
}

function warnWithoutOutput(
  requests: readonly BuildRequest[],
  ctx: CommandContext,
  run: { readonly builder: Builder; readonly printer: Printer },
): void {
  const { builder, printer } = run;
  if (envBool(ctx.terminal.env, "BUILDX_NO_DEFAULT_LOAD")) return;
  if (builder.nodes.some((node) => node.driver.defaultLoad)) return;
  const names = requests
    .filter(({ outputs, call, linked }) => outputs.length === 0 && call === undefined && !linked)
    .map(({ name }) => name);
  if (names.length === 0) return;
  const which = names.length === 1 && names[0] === "default" ? "" : `for ${names.join(", ")} target(s) `;
  printer.warn(
    `No output specified ${which}with ${builder.driver} driver. Build result will only remain in the build cache. To push result image into registry use --push or to load image into docker use --load`,
  );
}
