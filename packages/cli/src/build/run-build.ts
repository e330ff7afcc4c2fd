/** Runs build requests on the nodes of a builder. */
import { llbCaps } from "@kiln/api";

import type { Result } from "@kiln/api/gateway";
import type { Definition } from "@kiln/api/pb";
import type { BuildRequest } from "@kiln/bake";
import { BuildError, errorMessage, isBuildError } from "@kiln/base";
import { type BuildkitClient, enabledCaps, type GatewayClient, probe, type SolveResult } from "@kiln/client";
import {
  type Builder,
  type BuilderRegistry,
  EMBEDDED_DRIVER,
  type ResolvedNode,
  resolveNodes,
} from "@kiln/driver";
import { KILN_BUILDKIT_VERSION, KILN_REVISION } from "@kiln/engine/version";
import { newId } from "@kiln/formats";
import { formatPlatform, parsePlatform } from "@kiln/oci";
import type { SolveStatus } from "@kiln/progress";
import { prepareCaches } from "./caches.ts";
import { fetchDockerfile } from "./fetch-dockerfile.ts";
import { gitAttributes } from "./git-info.ts";
import { withMissingFileHint } from "./hints.ts";
import { type BuildInputs, type FetchedTree, prepareInputs } from "./inputs.ts";
import { addLinkedContexts, type LinkedContext } from "./linked-context.ts";
import { type NodePush, prepareNodePush } from "./node-push.ts";
import { type OutputRules, type PreparedOutput, prepareOutputs } from "./outputs.ts";
import { addProvenance } from "./provenance.ts";
import { isRemoteUrl } from "./remote-url.ts";
import { envBool } from "./request-from-flags.ts";
import { prepareSecrets } from "./secrets.ts";
import { createBuildSession } from "./session.ts";
import { finishOutputs, type SolveAttrs, solveAttrs } from "./solve-attrs.ts";
import { solveCall } from "./solve-call.ts";
import { readSourcePolicy } from "./source-policy.ts";
import type { StdinSource } from "./stdin-source.ts";

/** The environment of a run of builds. */
export interface BuildEnvironment {
  readonly builder: Builder;
  readonly registry: BuilderRegistry;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly rules: OutputRules;
  readonly stdin: StdinSource;
  readonly stdout: NodeJS.WritableStream;
  readonly onStatus: (status: SolveStatus) => void;
  readonly warn: (message: string) => void;
  readonly signal: AbortSignal;
  /** Provenance for the metadata file: how much, or none. */
  readonly provenance: "min" | "max" | "disabled";
  readonly debug: boolean;
  /** What a remote bake definition came with: contexts may be directories of it. */
  readonly tree?: FetchedTree;
}

/** What one build gave. */
export interface BuildOutcome {
  readonly response: Map<string, string>;
  /** How messages name the Dockerfile. */
  readonly dockerfileLabel: string;
  /** `builder/node/ref`. */
  readonly ref: string;
}

/** Hooks of a caller that runs several builds that depend on each other. */
export interface BuildLinks {
  /** Where to build; resolved by the platforms when absent. */
  readonly nodes?: readonly ResolvedNode[];
  /** What this build's `target:` contexts are on a node. */
  readonly contexts?: (node: ResolvedNode) => readonly LinkedContext[];
  /** Called with a node's result before the build ends; the build stays open until it resolves. */
  readonly onResult?: (
    result: Result | undefined,
    gateway: GatewayClient,
    node: ResolvedNode,
  ) => Promise<void>;
  /** Shows steps of the client itself. */
  readonly onClientStatus?: (status: SolveStatus) => void;
  /** The caller tells about builds without an output. */
  readonly silent?: boolean;
  /** Records with one group are of one command. */
  readonly groupRef?: string;
  /** Frontend attributes for directories, by name, that other builds of the command read, too. */
  readonly sharedDirs?: (
    client: BuildkitClient,
    dirs: ReadonlyMap<string, string>,
    sharedKey: string,
  ) => Map<string, string>;
}

/** The nodes that a request is built on. */
export function nodesOf(
  request: BuildRequest,
  { builder, signal, onStatus }: Pick<BuildEnvironment, "builder" | "signal" | "onStatus">,
): Promise<ResolvedNode[]> {
  const platforms = request.platforms.map((text) => parsePlatform(text));
  return resolveNodes(builder.nodes, platforms, { signal, onStatus });
}

/** Resolves nodes for a request, then builds on them. */
export async function runBuild(
  request: BuildRequest,
  environment: BuildEnvironment,
  links: BuildLinks = {},
): Promise<BuildOutcome> {
  const { builder } = environment;
  if (!builder.isEmbedded) environment.registry.store.touch(builder.name);
  const outputs = prepareOutputs(request, environment.rules);
  const nodes = links.nodes ?? (await nodesOf(request, environment));
  const spansNodes = nodes.length > 1;
  if (spansNodes) prepareNodePush(outputs.filter(({ type }) => type !== "image"));
  const stop = new AbortController();
  const signal = AbortSignal.any([environment.signal, stop.signal]);
  const outcomes = await allOf(
    nodes.map((node) =>
      runOnNode(
        { ...request, platforms: node.platforms.map(formatPlatform) },
        { ...environment, signal, node, outputs: outputs.map(copyOf), spansNodes, links },
      ),
    ),
    () => stop.abort(new BuildError("canceled", "context canceled")),
  );
  if (!spansNodes) return outcomes[0] as BuildOutcome;
  return merged(outcomes, request, {
    ...environment,
    onStatus: links.onClientStatus ?? environment.onStatus,
  });
}

/** Waits for all; the first failure stops the others and is what is thrown. */
async function allOf<T>(work: readonly Promise<T>[], stop: () => void): Promise<T[]> {
  let failure: { readonly error: unknown } | undefined;
  const results = await Promise.allSettled(
    work.map((one) =>
      one.catch((error: unknown) => {
        failure ??= { error };
        stop();
        throw error;
      }),
    ),
  );
  if (failure) throw failure.error;
  return results.map((result) => (result as PromiseFulfilledResult<T>).value);
}

/** Exporters' attributes differ from node to node. */
function copyOf(output: PreparedOutput): PreparedOutput {
  return { ...output, attrs: new Map(output.attrs) };
}

/** What several nodes gave: an index of what they pushed, else what the first one says. */
async function merged(
  outcomes: readonly NodeOutcome[],
  request: BuildRequest,
  environment: BuildEnvironment,
): Promise<BuildOutcome> {
  const first = outcomes[0] as NodeOutcome;
  if (first.push.names === "") return first;
  const { mergeNodes } = await import("./merge-nodes.ts");
  const { annotations } = request;
  const { registry, onStatus, signal } = environment;
  const responses = outcomes.map(({ response }) => response);
  const digest = await mergeNodes(responses, { push: first.push, annotations, registry, onStatus, signal });
  return digest === undefined ? first : { ...first, response: new Map([["containerimage.digest", digest]]) };
}

/** What one node gave, and what it pushed. */
interface NodeOutcome extends BuildOutcome {
  readonly push: NodePush;
}

interface NodeBuild extends BuildEnvironment {
  readonly node: ResolvedNode;
  readonly outputs: readonly PreparedOutput[];
  readonly spansNodes: boolean;
  readonly links: BuildLinks;
}

async function runOnNode(request: BuildRequest, build: NodeBuild): Promise<NodeOutcome> {
  const { env, node, signal } = build;
  const [caps, inputs] = await Promise.all([
    probeCaps(node),
    prepareInputs(request, {
      stdin: build.stdin,
      tree: build.tree,
      fetchDockerfile: (url) => fetchDockerfile(node.client, url, { onStatus: build.onStatus, signal }),
    }),
  ]);
  const facts = { caps, proxyArgs: build.registry.proxyArgs() };
  const solve = solveAttrs(request, facts, { env, spansNodes: build.spansNodes });
  await addInputAttrs(solve, inputs, { ...build, request });
  const salt = build.registry.store.config.nodeIdentifier();
  const sharedKey = inputs.sharedKey === "" ? "" : `${inputs.sharedKey}:${salt}`;
  const sharedDirs = build.links.sharedDirs?.(node.client, inputs.dirs, sharedKey) ?? [];
  for (const [key, value] of sharedDirs) solve.attrs.set(key, value);
  await addLinkedContexts(build.links.contexts?.(node) ?? [], solve.attrs, inputs.definitions);
  const wanted = defaultOutputs(build.outputs, request, build);
  const outputs = finishOutputs(wanted, request, { caps, env });
  const push = build.spansNodes ? prepareNodePush(outputs) : { names: "", insecure: false };
  const caches = prepareCaches(request, { caps, env });
  const ref = newId();
  const session = await createBuildSession({
    inputs,
    outputs,
    caches,
    secrets: prepareSecrets(request.secrets, env),
    ssh: request.ssh.length === 0 && inputs.usesGitSsh ? [{ id: "default", paths: [] }] : request.ssh,
    sharedKey,
    dockerConfig: build.registry.dockerConfig,
    configDir: build.registry.store.config.path,
    env,
    stdout: build.stdout,
    onStatus: build.onStatus,
    warn: build.warn,
  });
  for (const attr of inputs.uploads.keys()) solve.attrs.set(attr, inputs.attrs.get(attr) ?? "");
  if (wanted.length === 0) warnWithoutOutput(request, build);
  savePlace(request, build, ref);
  let result: SolveResult;
  try {
    const policy = readSourcePolicy(env);
    result = await node.client.solve({
      ref,
      drive: (gateway) => drive(gateway, { request, solve, inputs, build }),
      frontendAttrs: Object.fromEntries(solve.attrs),
      exporters: outputs.map(({ type, attrs }) => ({ type, attrs: Object.fromEntries(attrs) })),
      cacheImports: session.cacheImports,
      cacheExports: session.cacheExports,
      entitlements: solve.entitlements,
      internal: request.call !== undefined,
      traceParent: env.TRACEPARENT,
      session,
      onStatus: build.onStatus,
      signal,
      ...(policy === undefined ? {} : { sourcePolicy: policy }),
    });
    await session.finish(result.exporterResponse);
  } catch (error) {
    throw withMissingFileHint(error, { inputs, request });
  }
  return { ...(await finishOutcome(result, { build, request, outputs, inputs })), push };
}

async function finishOutcome(
  result: SolveResult,
  parts: {
    readonly build: NodeBuild;
    readonly request: BuildRequest;
    readonly outputs: readonly PreparedOutput[];
    readonly inputs: BuildInputs;
  },
): Promise<BuildOutcome> {
  const { build, request, outputs, inputs } = parts;
  const { node } = build;
  const ref = `${node.node.builder}/${node.node.name}/${result.ref}`;
  const response = new Map(result.exporterResponse);
  if (request.call === undefined) {
    response.set("buildx.build.ref", ref);
    if (build.provenance !== "disabled") {
      await addProvenance(response, {
        client: node.client,
        ref: result.ref,
        mode: build.provenance,
        onStatus: build.onStatus,
        signal: build.signal,
      });
    }
  } else {
    for (const [key, value] of callMetadata.get(request) ?? []) response.set(key, value);
    callMetadata.delete(request);
  }
  if (outputs.some(({ attrs }) => attrs.get("prefer-image-digest") === "true")) {
    response.delete("containerimage.config.digest");
  }
  return { response, dockerfileLabel: inputs.dockerfileLabel, ref };
}

/** What a frontend answered to a `--call`; it isn't part of the exporters' answer. */
const callMetadata = new WeakMap<BuildRequest, Map<string, string>>();

async function drive(
  gateway: GatewayClient,
  parts: {
    readonly request: BuildRequest;
    readonly solve: SolveAttrs;
    readonly inputs: BuildInputs;
    readonly build: NodeBuild;
  },
): Promise<Result | undefined> {
  const { request, solve } = parts;
  const { links, node } = parts.build;
  const options = Object.fromEntries(solve.attrs);
  const inputs: Record<string, Definition> = Object.fromEntries(parts.inputs.definitions);
  if (request.call) {
    const caps = options["frontend.caps"];
    options["frontend.caps"] = [...(caps ? [caps] : []), "moby.buildkit.frontend.subrequests+forward"].join(
      ",",
    );
    options.requestid = `frontend.${request.call.name}`;
  }
  const result = await solveCall(gateway, {
    Frontend: solve.frontend,
    FrontendOpt: options,
    FrontendInputs: inputs,
  });
  if (request.call && result) {
    const decoder = new TextDecoder();
    const entries = Object.entries(result.metadata).map(
      ([key, value]) => [key, decoder.decode(value)] as const,
    );
    callMetadata.set(request, new Map(entries));
  }
  await links.onResult?.(result, gateway, node);
  return result;
}

const capsOfNode = new WeakMap<object, Promise<ReadonlySet<string>>>();

/** What a node's daemon can do; of a daemon of this program's version that's known without asking. */
function probeCaps(node: ResolvedNode): Promise<ReadonlySet<string>> {
  const { knownVersion } = node.client;
  const isOurs = knownVersion?.revision === KILN_REVISION && knownVersion.version === KILN_BUILDKIT_VERSION;
  if (isOurs || node.node.driver.name === EMBEDDED_DRIVER)
    return Promise.resolve(new Set(llbCaps.map(({ id }) => id)));
  const known = capsOfNode.get(node.client);
  if (known) return known;
  const caps = probe(node.client.channel, async (gateway) => enabledCaps((await gateway.ping()).LLBCaps));
  capsOfNode.set(node.client, caps);
  return caps;
}

async function addInputAttrs(
  solve: SolveAttrs,
  inputs: BuildInputs,
  build: NodeBuild & { readonly request: BuildRequest },
): Promise<void> {
  const salt = build.registry.store.config.nodeIdentifier();
  for (const [key, value] of inputs.attrs) {
    solve.attrs.set(key, key.startsWith("sharedkey:") ? `${value}:${salt}` : value);
  }
  if (inputs.contextDir === undefined || build.request.context === "-") return;
  try {
    const dockerfile = build.request.dockerfile === "-" ? "" : build.request.dockerfile;
    const attrs = await gitAttributes(inputs.contextDir, { dockerfile, mounts: inputs.dirs, env: build.env });
    for (const [key, value] of attrs) if (!solve.attrs.has(key)) solve.attrs.set(key, value);
  } catch (error) {
    build.warn(`current commit information was not captured by the build: ${errorMessage(error)}`);
  }
}

/** A builder with `default-load` loads what has no output; elsewhere such a build stays in the cache. */
function defaultOutputs(
  outputs: readonly PreparedOutput[],
  request: BuildRequest,
  build: NodeBuild,
): readonly PreparedOutput[] {
  if (outputs.length > 0 || request.call || request.linked || !build.node.node.driver.defaultLoad)
    return outputs;
  if (envBool(build.env, "BUILDX_NO_DEFAULT_LOAD")) return outputs;
  return [{ type: "docker", attrs: new Map(), target: { kind: "docker", context: "" } }];
}

/** A build whose result goes nowhere says so, in Buildx's words. */
function warnWithoutOutput(request: BuildRequest, build: NodeBuild): void {
  if (request.call || request.linked || build.links.silent || envBool(build.env, "BUILDX_NO_DEFAULT_LOAD"))
    return;
  build.warn(
    `No output specified with ${build.builder.driver} driver. Build result will only remain in the build cache. To push result image into registry use --push or to load image into docker use --load`,
  );
}

function savePlace(request: BuildRequest, build: NodeBuild, ref: string): void {
  if (request.call) return;
  const { store } = build.registry;
  const absolute = (path: string): string =>
    path === "" || path === "-" || isRemoteUrl(path) || path.startsWith("/")
      ? path
      : `${build.rules.cwd}/${path}`;
  const dockerfile = request.dockerfile;
  try {
    store.localState.save(
      { builder: build.node.node.builder, node: build.node.node.name, id: ref },
      {
        target: request.name,
        localPath: absolute(request.context.replace(/^\.\/?(?=$)/, build.rules.cwd)),
        dockerfilePath: isRemoteUrl(request.context) ? dockerfile : absolute(dockerfile),
        ...(build.links.groupRef === undefined ? {} : { groupRef: build.links.groupRef }),
      },
    );
  } catch (error) {
    if (!isBuildError(error)) build.warn(`the build's place was not recorded: ${errorMessage(error)}`);
    else throw error;
  }
}
