import { parseGitRef } from "@kiln/dockerfile";
import { redactCredentials } from "../../sources/redact.ts";
import type { Capture, SecretUse } from "./capture.ts";

/** Digests by algorithm, without the algorithm's prefix. */
export type DigestSet = ReadonlyMap<string, string>;

/** Where the build's definition came from. */
export interface ConfigSource {
  readonly uri: string | undefined;
  readonly digest: DigestSet | undefined;
  readonly path: string | undefined;
}

/** What was asked of a frontend, as provenance tells it. */
export interface RequestParameters {
  readonly frontend: string;
  readonly args: ReadonlyMap<string, string>;
  readonly secrets: readonly SecretUse[];
  readonly ssh: readonly SecretUse[];
  readonly locals: readonly string[];
  readonly inputs: ReadonlyMap<string, RequestRecord>;
  readonly root: RequestRecord | undefined;
}

/** A request with what its build context was. */
export interface RequestRecord {
  readonly configSource: ConfigSource;
  readonly request: RequestParameters;
}

/** Arguments that say how and where to build, not what. */
const HOST_ARGS: ReadonlySet<string> = new Set([
  "cgroup-parent",
  "image-resolve-mode",
  "platform",
  "cache-imports",
]);

const PROXY_ARG = /^build-arg:(?:https?|ftp|all)_proxy$/i;

/** The arguments of a frontend that provenance tells of; contexts and proxies without credentials. */
export function filterArgs(attrs: ReadonlyMap<string, string>): Map<string, string> {
  const contextKey = attrs.get("contextkey") || "context";
  const kept = new Map<string, string>();
  for (const [key, value] of attrs) {
    if (HOST_ARGS.has(key) || key.startsWith("attest:")) continue;
    const isUrl =
      key === contextKey || key === "vcs:source" || key.startsWith("context:") || PROXY_ARG.test(key);
    kept.set(key, isUrl ? redactCredentials(value) : value);
  }
  return kept;
}

/** Splits a request's context from its other arguments; looks up what the context was resolved to. */
export function requestRecord(
  frontend: string,
  given: ReadonlyMap<string, string>,
  capture: Capture | undefined,
): RequestRecord {
  const args = new Map(given);
  const inputContext = args.get("input:context") ? "input:context" : "context";
  const contextKey = args.get("contextkey") || inputContext;
  const context = args.get(contextKey) ?? "";
  const path = args.get("filename") ?? "";
  if (context !== "") args.delete(contextKey);
  if (path !== "") args.delete("filename");
  const material = context === "" ? undefined : findMaterial(capture, context);
  return {
    configSource: {
      uri: context === "" ? undefined : redactCredentials(material?.uri ?? context),
      digest: material?.digest,
      path: path === "" ? undefined : path,
    },
    request: { frontend, args, secrets: [], ssh: [], locals: [], inputs: new Map(), root: undefined },
  };
}

function findMaterial(
  capture: Capture | undefined,
  context: string,
): { uri: string; digest: DigestSet } | undefined {
  if (capture === undefined) return undefined;
  const repository = gitFragment(context, false) ?? context;
  const git = capture.git.find((item) => item.url === repository);
  if (git !== undefined) {
    return { uri: gitFragment(context, true) ?? context, digest: commitDigest(git.commit) };
  }
  const http = capture.http.find((item) => item.url === repository);
  return http && { uri: http.url, digest: digestSet(http.digest) };
}

/** A git context as `remote#ref[:subdir]`; undefined for what is none. */
function gitFragment(context: string, withSubdir: boolean): string | undefined {
  let parsed: ReturnType<typeof parseGitRef>;
  try {
    parsed = parseGitRef(context);
  } catch {
    // malformed queries were refused when the context was loaded; here they only don't match
    return undefined;
  }
  if (parsed === undefined) return undefined;
  const ref = parsed.ref ?? "";
  const subdir = withSubdir ? cleanSubdir(parsed.subdir ?? "") : "";
  if (ref === "" && subdir === "") return parsed.remote;
  return `${parsed.remote}#${ref}${subdir === "" ? "" : `:${subdir}`}`;
}

function cleanSubdir(path: string): string {
  const parts: string[] = [];
  for (const part of path.split("/")) {
    if (part === "..") parts.pop();
    else if (part !== "" && part !== ".") parts.push(part);
  }
  return parts.join("/");
}

/** A commit's id as a digest: SHA-1 or, with 64 digits, SHA-256. */
export function commitDigest(commit: string): DigestSet {
  return new Map([[commit.length === 64 ? "sha256" : "sha1", commit]]);
}

/** `sha256:abc` as in-toto writes it. */
export function digestSet(digest: string): DigestSet {
  const at = digest.indexOf(":");
  return new Map([[digest.slice(0, at), digest.slice(at + 1)]]);
}

/** Two requests that say the same, in whatever order. */
export function sameRequest(a: RequestRecord, b: RequestRecord): boolean {
  return recordKey(a) === recordKey(b);
}

function recordKey({ configSource, request }: RequestRecord): string {
  return JSON.stringify([
    configSource.uri ?? "",
    configSource.path ?? "",
    entries(configSource.digest ?? new Map()),
    request.frontend,
    entries(request.args),
    request.secrets.map(({ id, optional }) => [id, optional]),
    request.ssh.map(({ id, optional }) => [id, optional]),
    request.locals,
    entries(new Map([...request.inputs].map(([name, input]) => [name, recordKey(input)]))),
    request.root === undefined ? null : recordKey(request.root),
  ]);
}

function entries(map: ReadonlyMap<string, string>): [string, string][] {
  return [...map].sort(([a], [b]) => (a < b ? -1 : 1));
}

/** The record without the root that it was asked under. */
export function withoutRoot(record: RequestRecord): RequestRecord {
  return { ...record, request: { ...record.request, root: undefined } };
}

/**
 * Removes what `mode=min` doesn't tell: build arguments, labels, secrets, SSH agents.
 *
 * @returns also whether arguments were removed, which makes the request incomplete.
 */
export function minimalRequest(request: RequestParameters): {
  readonly request: RequestParameters;
  readonly incomplete: boolean;
} {
  const args = [...request.args].filter(
    ([key]) => !key.startsWith("build-arg:") && !key.startsWith("label:"),
  );
  let incomplete = args.length < request.args.size;
  const scrub = (record: RequestRecord): RequestRecord => {
    const inner = minimalRequest(record.request);
    incomplete ||= inner.incomplete;
    return { ...record, request: inner.request };
  };
  const inputs = new Map([...request.inputs].map(([name, input]) => [name, scrub(input)]));
  const root = request.root && scrub(request.root);
  return { request: { ...request, args: new Map(args), secrets: [], ssh: [], inputs, root }, incomplete };
}
