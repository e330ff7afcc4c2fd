/**
 * Definitions in a git repository, an archive or a file on the web. The daemon fetches them; what it fetched is the
 * source of the contexts that the definition names by path.
 */
import type { Definition } from "@kiln/api/pb";
import { type BakeFile, DEFAULT_FILES, type RemoteDefinition, type SshOption } from "@kiln/bake";
import { BuildError, isCanceled } from "@kiln/base";
import { createSession, type GatewayClient, type SolveSession } from "@kiln/client";
import { parseGitRef } from "@kiln/dockerfile/git";
import type { Builder } from "@kiln/driver";
import { humanSize } from "@kiln/formats";
import { definitionMessage, git, http, type State, scratch } from "@kiln/llb";
import { parsePlatform } from "@kiln/oci";
import type { SolveStatus } from "@kiln/progress";
import { type Attachable, SecretsProvider, SshProvider } from "@kiln/session/client";
import type { FetchedTree } from "../build/inputs.ts";
import { localPlatform } from "../build/request-from-flags.ts";
import { prepareSecrets } from "../build/secrets.ts";
import { isArchive } from "../build/stdin-source.ts";

/** Largest file of a definition. */
const MAX_DEFINITION_BYTES = 2 * 1024 * 1024;
/** What an archive is recognised by. */
const HEADER_BYTES = 1024;
/** Name that a file from the web gets in its result. */
const DOWNLOAD = "context";
const GIT_SECRETS = [
  ["GIT_AUTH_TOKEN", "BUILDX_BAKE_GIT_AUTH_TOKEN"],
  ["GIT_AUTH_HEADER", "BUILDX_BAKE_GIT_AUTH_HEADER"],
] as const;

type Env = Readonly<Record<string, string | undefined>>;

/** What came from a URL. */
export interface FetchedDefinition {
  readonly files: readonly BakeFile[];
  readonly remote: RemoteDefinition;
  /** The tree that contexts are taken from; a single file has none. */
  readonly tree?: FetchedTree;
}

/** What is fetched, and with what. */
export interface FetchOptions {
  readonly url: string;
  /** Files in the repository or archive; none means those with the usual names. */
  readonly names: readonly string[];
  readonly builder: Builder;
  readonly env: Env;
  readonly onStatus: (status: SolveStatus) => void;
  readonly signal: AbortSignal;
}

/** Fetches a definition through the last usable node of a builder. */
export async function fetchDefinition(options: FetchOptions): Promise<FetchedDefinition> {
  const { builder, url, signal, onStatus } = options;
  const node = builder.nodes.findLast(({ error }) => error === undefined);
  if (node === undefined) throw builder.nodes.at(-1)?.error ?? new Error("no valid drivers found");
  const ref = parseGitRef(url);
  const source = ref === undefined ? webSource(url) : gitSource(url, ref);
  const client = await node.driver.boot({ signal, onStatus });
  let fetched: FetchedDefinition | undefined;
  await client.solve({
    internal: true,
    signal,
    onStatus,
    ...(ref === undefined ? {} : { session: gitSession(url, options.env) }),
    drive: async (gateway) => {
      const result = await solveState(gateway, source);
      fetched =
        ref === undefined
          ? await readDownload(gateway, result, { ...options, source })
          : {
              files: await readFiles(gateway, result, options.names),
              remote: { url, hasFiles: true },
              tree: directoriesOf(source),
            };
      return undefined;
    },
  });
  if (fetched === undefined) throw new BuildError("internal", `the daemon gave no definition for ${url}`);
  return fetched;
}

function gitSource(url: string, ref: NonNullable<ReturnType<typeof parseGitRef>>): State {
  return git(ref.remote, {
    ref: ref.ref,
    subdir: ref.subdir,
    checksum: ref.checksum,
    skipSubmodules: ref.submodules === false,
    mtime: ref.mtime,
    fetchByCommit: ref.fetchByCommit,
    keepGitDir: ref.keepGitDir === true,
    name: `[internal] load git source ${url}`,
  });
}

function webSource(url: string): State {
  return http(url, { filename: DOWNLOAD, name: "[internal] load remote build context" });
}

/** Directories of a tree, each as a build's context. */
function directoriesOf(tree: State): FetchedTree {
  return (path, name) =>
    encoded(scratch().file({ kind: "copy", from: tree, src: path, dest: "/", contentsOnly: true }, { name }));
}

function encoded(state: State): Definition {
  return definitionMessage(state.marshal({ platform: parsePlatform(localPlatform()) }));
}

async function solveState(gateway: GatewayClient, state: State): Promise<string> {
  const result = await gateway.solve({ Definition: encoded(state) });
  return result?.result.case === "ref" ? result.result.value.id : "";
}

/** Agents and credentials for a repository; an agent that can't be used counts as none. */
function gitSession(url: string, env: Env): SolveSession {
  const attachables: Attachable[] = [];
  const paths = (env.BUILDX_BAKE_GIT_SSH ?? "").split(",").filter((path) => path !== "");
  const agent: SshOption = { id: "default", paths };
  try {
    attachables.push(new SshProvider([agent], env));
  } catch {
    // Repositories that need an agent say so when they are fetched.
  }
  const secrets = prepareSecrets(gitSecrets(url, env), env);
  if (secrets.size > 0) attachables.push(new SecretsProvider((id) => secrets.get(id)?.()));
  return createSession(attachables);
}

function gitSecrets(url: string, env: Env): { readonly id: string; readonly env: string }[] {
  const scp = /^[a-zA-Z0-9-_]+@([a-zA-Z0-9-.]+):/.exec(url)?.[1];
  const host = scp ?? /^(?:https?|git|ssh):\/\/(?:[^/@]*@)?([^/?#]+)/i.exec(url)?.[1];
  if (host === undefined) return [];
  return GIT_SECRETS.flatMap(([id, variable]) => {
    const name = Object.keys(env).find((key) => key.toUpperCase() === variable);
    return name === undefined ? [] : [{ id: `${id}.${host}`, env: name }];
  });
}

async function readDownload(
  gateway: GatewayClient,
  ref: string,
  download: { readonly url: string; readonly names: readonly string[]; readonly source: State },
): Promise<FetchedDefinition> {
  const { url, source, names } = download;
  const size = await gateway.fileSize(ref, DOWNLOAD);
  if (!isArchive(await gateway.readFile(ref, DOWNLOAD, HEADER_BYTES))) {
    if (size > MAX_DEFINITION_BYTES) {
      throw new BuildError(
        "unknown",
        `non-archive definition URL bigger than maximum allowed size (${humanSize(MAX_DEFINITION_BYTES)})`,
      );
    }
    const data = await gateway.readFile(ref, DOWNLOAD);
    return { files: [{ name: url, data }], remote: { url: "", hasFiles: false } };
  }
  const copy = { kind: "copy", from: source, src: DOWNLOAD, dest: "/", attemptUnpack: true } as const;
  const tree = scratch().file(copy);
  const files = await readFiles(gateway, await solveState(gateway, tree), names);
  return { files, remote: { url: "", hasFiles: true }, tree: directoriesOf(tree) };
}

async function readFiles(
  gateway: GatewayClient,
  ref: string,
  names: readonly string[],
): Promise<readonly BakeFile[]> {
  const files: BakeFile[] = [];
  for (const name of names.length > 0 ? names : DEFAULT_FILES) {
    let size: number;
    try {
      size = await gateway.fileSize(ref, name);
    } catch (error) {
      if (names.length > 0 || isCanceled(error)) throw error;
      continue;
    }
    if (size > MAX_DEFINITION_BYTES) {
      throw new BuildError("unknown", `${name} is larger than ${MAX_DEFINITION_BYTES} bytes`);
    }
    files.push({ name, data: await gateway.readFile(ref, name) });
  }
  return files;
}
