import { BuildError, errorMessage, isBuildError } from "@kiln/base";
import {
  compareStrings,
  type Diagnostic,
  DiagnosticsError,
  decodeSource,
  type Expression,
  errorAt,
  formatDiagnostics,
  formatExcerpt,
  type HclFile,
  hasErrors,
  MergedBody,
  parseHcl,
  parseHclJson,
  WorkLimitError,
} from "@kiln/hcl";
import { composeEnvironment, isComposeFile } from "./compose/environment.ts";
import { readCompose } from "./compose/read-compose.ts";
import type { Grants } from "./fields/field.ts";
import type { RequestHost } from "./fields/request-draft.ts";
import { type ContextBase, type Group, Target } from "./fields/target.ts";
import { TARGET_FIELDS, targetFields } from "./fields/target-fields.ts";
import { fileRelativePaths } from "./files.ts";
import { type BakeFlags, flagOverrides, parseVariables } from "./flags.ts";
import type { BakeFile, BakeHost } from "./host.ts";
import type { BlockOutput } from "./language/block-kinds.ts";
import { evaluate, type VariableInfo } from "./language/evaluator.ts";
import { ignoredItems, unsetVariables } from "./language/hints.ts";
import { buildRequest, type RemoteDefinition } from "./output/build-request.ts";
import {
  type EntitlementPrompt,
  type Entitlements,
  missingEntitlements,
  parseEntitlements,
  promptFor,
} from "./output/entitlements.ts";
import { parseListRequest, printDefinition, printList } from "./output/print.ts";
import { dirName, isRemoteUrl } from "./paths.ts";
import { cut, fail, parseBool } from "./problem.ts";
import type { BuildRequest } from "./request.ts";
import { Config, expandName, Resolver, rebaseContexts } from "./resolve/config.ts";
import { graphOf } from "./resolve/graph-source.ts";
import { loadLinks } from "./resolve/links.ts";
import { parseOverrides } from "./resolve/overrides.ts";
import { masking } from "./sensitive.ts";
import type { GraphSource } from "./tools/graph.ts";

/** What a user asks of a definition. */
export interface BakeOptions extends BakeFlags {
  /** Names and patterns of targets and groups; `default` when there are none. */
  readonly targets?: readonly string[];
  /** `--set` texts, in order. */
  readonly set?: readonly string[];
  /** `--var` texts. */
  readonly vars?: readonly string[];
  /** `--allow` texts. */
  readonly allow?: readonly string[];
  /** `BAKE_CMD_CONTEXT`; `cwd://` when absent. */
  readonly commandContext?: string;
  /** Where the definition was fetched from. */
  readonly remote?: RemoteDefinition;
  readonly stdoutIsTerminal?: boolean;
}

/** Why a definition can't be used, as buildx words it. */
export interface BakeFailure {
  readonly message: string;
  /** The source around the first problem; "" when it has no place. */
  readonly excerpt: string;
}

/** A definition that has been read. */
export interface BakeDefinition {
  /** `--list` text for `targets`, `type=variables,format=json` and the like. */
  list(request: string): string;
  readonly variables: readonly VariableInfo[];
  readonly targetNames: readonly string[];
  readonly groupNames: readonly string[];
  /** Warnings, and all errors with their places. */
  readonly diagnostics: readonly Diagnostic[];
}

/** The builds that were asked for. */
export interface BakePlan extends BakeDefinition {
  /** In the order of their names. */
  readonly targets: readonly BuildRequest[];
  readonly groups: ReadonlyMap<string, Group>;
  /** `--print` text. */
  print(): string;
  /** What `graphSvg` draws: with groups, and with what the targets inherit from. */
  graph(): GraphSource;
  /** Permissions that are needed and weren't granted. */
  readonly requiredEntitlements: Entitlements;
  /** The question to ask about them; `undefined` when nothing is missing. */
  readonly entitlementPrompt: EntitlementPrompt | undefined;
}

/** A result, or why there is none. */
export type BakeOutcome<T> =
  | { readonly ok: true; readonly value: T }
  | { readonly ok: false; readonly failure: BakeFailure; readonly diagnostics: readonly Diagnostic[] };

interface Parsed {
  readonly config: Config;
  readonly variables: readonly VariableInfo[];
  readonly warnings: readonly Diagnostic[];
}

/** Checks what can be checked of the options before any file is read. @throws BuildError */
export function checkOptions(options: BakeOptions): void {
  flagOverrides(options);
  parseEntitlements(options.allow ?? []);
}

/** Reads a definition without choosing targets, for `--list`. */
export function readDefinition(
  files: readonly BakeFile[],
  host: BakeHost,
  options: BakeOptions = {},
): BakeOutcome<BakeDefinition> {
  return guarded(files, { host, options }, (unset) =>
    definitionOf(parseFiles(files, host, { ...options, unset })),
  );
}

function definitionOf({ config, variables, warnings }: Parsed): BakeDefinition {
  return {
    variables,
    targetNames: config.targets.map(({ name }) => name),
    groupNames: config.groups.map(({ name }) => name),
    diagnostics: warnings,
    list: (request) => printList(parseListRequest(request), config, variables),
  };
}

/**
 * Reads a definition and works out the builds that the options ask for. Nothing outside the host is touched, and
 * mistakes in the files come back as a failure.
 */
export function readBake(
  files: readonly BakeFile[],
  host: BakeHost,
  options: BakeOptions = {},
): BakeOutcome<BakePlan> {
  return guarded(files, { host, options }, (unset) => {
    const parsed = parseFiles(files, host, { ...options, unset });
    return { ...definitionOf(parsed), ...plan(parsed.config, host, options) };
  });
}

function guarded<T>(
  files: readonly BakeFile[],
  { host, options }: { readonly host: BakeHost; readonly options: BakeOptions },
  work: (unset: Set<string>) => T,
): BakeOutcome<T> {
  const unset = new Set<string>();
  try {
    return { ok: true, value: work(unset) };
  } catch (error) {
    return masked(failureOf(error, files, unsetVariables(unset)), host, options);
  }
}

type Failed = Extract<BakeOutcome<never>, { readonly ok: false }>;

/** Values of variables that are secrets by their names don't show. */
function masked({ failure, diagnostics }: Failed, host: BakeHost, options: BakeOptions): Failed {
  const given = (options.vars ?? [])
    .map((text) => cut(text, "="))
    .map(([name, value = ""]) => [name, value] as const);
  const mask = masking([...host.environ(), ...given]);
  return {
    ok: false,
    failure: { message: mask(failure.message), excerpt: mask(failure.excerpt) },
    diagnostics: diagnostics.map((problem) => ({ ...problem, detail: mask(problem.detail) })),
  };
}

function failureOf(error: unknown, files: readonly BakeFile[], warnings: readonly Diagnostic[]): Failed {
  if (error instanceof DiagnosticsError) {
    const { diagnostics } = error;
    return {
      ok: false,
      diagnostics: [...warnings, ...diagnostics],
      failure: { message: formatDiagnostics(diagnostics), excerpt: excerptOf(diagnostics, files) },
    };
  }
  const message = error instanceof RangeError ? rangeProblem(error) : errorMessage(error);
  const isExpected = isBuildError(error) || error instanceof RangeError || error instanceof WorkLimitError;
  if (!isExpected) throw error;
  return {
    ok: false,
    diagnostics: [...warnings, errorAt("Error", message, undefined)],
    failure: { message, excerpt: "" },
  };
}

/** What the engine says of too deep a recursion, or of too long a text, in the user's terms. */
function rangeProblem({ message }: RangeError): string {
  return message.includes("call stack") ? "the definition is nested too deeply" : message;
}

function excerptOf(diagnostics: readonly Diagnostic[], files: readonly BakeFile[]): string {
  const subject = diagnostics.find(
    ({ severity, subject: range }) => severity === "error" && range !== undefined,
  )?.subject;
  const file = files.find(({ name }) => name === subject?.filename);
  return subject === undefined || file === undefined ? "" : formatExcerpt(decodeSource(file.data), subject);
}

/** Whether variables may come from the environment. */
function environmentAllowed(host: BakeHost): boolean {
  return parseBool(host.env("BUILDX_BAKE_DISABLE_VARS_ENV_LOOKUP") ?? "") !== true;
}

interface ParseOptions extends BakeOptions {
  /** Gets the names of variables that Compose files use and that aren't set. */
  readonly unset: Set<string>;
}

function parseFiles(files: readonly BakeFile[], host: BakeHost, options: ParseOptions): Parsed {
  if (files.length === 0) fail("couldn't find a bake definition");
  const vars = parseVariables(options.vars ?? []);
  const relative = fileRelativePaths(host);
  const fromEnvironment = environmentAllowed(host);
  const { unset } = options;
  const { compose, native } = sortFiles(files, host, { vars, fromEnvironment, unset });
  const config = new Config();
  if (compose.length > 0) {
    const environment = composeEnvironment(host, vars, { fromEnvironment, unset });
    for (const group of readComposeInto(config, compose, environment, { host, relative, unset }))
      config.addGroup(group, false);
  }
  let variables: readonly VariableInfo[] = [];
  let warnings: readonly Diagnostic[] = [];
  if (native.length > 0) {
    const body = new MergedBody(native.map((file) => file.body));
    const builtins = new Map([
      ["BAKE_CMD_CONTEXT", options.commandContext ?? "cwd://"],
      ["BAKE_LOCAL_PLATFORM", host.localPlatform],
    ]);
    const lookup = (name: string): string | undefined =>
      vars.get(name) ?? (fromEnvironment ? host.env(name) : undefined);
    const evaluated = evaluate(body, { host, builtins, lookup });
    for (const output of evaluated.outputs) addOutput(config, output, relative);
    for (const [label, names] of evaluated.renamed) addRenamed(config, label, names);
    variables = evaluated.variables;
    warnings = ignoredItems(body);
  }
  if (relative) rebaseContexts(config);
  return { config, variables, warnings: [...unsetVariables(unset), ...warnings] };
}

interface SortOptions {
  readonly vars: ReadonlyMap<string, string>;
  readonly fromEnvironment: boolean;
  readonly unset: Set<string>;
}

function sortFiles(
  files: readonly BakeFile[],
  host: BakeHost,
  options: SortOptions,
): { compose: BakeFile[]; native: HclFile[] } {
  const compose: BakeFile[] = [];
  const native: HclFile[] = [];
  for (const file of files) {
    const kind = isComposeFile(file, () => composeEnvironment(host, options.vars, options), {
      host,
      unset: options.unset,
    });
    if (kind.compose) compose.push(file);
    else native.push(parseNative(file, kind.problem));
  }
  return { compose, native };
}

function parseNative({ name, data }: BakeFile, composeProblem: string | undefined): HclFile {
  const checked = (parsed: ReturnType<typeof parseHcl>): HclFile => {
    if (hasErrors(parsed.diagnostics)) throw new DiagnosticsError(parsed.diagnostics);
    return parsed.value;
  };
  if (name.endsWith(".json")) return checked(parseHclJson(data, name));
  if (name.endsWith(".hcl")) return checked(parseHcl(data, name));
  const native = parseHcl(data, `${name}.hcl`);
  if (!hasErrors(native.diagnostics)) return native.value;
  const json = parseHclJson(data, `${name}.json`);
  if (!hasErrors(json.diagnostics)) return json.value;
  const message = formatDiagnostics(native.diagnostics);
  if (composeProblem === undefined) throw new DiagnosticsError(native.diagnostics);
  throw new BuildError(
    "invalid_argument",
    `failed to parse ${name}: parsing yaml: ${composeProblem}, parsing hcl: ${message}`,
  );
}

function localDirectory(name: string): string | undefined {
  return name === "" || name === "-" || isRemoteUrl(name) ? undefined : dirName(name);
}

function readComposeInto(
  config: Config,
  files: readonly BakeFile[],
  environment: ReadonlyMap<string, string>,
  {
    relative,
    ...reading
  }: { readonly host: BakeHost; readonly relative: boolean; readonly unset: Set<string> },
): readonly Group[] {
  const { targets, groups } = readCompose(files, environment, reading);
  const base = relative ? localDirectory(files[0]?.name ?? "") : undefined;
  for (const target of targets) {
    if (base !== undefined) {
      const contexts = new Map([...(target.get(targetFields.contexts) ?? [])].map(([name]) => [name, base]));
      const own = target.get(targetFields.context) === undefined ? {} : { context: base };
      target.base = { fallback: base, useFallback: false, contexts, ...own };
    }
    config.addTarget(target);
  }
  return groups;
}

function addOutput(config: Config, output: BlockOutput, relative: boolean): void {
  if (output.kind === "group") {
    const targets = output.values.get("targets") as readonly string[] | undefined;
    const description = output.values.get("description");
    const unique = targets === undefined ? undefined : [...new Set(targets)];
    config.addGroup(
      { name: output.name, description: typeof description === "string" ? description : "", targets: unique },
      true,
    );
    return;
  }
  const target = new Target(output.name);
  for (const field of TARGET_FIELDS)
    if (output.values.has(field.name)) target.set(field, output.values.get(field.name));
  if (relative) target.base = contextBase(output, target);
  config.addTarget(target);
}

function contextBase({ block }: BlockOutput, target: Target): ContextBase {
  const directory = localDirectory(block.defRange.filename) ?? "";
  const schema = { attributes: [{ name: "context" }, { name: "contexts" }], blocks: [] };
  const { attributes } = block.body.partialContent(schema, []).content;
  const context = attributes.get("context");
  const reference = context === undefined ? undefined : referredTarget(context.expr);
  const contexts = new Map([...(target.get(targetFields.contexts) ?? [])].map(([name]) => [name, directory]));
  return {
    fallback: directory,
    useFallback: false,
    contexts,
    ...(context === undefined ? {} : { context: directory }),
    ...(reference === undefined ? {} : { reference }),
  };
}

/** The target in an expression `target.NAME.context`. */
function referredTarget(expr: Expression): string | undefined {
  const [root, name, field, ...rest] = expr.asTraversal?.() ?? [];
  if (root?.kind !== "root" || root.name !== "target" || rest.length > 0) return undefined;
  if (field?.kind !== "attr" || field.name !== "context") return undefined;
  if (name?.kind === "attr") return name.name;
  return name?.kind === "index" && name.key.type.kind === "string" ? name.key.string : undefined;
}

/** The group of everything that a matrix produced, named like its block. */
function addRenamed(config: Config, label: string, names: readonly string[]): void {
  const unique = [...new Set(names)];
  if (unique.length === 1 && unique[0] === label) return;
  config.addGroup({ name: label, description: "", targets: unique }, false);
}

type Plan = Omit<BakePlan, keyof BakeDefinition>;

function plan(config: Config, host: BakeHost, options: BakeOptions): Plan {
  const requestHost = withTerminal(host, options.stdoutIsTerminal === true);
  const { overrides, policyDisabled } = flagOverrides(options);
  const wanted =
    options.targets === undefined || options.targets.length === 0 ? ["default"] : options.targets;
  const names = [...new Set(wanted.flatMap((name) => config.matchNames(name.replaceAll(".", "_"))))];
  const lookupEnv = environmentAllowed(host)
    ? (name: string): string | undefined => host.env(name)
    : undefined;
  const parsed = parseOverrides(
    [...(options.set ?? []), ...overrides],
    config.targets.map(({ name }) => name),
    lookupEnv,
  );
  const granted = parseEntitlements(options.allow ?? []);
  const grants: Grants = { read: [], write: [], networkHost: false, securityInsecure: false };
  const resolver = new Resolver(config, parsed, grants);
  const { targets, groups } = select(config, names, resolver);
  if (policyDisabled) {
    for (const target of targets.values())
      target.set(targetFields.policy, [{ files: [], reset: false, disabled: true }]);
  }
  addSourceDateEpoch(targets, host);
  const requests = [...targets.values()]
    .sort((a, b) => compareStrings(a.name, b.name))
    .map((target) => buildRequest(target, requestHost, options.remote));
  const missing = missingEntitlements(requests, granted, grants, requestHost);
  return {
    targets: requests,
    groups,
    print: () => printDefinition(groups, targets),
    graph: () => graphOf(config, targets, groups),
    requiredEntitlements: missing,
    entitlementPrompt: promptFor(missing, requestHost, options.remote !== undefined),
  };
}

function withTerminal(host: BakeHost, stdoutIsTerminal: boolean): RequestHost {
  return {
    cwd: host.cwd,
    localPlatform: host.localPlatform,
    readFile: (path) => host.readFile(path),
    stat: (path) => host.stat(path),
    realPath: (path) => host.realPath(path),
    env: (name) => host.env(name),
    environ: () => host.environ(),
    homeDir: () => host.homeDir(),
    now: () => host.now(),
    randomBytes: (count) => host.randomBytes(count),
    stdoutIsTerminal,
  };
}

function select(
  config: Config,
  names: readonly string[],
  resolver: Resolver,
): { readonly targets: Map<string, Target>; readonly groups: Map<string, Group> } {
  const targets = new Map<string, Target>();
  const groups = new Map<string, Group>();
  for (const name of names) {
    const expanded = expandName(config, name);
    for (const target of expanded.targets)
      if (!targets.has(target)) targets.set(target, resolver.resolve(target));
    for (const group of expanded.groups) groups.set(group, config.group(group)!);
  }
  for (const name of names) {
    const existing = groups.get("default");
    if (existing !== undefined && name === "default") continue;
    groups.set("default", {
      name: "default",
      description: existing?.description ?? "",
      targets: [...(existing?.targets ?? []), name],
    });
  }
  const all = groups.get("default");
  if (all?.targets !== undefined)
    groups.set("default", { ...all, targets: [...new Set(all.targets)].sort(compareStrings) });
  loadLinks(targets, (name) => resolver.resolve(name));
  return { targets, groups };
}

const EPOCH = "SOURCE_DATE_EPOCH";

function addSourceDateEpoch(targets: ReadonlyMap<string, Target>, host: BakeHost): void {
  const epoch = host.env(EPOCH) ?? "";
  if (epoch === "") return;
  for (const target of targets.values()) {
    const args = target.get(targetFields.args);
    if (args?.has(EPOCH) !== true) target.set(targetFields.args, new Map([...(args ?? []), [EPOCH, epoch]]));
  }
}
