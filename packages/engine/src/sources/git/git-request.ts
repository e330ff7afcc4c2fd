import { cleanPath } from "@kiln/patterns";
import { type BlobLocator, parseBlobLocator } from "../image/blob-source.ts";
import type { SourceRequest } from "../source.ts";
import { invalid } from "../source-attrs.ts";
import { checkGitRef, fullRemote, isCommitSha, isGitTransport, parseGitUrl } from "./git-url.ts";

/** What a `git://` source op says. */
export interface GitRequest {
  /** What git fetches from; may hold credentials. */
  readonly remote: string;
  readonly ref: string;
  readonly subdir: string;
  readonly checksum: string;
  readonly keepGitDir: boolean;
  readonly skipSubmodules: boolean;
  readonly commitMtime: boolean;
  /** Text of `git.mtime`. */
  readonly mtime: string;
  readonly advice: boolean;
  readonly fetchByCommit: boolean;
  readonly checkoutBundle: boolean;
  readonly bundle: BlobLocator | undefined;
  readonly authHeaderSecret: string;
  readonly authTokenSecret: string;
  readonly knownSshHosts: string;
  readonly sshId: string;
  readonly signature: GitSignatureRequest | undefined;
}

/** Who must have signed the commit or tag. */
export interface GitSignatureRequest {
  readonly publicKey: string;
  readonly rejectExpired: boolean;
  readonly requireSignedTag: boolean;
  readonly ignoreSignedTag: boolean;
}

/**
 * A `git://` identifier in one form: host, clean path, ref, clean folder (upstream `GitIdentifier.String`).
 *
 * @throws BuildError `invalid_argument`
 */
export function canonicalGitIdentifier(identifier: string): string {
  const text = identifier.slice(identifier.indexOf("://") + 3);
  const { host, path, ref, subdir } = parseGitUrl(isGitTransport(text) ? text : `https://${text}`);
  const fragment = ref === "" && subdir === "" ? "" : `#${ref}${subdir === "" ? "" : `:${subdir}`}`;
  return `git://${host}${cleanPath(`/${path}`)}${fragment}`;
}

/** Checks a `git://` source. */
export function parseGitRequest(request: SourceRequest): GitRequest {
  const { attrs } = request;
  const text = request.identifier.slice(request.identifier.indexOf("://") + 3);
  const url = parseGitUrl(isGitTransport(text) ? text : `https://${text}`);
  const full = attrs.get("git.fullurl");
  const is = (key: string): boolean => attrs.get(key) === "true";
  const checksum = attrs.get("git.checksum") ?? "";
  if (checksum !== "" && !/^[a-fA-F0-9]{1,64}$/.test(checksum)) {
    throw invalid(`invalid checksum ${checksum} for Git URL, expected hex commit hash`);
  }
  const parsed: GitRequest = {
    remote: full === undefined ? url.remote : fullRemote(url, full),
    ref: checkGitRef(url.ref),
    subdir: url.subdir,
    checksum,
    keepGitDir: is("git.keepgitdir"),
    skipSubmodules: is("git.skipsubmodules"),
    mtime: attrs.get("git.mtime") ?? "",
    commitMtime: attrs.get("git.mtime") === "commit",
    advice: is("git.advice"),
    fetchByCommit: is("git.fetchbycommit"),
    checkoutBundle: is("git.checkoutbundle"),
    bundle: bundleLocator(attrs),
    authHeaderSecret: attrs.get("git.authheadersecret") ?? "",
    authTokenSecret: attrs.get("git.authtokensecret") ?? "",
    knownSshHosts: attrs.get("git.knownsshhosts") ?? "",
    sshId: attrs.get("git.mountsshsock") ?? "",
    signature: signatureRequest(attrs),
  };
  checkBundle(parsed);
  return parsed;
}

function signatureRequest(attrs: ReadonlyMap<string, string>): GitSignatureRequest | undefined {
  if (![...attrs.keys()].some((key) => key.startsWith("git.sig."))) return undefined;
  return {
    publicKey: attrs.get("git.sig.pubkey") ?? "",
    rejectExpired: attrs.get("git.sig.rejectexpired") === "true",
    requireSignedTag: attrs.get("git.sig.requiresignedtag") === "true",
    ignoreSignedTag: attrs.get("git.sig.ignoresignedtag") === "true",
  };
}

function bundleLocator(attrs: ReadonlyMap<string, string>): BlobLocator | undefined {
  const raw = attrs.get("git.bundle") ?? "";
  if (raw === "") return undefined;
  const scheme = /^([^:]*):\/\//.exec(raw)?.[1];
  if (!scheme) throw invalid(`failed to parse git.bundle locator ${JSON.stringify(raw)}: missing scheme`);
  if (scheme !== "docker-image+blob" && scheme !== "oci-layout+blob") {
    throw invalid(
      `git.bundle locator scheme "${scheme}" is not supported; expected "docker-image+blob" or "oci-layout+blob"`,
    );
  }
  // The store of a layout is named after the locator unless the op names one.
  const withStore = new Map(attrs);
  if ((attrs.get("oci.store") ?? "") === "") {
    withStore.set(
      "oci.store",
      raw
        .slice(raw.indexOf("://") + 3)
        .replace(/@.*$/s, "")
        .replace(/:[^:/]*$/, ""),
    );
  }
  const locator = parseBlobLocator(raw, withStore);
  if (!locator.digest.startsWith("sha256:")) {
    throw invalid(
      `git.bundle locator ${JSON.stringify(raw)}: digest algorithm not supported, expected "sha256"`,
    );
  }
  return locator;
}

function checkBundle(request: GitRequest): void {
  if (request.bundle !== undefined) {
    if (request.checksum === "") throw invalid("git.bundle requires git.checksum to be set");
    if (isCommitSha(request.ref) && !request.ref.startsWith(request.checksum)) {
      throw invalid(`expected checksum to match ${request.checksum}, got ${request.ref}`);
    }
  }
  if (!request.checkoutBundle) return;
  if (request.keepGitDir) throw invalid("git.checkoutbundle is incompatible with git.keepgitdir");
  if (request.subdir !== "") throw invalid("git.checkoutbundle is incompatible with git.subdir");
}
