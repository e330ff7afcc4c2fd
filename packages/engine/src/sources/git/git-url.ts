import { cleanPath } from "@kiln/patterns";
import { invalid } from "../source-attrs.ts";

/** A git remote and what its fragment asks for. */
export interface GitUrl {
  /** `http`, `https`, `ssh` or `git`. */
  readonly scheme: string;
  /** User name and password, as written. */
  readonly userinfo: string;
  /** With its port. */
  readonly host: string;
  readonly path: string;
  readonly isScp: boolean;
  /** For git: without query and fragment. */
  readonly remote: string;
  readonly ref: string;
  /** Cleaned, relative; "" for all. */
  readonly subdir: string;
}

const PROTOCOL = /^([a-zA-Z0-9]+):\/\//;
const PROTOCOLS = new Set(["http", "https", "ssh", "git"]);
const SCP = /^([a-zA-Z0-9_-]+)@([a-zA-Z0-9.-]+):([^?#]*)(?:\?([^#]*))?(?:#(.*))?$/s;
const HOST = /^(?:[a-zA-Z0-9_][a-zA-Z0-9._-]*|\[[0-9a-fA-F:.]+\])(?::\d{1,5})?$/;
const MAX_LENGTH = 4096;

/** True for what git can fetch from as it is; other texts stand for `https://` ones. */
export function isGitTransport(text: string): boolean {
  const protocol = PROTOCOL.exec(text)?.[1]?.toLowerCase();
  return protocol === undefined ? SCP.test(text) : PROTOCOLS.has(protocol);
}

/** Reads `https://host/path#ref:subdir` and `user@host:path#ref:subdir`. */
export function parseGitUrl(text: string): GitUrl {
  if (text.length > MAX_LENGTH || /[\u0000-\u0020\u007f]/.test(text)) throw invalid("invalid git URL");
  if (text.startsWith("-")) throw invalid("invalid git URL: starts with -");
  const protocol = PROTOCOL.exec(text)?.[1]?.toLowerCase();
  if (protocol !== undefined && !PROTOCOLS.has(protocol)) throw invalid(`${protocol}: invalid protocol`);
  return protocol === undefined ? parseScp(text) : parseUrl(text, protocol);
}

function parseUrl(text: string, scheme: string): GitUrl {
  const match = /^[^:]+:\/\/(?:([^/?#]*)@)?([^/?#@]*)([^?#]*)(?:\?[^#]*)?(?:#(.*))?$/s.exec(text);
  if (!match || !HOST.test(match[2]!)) throw invalid("invalid git URL");
  const [, userinfo = "", host, path, fragment = ""] = match;
  const at = userinfo === "" ? "" : `${userinfo}@`;
  return {
    scheme,
    userinfo,
    host: host!,
    path: path!,
    isScp: false,
    remote: `${scheme}://${at}${host}${path}`,
    ...options(decode(fragment)),
  };
}

function parseScp(text: string): GitUrl {
  const match = SCP.exec(text);
  if (!match) throw invalid("unknown protocol");
  const [, user, host, path, , fragment = ""] = match;
  if (host!.startsWith("-") || user!.startsWith("-")) throw invalid("invalid git URL");
  return {
    scheme: "ssh",
    userinfo: user!,
    host: host!,
    path: path!,
    isScp: true,
    remote: `${user}@${host}:${path}`,
    ...options(fragment),
  };
}

function decode(fragment: string): string {
  try {
    return decodeURIComponent(fragment);
  } catch (error) {
    throw invalid("invalid URL escape in git URL fragment", error);
  }
}

function options(fragment: string): { ref: string; subdir: string } {
  const colon = fragment.indexOf(":");
  const ref = colon < 0 ? fragment : fragment.slice(0, colon);
  const subdir = colon < 0 ? "" : cleanPath(`/${fragment.slice(colon + 1)}`).slice(1);
  if (subdir.includes("\0")) throw invalid("invalid git subdir");
  return { ref, subdir };
}

/** True for a full commit id, SHA-1 or SHA-256. */
export function isCommitSha(text: string): boolean {
  return /^(?:[0-9a-f]{40}|[0-9a-f]{64})$/.test(text);
}

/** Refuses names that git could take for an option or that aren't one line. */
export function checkGitRef(ref: string): string {
  if (ref.startsWith("-") || /[\u0000-\u001f\u007f]/.test(ref))
    throw invalid(`invalid git ref ${JSON.stringify(ref)}`);
  return ref;
}

/**
 * The remote of `git.fullurl`, which must be the repository of the identifier by another way: same host, same
 * path but for `.git`. The path is the identifier's.
 */
export function fullRemote(identifier: GitUrl, text: string): string {
  let full: GitUrl;
  try {
    full = parseGitUrl(isGitTransport(text) ? text : `https://${text}`);
  } catch (error) {
    // The text may hold a password.
    throw invalid("failed to parse git.fullurl", error);
  }
  const repository = (path: string): string => cleanPath(`/${path}`).replace(/\.git$/, "");
  if (
    full.host.toLowerCase() !== identifier.host.toLowerCase() ||
    repository(full.path) !== repository(identifier.path)
  ) {
    throw invalid("git.fullurl does not match source identifier");
  }
  const path = cleanPath(`/${identifier.path}`);
  if (full.isScp) return `${full.userinfo}@${full.host}:${full.path.startsWith("/") ? path : path.slice(1)}`;
  const at = full.userinfo === "" ? "" : `${full.userinfo}@`;
  return `${full.scheme}://${at}${full.host}${path}`;
}
