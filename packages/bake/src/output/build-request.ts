import { csvFields } from "@kiln/formats";
import { checkSsh } from "../fields/request-checks.ts";
import type { RequestDraft, RequestHost } from "../fields/request-draft.ts";
import type { Target } from "../fields/target.ts";
import { TARGET_FIELDS, targetFields } from "../fields/target-fields.ts";
import { absolutePath, cleanPath, isGitSsh, isRemoteUrl, joinPath } from "../paths.ts";
import { cut, fail, requireBool, within } from "../problem.ts";
import type { BuildRequest, CallOption, SecretOption } from "../request.ts";

/** Where a definition was fetched from, when it isn't local. */
export interface RemoteDefinition {
  /** The URL of a git repository; "" for other kinds. */
  readonly url: string;
  /** Contexts lie in what was fetched: a repository or an archive. A single file leaves them local. */
  readonly hasFiles: boolean;
}

const CWD = "cwd://";

/** Reads `NAME[,format=…][,ignorestatus=…]`; nothing for `build` and "". */
export function parseCall(text: string): CallOption | undefined {
  if (text === "") return undefined;
  let name = "";
  let format: string | undefined;
  let ignoreStatus = false;
  for (const field of csvFields(text)) {
    const [key, value] = cut(field, "=");
    if (value === undefined) {
      if (name !== "") fail(`invalid print value: ${text}`);
      name = field;
    } else if (key === "format") format = value;
    else if (key === "ignorestatus") {
      ignoreStatus = within(`invalid ignorestatus print value: ${value}`, () => requireBool(value));
    } else fail(`invalid print field: ${field}`);
  }
  if (name === "build") return undefined;
  return {
    name: name === "check" ? "lint" : name,
    ignoreStatus,
    ...(format === undefined ? {} : { format }),
  };
}

function emptyDraft(name: string): RequestDraft {
  return {
    name,
    description: "",
    linked: false,
    context: ".",
    dockerfile: "Dockerfile",
    contexts: new Map(),
    remoteContexts: new Map(),
    localDockerfile: false,
    args: new Map(),
    labels: new Map(),
    tags: [],
    platforms: [],
    outputs: [],
    cacheFrom: [],
    cacheTo: [],
    secrets: [],
    ssh: [],
    attests: [],
    target: "",
    pull: false,
    noCache: false,
    noCacheFilter: [],
    network: "",
    shmSizeBytes: 0,
    ulimits: [],
    resources: {},
    entitlements: [],
    extraHosts: [],
    annotations: [],
    policy: [],
  };
}

/**
 * The build that a resolved target asks for, with everything checked that doesn't need a daemon. The target's
 * `context` becomes what `--print` shows: cleaned, and for a remote definition the URL.
 */
export function buildRequest(
  target: Target,
  host: RequestHost,
  remote: RemoteDefinition | undefined,
): BuildRequest {
  const draft = emptyDraft(target.name);
  draft.linked = target.linked;
  setInputs(target, draft, host, remote);
  for (const field of TARGET_FIELDS) {
    const value = target.get(field);
    if (value !== undefined) field.request?.(value, draft, host);
  }
  const secrets = remote === undefined ? [] : gitSecrets(remote.url, draft.context, host);
  if (secrets.length > 0) draft.secrets = [...draft.secrets, ...secrets];
  const gitSsh =
    (draft.ssh.length === 0 && isGitSsh(draft.context)) || (remote !== undefined && isGitSsh(remote.url));
  if (gitSsh) draft.ssh = checkSsh([{ id: "default", paths: [] }], host);
  const call = target.get(targetFields.call);
  if (call !== undefined) {
    const parsed = parseCall(call);
    if (parsed !== undefined) draft.call = parsed;
  }
  return draft;
}

function setInputs(
  target: Target,
  draft: RequestDraft,
  host: RequestHost,
  remote: RemoteDefinition | undefined,
): void {
  const givenContext = target.get(targetFields.context) ?? ".";
  const givenFile = target.get(targetFields.dockerfile) ?? "Dockerfile";
  if (givenContext === "-") fail("context from stdin not allowed in bake");
  if (givenFile === "-") fail("dockerfile from stdin not allowed in bake");
  let context =
    givenContext.startsWith(CWD) || isRemoteUrl(givenContext) ? givenContext : cleanPath(givenContext);
  let file = givenFile.startsWith(CWD) ? givenFile : cleanPath(givenFile);
  const contexts = new Map(target.get(targetFields.contexts) ?? []);
  if (remote?.hasFiles) {
    const subdirs = new Map<string, string>();
    for (const [name, path] of contexts) {
      const { url, subdir } = remoteContext(path, remote);
      contexts.set(name, url);
      if (subdir !== undefined) subdirs.set(name, subdir);
    }
    draft.remoteContexts = subdirs;
    const { url, subdir } = remoteContext(context, remote);
    context = url;
    if (subdir !== undefined) draft.remoteContext = subdir;
  }
  if (file.startsWith(CWD)) {
    draft.localDockerfile = true;
    file = absolutePath(cleanPath(file.slice(CWD.length)), host.cwd);
  } else if (
    remote !== undefined &&
    context.startsWith(CWD) &&
    !isRemoteUrl(file) &&
    isRemoteUrl(remote.url)
  ) {
    const local = joinPath(cleanPath(context.slice(CWD.length)), file);
    if (host.stat(local) !== undefined) {
      fail("reading a dockerfile for a remote build invocation is currently not supported");
    }
  }
  if (context.startsWith(CWD)) context = cleanPath(context.slice(CWD.length));
  const isLocal = !isRemoteUrl(context) && draft.remoteContext === undefined;
  if (isLocal && !file.startsWith("/")) file = joinPath(context, file);
  for (const [name, path] of contexts)
    if (path.startsWith(CWD)) contexts.set(name, cleanPath(path.slice(CWD.length)));
  target.set(targetFields.context, context);
  draft.context = context;
  draft.dockerfile = file;
  draft.contexts = contexts;
}

/**
 * A context of a remote definition. The root of a repository is its URL, which the daemon fetches itself; other
 * directories, and all of an archive, are taken out of what was fetched.
 */
function remoteContext(
  path: string,
  { url }: RemoteDefinition,
): { readonly url: string; readonly subdir?: string } {
  if (path === ".") return url === "" ? { url, subdir: path } : { url };
  const elsewhere =
    [CWD, "target:", "docker-image:", "oci-layout:"].some((prefix) => path.startsWith(prefix)) ||
    isRemoteUrl(path);
  return elsewhere ? { url: path } : { url: urlWithSubdir(url, path), subdir: path };
}

function urlWithSubdir(url: string, path: string): string {
  const subdir = cleanPath(path);
  const [base, fragment = ""] = cut(url, "#");
  const isGit = isRemoteUrl(url) && (!/^https?:/.test(url) || /\.git$/.test(base.replace(/\?.*$/, "")));
  if (subdir === "." || url === "" || !isGit) return url;
  const [ref, inner] = cut(fragment, ":");
  const query = /[?&]subdir=([^&#]*)/.exec(base);
  const outer = inner ?? (query === null ? "" : decodeURIComponent(query[1] ?? ""));
  const full = outer === "" ? subdir : joinPath(outer, subdir);
  if (fragment === "" && query !== null) {
    return base.replace(/([?&]subdir=)[^&#]*/, `$1${encodeURIComponent(full)}`);
  }
  return `${base}#${ref}:${full}`;
}

const GIT_SECRETS = [
  ["GIT_AUTH_TOKEN", "BUILDX_BAKE_GIT_AUTH_TOKEN"],
  ["GIT_AUTH_HEADER", "BUILDX_BAKE_GIT_AUTH_HEADER"],
] as const;

function hostOf(url: string): string | undefined {
  const scp = /^[a-zA-Z0-9-_]+@([a-zA-Z0-9-.]+):/.exec(url)?.[1];
  return scp ?? /^(?:https?|git|ssh):\/\/(?:[^/@]*@)?([^/?#]+)/i.exec(url)?.[1];
}

/** Credentials for git from the environment, for contexts on the definition's own host. Only names, no values. */
function gitSecrets(url: string, context: string, host: RequestHost): SecretOption[] {
  const [from, to] = [hostOf(url), hostOf(context)];
  if (from === undefined || to === undefined || from.toLowerCase() !== to.toLowerCase()) return [];
  const names = [...host.environ()].map(([name]) => name);
  return GIT_SECRETS.flatMap(([id, variable]) => {
    const env = names.find((name) => name.toUpperCase() === variable);
    return env === undefined ? [] : [{ id: `${id}.${from}`, env }];
  });
}
