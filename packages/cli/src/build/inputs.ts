/**
 * Where a build's files come from: its context, its Dockerfile and its named contexts become frontend attributes
 * and what the session serves.
 */
import { lstatSync, readdirSync, readFileSync, statSync } from "node:fs";
import { basename, dirname, isAbsolute, join, resolve } from "node:path";
import type { Readable } from "node:stream";
import type { Definition } from "@kiln/api/pb";
import type { BuildRequest } from "@kiln/bake";
import { BuildError, nodeReason } from "@kiln/base";
import { newId } from "@kiln/formats";
import { digestProblem } from "@kiln/oci";
import { usageError } from "../command/flags.ts";
import { hasQuery, isGitSshUrl, isGitUrl, isHttpUrl, isRemoteUrl } from "./remote-url.ts";
import { isArchive, type StdinSource } from "./stdin-source.ts";

const CAP_CONTEXTS = "moby.buildkit.frontend.contexts+forward";
const CAP_GIT_QUERY = "moby.buildkit.frontend.gitquerystring";
/** Largest Dockerfile that is fetched from a URL or read from standard input. */
export const MAX_DOCKERFILE_BYTES = 2 << 20;

/** What a build reads, ready for a session. */
export interface BuildInputs {
  readonly attrs: Map<string, string>;
  /** Directories that the daemon may read, by name. */
  readonly dirs: Map<string, string>;
  /** Directories made up for this build, by name, with their files: of what came over standard input and the like. */
  readonly madeDirs: Map<string, ReadonlyMap<string, Uint8Array>>;
  /** OCI layouts that the daemon may read, by random name. */
  readonly ociStores: Map<string, string>;
  /** Archives that are sent as they are, by the frontend attribute that gets their URL. */
  readonly uploads: Map<string, Readable>;
  /** Name of the directory that the context's cache is kept under; empty for a remote context. */
  sharedKey: string;
  /** How messages name the Dockerfile. */
  dockerfileLabel: string;
  /** Local directory of the context, undefined for a remote one. */
  contextDir?: string;
  readonly usesGitSsh: boolean;
  /** Definitions that go with the frontend's call, by name. */
  readonly definitions: Map<string, Definition>;
}

/** A directory of what a remote definition came with, as a step of that name. */
export type FetchedTree = (path: string, stepName: string) => Definition;

/** What inputs are read with. */
export interface InputSources {
  readonly stdin: StdinSource;
  /** Fetches a Dockerfile through the daemon. */
  readonly fetchDockerfile: (url: string) => Promise<Uint8Array>;
  /** What a remote definition came with: contexts may be directories of it. */
  readonly tree?: FetchedTree | undefined;
}

/** Finds out what `request` reads. @throws BuildError in Buildx's words for what can't be a context. */
export async function prepareInputs(request: BuildRequest, sources: InputSources): Promise<BuildInputs> {
  const inputs: BuildInputs = {
    attrs: new Map(),
    dirs: new Map(),
    madeDirs: new Map(),
    ociStores: new Map(),
    uploads: new Map(),
    sharedKey: "",
    dockerfileLabel: request.dockerfile,
    definitions: new Map(),
    usesGitSsh: [request.context, ...request.contexts.values()].some(isGitSshUrl),
  };
  const caps = new Set<string>();
  const place = await prepareContext(request, inputs, sources);
  if (hasQuery(request.context) && isRemoteUrl(request.context)) caps.add(CAP_GIT_QUERY);
  await prepareDockerfile(request, inputs, { ...sources, place });
  for (const [name, value] of request.contexts) {
    caps.add(CAP_CONTEXTS);
    const path = request.remoteContexts.get(name);
    if (path !== undefined) {
      if (isGitUrl(value)) inputs.attrs.set(`input:git_state_${name}`, value);
      inputs.attrs.set(`context:${name}`, `input:${name}`);
      inputs.definitions.set(name, treeDefinition(sources.tree, path, `set context ${name} to ${path}`));
      continue;
    }
    if (hasQuery(value)) caps.add(`${CAP_GIT_QUERY}+forward`);
    prepareNamedContext(name, value, inputs);
  }
  if (caps.size > 0) inputs.attrs.set("frontend.caps", [...caps].sort().join(","));
  return inputs;
}

/** Where the Dockerfile is: a directory and a name, or its content. */
interface DockerfilePlace {
  dir?: string;
  name?: string;
  content?: Uint8Array;
}

async function prepareContext(
  request: BuildRequest,
  inputs: BuildInputs,
  sources: InputSources,
): Promise<DockerfilePlace> {
  const { context, dockerfile } = request;
  if (request.remoteContext !== undefined) return prepareTree(request, inputs, sources);
  if (context === "-") return prepareStdin(request, inputs, sources);
  if (isDirectory(context)) {
    inputs.dirs.set("context", context);
    inputs.contextDir = context;
    inputs.sharedKey = basename(resolve(context));
    if (dockerfile === "-") return { content: await sources.stdin.readAll(MAX_DOCKERFILE_BYTES) };
    if (dockerfile === "") return { dir: context };
    return isHttpUrl(dockerfile) ? {} : { dir: dirname(dockerfile), name: basename(dockerfile) };
  }
  if (isRemoteUrl(context)) {
    inputs.attrs.set("context", context);
    if (dockerfile === "-") return { content: await sources.stdin.readAll(MAX_DOCKERFILE_BYTES) };
    if (!isAbsolute(dockerfile)) return dockerfile === "" ? {} : { name: dockerfile };
    inputs.attrs.set("dockerfilekey", "dockerfile");
    return { dir: dirname(dockerfile), name: basename(dockerfile) };
  }
  throw new BuildError("not_found", `unable to prepare context: path ${JSON.stringify(context)} not found`);
}

/** The context is a directory of a fetched definition; so is the Dockerfile, unless it's said to be local. */
function prepareTree(request: BuildRequest, inputs: BuildInputs, sources: InputSources): DockerfilePlace {
  const { context, dockerfile, localDockerfile, remoteContext = "." } = request;
  const definition = treeDefinition(sources.tree, remoteContext, `set context to ${remoteContext}`);
  inputs.definitions.set("context", definition);
  if (isGitUrl(context)) inputs.attrs.set("input:context", context);
  if (localDockerfile) {
    inputs.attrs.set("dockerfilekey", "dockerfile");
    return { dir: dirname(dockerfile), name: basename(dockerfile) };
  }
  inputs.definitions.set("dockerfile", definition);
  return { name: dockerfile };
}

function treeDefinition(tree: FetchedTree | undefined, path: string, name: string): Definition {
  if (tree === undefined) throw new BuildError("internal", `nothing was fetched to take ${path} from`);
  return tree(path, name);
}

async function prepareStdin(
  request: BuildRequest,
  inputs: BuildInputs,
  sources: InputSources,
): Promise<DockerfilePlace> {
  if (request.dockerfile === "-") {
    throw usageError("invalid argument: can't use stdin for both build context and dockerfile");
  }
  const head = await sources.stdin.peek();
  if (head.length === 0) throw usageError("unable to prepare context: standard input is empty");
  if (isArchive(head)) {
    inputs.uploads.set("context", sources.stdin.stream());
    return request.dockerfile === "" ? {} : { name: request.dockerfile };
  }
  if (request.dockerfile !== "") {
    throw usageError("ambiguous Dockerfile source: both stdin and flag correspond to Dockerfiles");
  }
  inputs.madeDirs.set("context", new Map());
  inputs.dockerfileLabel = "stdin";
  return { content: await sources.stdin.readAll(MAX_DOCKERFILE_BYTES) };
}

async function prepareDockerfile(
  request: BuildRequest,
  inputs: BuildInputs,
  sources: InputSources & { readonly place: DockerfilePlace },
): Promise<void> {
  let { dir, name, content } = sources.place;
  if (request.dockerfileInline !== undefined) {
    content = new TextEncoder().encode(request.dockerfileInline);
    inputs.dockerfileLabel = "inline";
  } else if (request.dockerfile === "-") inputs.dockerfileLabel = "stdin";
  else if (request.dockerfile === "" && inputs.dockerfileLabel === "") {
    inputs.dockerfileLabel = join(request.context, "Dockerfile");
  }
  if (isHttpUrl(request.dockerfile) && request.dockerfileInline === undefined) {
    content = await sources.fetchDockerfile(request.dockerfile);
  }
  if (content !== undefined) {
    dir = undefined;
    name = "Dockerfile";
    inputs.madeDirs.set("dockerfile", new Map([[name, content]]));
    inputs.attrs.set("dockerfilekey", "dockerfile");
  }
  name ??= "Dockerfile";
  if (dir !== undefined) {
    inputs.dirs.set("dockerfile", dir);
    name = existingCase(dir, name);
  }
  inputs.attrs.set("filename", name);
}

/** `dockerfile` where only that exists and `Dockerfile` was meant. */
function existingCase(dir: string, name: string): string {
  if (name !== "Dockerfile") return name;
  try {
    const names = readdirSync(dir);
    return !names.includes("Dockerfile") && names.includes("dockerfile") ? "dockerfile" : name;
  } catch {
    return name;
  }
}

function prepareNamedContext(name: string, value: string, inputs: BuildInputs): void {
  const key = `context:${name}`;
  if (isRemoteUrl(value) || value.startsWith("docker-image://") || value.startsWith("target:")) {
    inputs.attrs.set(key, value);
    return;
  }
  if (value.startsWith("oci-layout://")) {
    const { path, tag, digest } = parseLayout(value);
    const id = newId();
    inputs.ociStores.set(id, path);
    const target = digest === "" ? layoutDigest(path, tag, value) : digest;
    inputs.attrs.set(key, `oci-layout://${id}@${target}`);
    return;
  }
  let isDir: boolean;
  try {
    isDir = statSync(value).isDirectory();
  } catch (error) {
    throw new BuildError(
      "not_found",
      `failed to get build context ${name}: stat ${value}: ${nodeReason(error)}`,
      {
        cause: error,
      },
    );
  }
  if (!isDir)
    throw new BuildError("invalid_argument", `failed to get build context path ${value}: not a directory`);
  const mount = name === "context" || name === "dockerfile" ? `_${name}` : name;
  inputs.dirs.set(mount, value);
  inputs.attrs.set(key, `local:${mount}`);
  inputs.attrs.set(`sharedkey:localdir:${name}`, basename(resolve(value)));
}

/** The parts of `oci-layout://path[:tag][@digest]`. */
export function parseLayout(value: string): { path: string; tag: string; digest: string } {
  let rest = value.slice("oci-layout://".length);
  let digest = "";
  const at = rest.lastIndexOf("@");
  if (at >= 0) {
    digest = rest.slice(at + 1);
    rest = rest.slice(0, at);
    const problem = digestProblem(digest);
    if (problem !== undefined)
      throw usageError(`invalid oci-layout reference ${JSON.stringify(value)}: ${problem}`);
  }
  const colon = rest.lastIndexOf(":");
  const isTag = colon > rest.lastIndexOf("/");
  if (!isTag) return { path: rest, tag: "latest", digest };
  return { path: rest.slice(0, colon), tag: rest.slice(colon + 1), digest };
}

/** The digest of a tag in a layout's index; of the only entry when none has the tag. */
function layoutDigest(path: string, tag: string, value: string): string {
  const fail = (reason: string): never => {
    throw new BuildError(
      "not_found",
      `oci-layout reference ${JSON.stringify(value)} could not be resolved: ${reason}`,
    );
  };
  let manifests: readonly LayoutEntry[];
  try {
    const index = JSON.parse(readFileSync(join(path, "index.json"), "utf8")) as { manifests?: LayoutEntry[] };
    manifests = index.manifests ?? [];
  } catch (error) {
    return fail(`open ${join(path, "index.json")}: ${nodeReason(error)}`);
  }
  const named = manifests.find((entry) => {
    const names = [
      entry.annotations?.["org.opencontainers.image.ref.name"],
      entry.annotations?.["io.containerd.image.name"],
    ];
    return names.some((name) => name === tag || name?.endsWith(`:${tag}`));
  });
  const entry = named ?? (manifests.length === 1 ? manifests[0] : undefined);
  const digest = entry?.digest ?? "";
  return digestProblem(digest) === undefined ? digest : fail(`no digest found for tag ${tag}`);
}

interface LayoutEntry {
  readonly digest?: string;
  readonly annotations?: Readonly<Record<string, string>>;
}

function isDirectory(path: string): boolean {
  try {
    return statSync(path).isDirectory();
  } catch {
    return false;
  }
}

/** True when a path exists, links not followed. */
export function pathExists(path: string): boolean {
  try {
    lstatSync(path);
    return true;
  } catch {
    return false;
  }
}
