import { type FrontendClient, type GatewayRef, type PlatformImage, sourceError } from "@kiln/client/frontend";
import { local, type OpOptions, type SourceMap, type State } from "@kiln/llb";
import { formatPlatformAll, type Platform } from "@kiln/oci";
import { type ConfigJson, findSource, type Places } from "./contexts.ts";
import { installCommand, readDistribution } from "./packages.ts";
import type { Node, Problem, Text } from "./reader.ts";
import type { CopyStep, Recipe, RunStep, Step } from "./recipe.ts";
import { Variables } from "./variables.ts";

/** A recipe on its way to an image for one platform. */
interface Build extends Places {
  readonly recipe: Recipe;
  readonly variables: Variables;
  readonly base: State;
  readonly history: { readonly created_by: string; readonly comment: string }[];
}

/** Fails with all problems and their places. */
export function failWith(source: SourceMap, problems: readonly Problem[]): void {
  const [first] = problems;
  if (first === undefined) return;
  const message = problems
    .map((problem) => `${problem.message} (line ${problem.range.start.line})`)
    .join("; ");
  throw sourceError(
    message,
    source,
    problems.map(({ range }) => range),
  );
}

/** Builds a recipe for a platform. @throws BuildError with the place in the recipe. */
export async function buildRecipe(
  client: FrontendClient,
  { recipe, source, platform }: { recipe: Recipe; source: SourceMap; platform: Platform },
): Promise<PlatformImage & { readonly ref: GatewayRef | undefined }> {
  const variables = new Variables(recipe, client.opts, platformArguments(platform));
  const places: Places = { client, source, platform };
  const from = recipe.from ?? { value: "scratch", range: { start: ZERO, end: ZERO } };
  const name = variables.expand(from);
  failWith(source, variables.problems);
  const { state: found, config } = await findSource(places, name, from);
  let state = found.setPlatform(platform);
  for (const [key, value] of recipe.env) state = state.setEnv(key, variables.expand(value));
  if (recipe.workdir !== undefined) state = state.setDir(variables.expand(recipe.workdir));
  const build: Build = { ...places, recipe, variables, base: found, history: [] };
  if (recipe.workdir !== undefined) state = makeWorkdir(state, build, recipe.workdir);
  for (const step of recipe.steps) state = await addStep(state, step, build);
  failWith(source, variables.problems);
  const { ref } = await client.solve({ definition: state.marshal({ platform, caps: client.llbCaps }) });
  return { platform, ref, config: imageConfig(config, state, build) };
}

const ZERO = { line: 1, character: 0 };

function platformArguments({ os, architecture, variant }: Platform): Map<string, string> {
  return new Map([
    ["TARGETOS", os],
    ["TARGETARCH", architecture],
    ["TARGETVARIANT", variant ?? ""],
  ]);
}

function makeWorkdir(state: State, build: Build, at: Text): State {
  note(build, `workdir ${state.dir}`);
  const options = optionsAt(build, at, `workdir ${state.dir}`);
  return state.file({ kind: "mkdir", path: state.dir, mode: 0o755, parents: true }, options);
}

function note({ history }: Build, what: string): void {
  history.push({ created_by: what, comment: "recipe" });
}

/** Names a vertex, and says where in the recipe it comes from: errors and `kiln build` show it. */
function optionsAt({ source, platform, client }: Build, { range }: Node, name: string): OpOptions {
  const title = name.split("\n", 1)[0]?.slice(0, 120) ?? "";
  const several = (client.opts.get("platform") ?? "").includes(",");
  return {
    name: several ? `[${formatPlatformAll(platform)}] ${title}` : `[recipe] ${title}`,
    location: { map: source, ranges: [range] },
  };
}

async function addStep(state: State, step: Step, build: Build): Promise<State> {
  switch (step.kind) {
    case "run":
      return addRun(state, step, build);
    case "copy":
      return await addCopy(state, step, build);
    case "write": {
      const path = build.variables.expand(step.path);
      note(build, `write ${path}`);
      return state.file(
        {
          kind: "mkfile",
          path,
          mode: step.executable ? 0o755 : 0o644,
          data: new TextEncoder().encode(build.variables.expand(step.text)),
        },
        optionsAt(build, step.at, `write ${path}`),
      );
    }
    case "packages": {
      const names = step.names.map((name) => build.variables.expand(name));
      const distribution = await readDistribution(build.client, build.base, build.platform);
      const command = installCommand(distribution, names);
      if (command instanceof Error) throw sourceError(command.message, build.source, [step.at.range]);
      note(build, `packages ${names.join(" ")}`);
      const args = ["/bin/sh", "-c", command];
      return state.run({ args, ...optionsAt(build, step.at, `packages ${names.join(" ")}`) }).root;
    }
    case "scripts":
      return await addScripts(state, step, build);
  }
}

function addRun(state: State, step: RunStep & { readonly at: Node }, build: Build): State {
  const { variables } = build;
  const script = variables.expand(step.script);
  const network = step.network && variables.expand(step.network);
  if (network !== undefined && !["sandbox", "host", "none"].includes(network)) {
    variables.problems.push({ message: "network is sandbox, host or none", range: step.at.range });
  }
  note(build, `run ${script}`);
  const exec = state.run({
    args: ["/bin/sh", "-ec", script],
    mounts: step.caches.map((text) => {
      const target = variables.expand(text);
      return { target, cache: { id: `recipe${target}`, sharing: "shared" } };
    }),
    secrets: step.secrets.map((text) => {
      const id = variables.expand(text);
      return { id, target: `/run/secrets/${id}` };
    }),
    ...(network === undefined ? {} : { network: network as "sandbox" | "host" | "none" }),
    ...(step.insecure ? { security: "insecure" as const } : {}),
    ...optionsAt(build, step.at, `run ${script}`),
  });
  return exec.root;
}

async function addCopy(state: State, step: CopyStep & { readonly at: Node }, build: Build): Promise<State> {
  const { variables } = build;
  const sources = step.sources.map((source) => variables.expand(source));
  const to = variables.expand(step.to);
  const from =
    step.from === undefined
      ? context(build, sources)
      : (await findSource(build, variables.expand(step.from), step.from)).state;
  const title = `copy ${sources.join(" ")} to ${to}`;
  note(build, title);
  return state.file(
    sources.map((src) => ({
      kind: "copy" as const,
      from,
      src: `/${src.replace(/^\/+/, "")}`,
      dest: to,
      createDestPath: true,
      allowWildcard: true,
      contentsOnly: true,
      followSymlinks: true,
      ...(step.owner === undefined ? {} : { owner: variables.expand(step.owner) }),
    })),
    optionsAt(build, step.at, title),
  );
}

/** The client's files; only those that are needed are sent. */
function context({ client }: Build, paths: readonly string[]): State {
  const name = client.opts.get("contextkey") ?? "context";
  return local(name, {
    sessionId: client.opts.get(`local-sessionid:${name}`) ?? client.sessionId,
    sharedKeyHint: client.opts.get(`sharedkey:localdir:${name}`) ?? name,
    followPaths: [...paths],
    name: "[recipe] load files of the context",
  });
}

/** One step for each script of a directory: the frontend looks at the context before it decides on the graph. */
async function addScripts(
  state: State,
  step: { readonly dir: Text; readonly at: Node },
  build: Build,
): Promise<State> {
  const dir = build.variables.expand(step.dir);
  const files = context(build, [dir]);
  const { ref } = await build.client.solve({ definition: files.marshal({ platform: build.platform }) });
  const entries = (await ref?.readDir(dir)) ?? [];
  let result = state;
  for (const { path, isDirectory } of entries) {
    if (isDirectory) continue;
    note(build, `script ${path}`);
    const mounts = [{ target: "/run/scripts", source: files, selector: dir, readonly: true }];
    const options = optionsAt(build, step.at, `script ${path}`);
    result = result.run({ args: ["/bin/sh", "-e", `/run/scripts/${path}`], mounts, ...options }).root;
  }
  return result;
}

function imageConfig(
  base: ConfigJson,
  state: State,
  { recipe, variables, platform, history }: Build,
): object {
  const { image } = recipe;
  const all = (list: readonly Text[]): string[] => list.map((text) => variables.expand(text));
  const labels = Object.fromEntries(image.labels.map(([key, value]) => [key, variables.expand(value)]));
  const ports = Object.fromEntries(
    all(image.expose).map((port) => [port.includes("/") ? port : `${port}/tcp`, {}]),
  );
  return {
    ...base,
    ...{ architecture: platform.architecture, os: platform.os, variant: platform.variant },
    config: {
      ...base.config,
      Env: state.env.toArray(),
      WorkingDir: state.dir,
      ...(image.entrypoint === undefined ? {} : { Entrypoint: all(image.entrypoint), Cmd: undefined }),
      ...(image.cmd === undefined ? {} : { Cmd: all(image.cmd) }),
      ...(image.user === undefined ? {} : { User: variables.expand(image.user) }),
      ExposedPorts: { ...(base.config?.ExposedPorts as object | undefined), ...ports },
      Labels: { ...(base.config?.Labels as object | undefined), ...labels },
    },
    rootfs: base.rootfs ?? { type: "layers", diff_ids: [] },
    history: [...(base.history ?? []), ...history],
  };
}
