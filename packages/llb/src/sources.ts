import { BuildError } from "@kiln/base";
import { formatReference, parseReference, type Reference, withDefaultTag } from "@kiln/oci";
import { Cap } from "./caps.ts";
import { cleanSubdir, type GitUrl, parseGitUrl } from "./git-url.ts";
import { joinPath } from "./go-path.ts";
import type { OpOptions } from "./metadata.ts";
import { State } from "./state.ts";
import { BuilderVertex, type Draft, fixedOutput, type MarshalOptions, type Output } from "./vertex.ts";

/** Something that comes from outside the build. */
class SourceVertex extends BuilderVertex {
  readonly #identifier: string;
  readonly #attrs: ReadonlyMap<string, string>;
  readonly #caps: readonly string[];

  constructor(
    identifier: string,
    attrs: ReadonlyMap<string, string>,
    caps: readonly string[],
    options: OpOptions,
  ) {
    super(options);
    this.#identifier = identifier;
    this.#attrs = attrs;
    this.#caps = caps;
  }

  override inputs(): readonly Output[] {
    return [];
  }

  protected override draft(options: MarshalOptions): Draft {
    let attrs = this.#attrs;
    let caps = this.#caps;
    if (this.#identifier.startsWith("local://") && !attrs.has("local.session")) {
      attrs = new Map([...attrs, ["local.unique", options.localUniqueId ?? ""]]);
      caps = [...caps, Cap.sourceLocalUnique];
    }
    return {
      body: { kind: "source", source: { identifier: this.#identifier, attrs } },
      inputs: [],
      caps,
      anyPlatform: !/^(?:docker-image|oci-layout):\/\//.test(this.#identifier),
    };
  }
}

/** A source by its identifier; the constructors below know the attributes and capabilities. */
export function source(
  identifier: string,
  attrs: ReadonlyMap<string, string>,
  options: OpOptions & { readonly caps?: readonly string[] } = {},
): State {
  if (identifier === "") throw invalid("source identifier can't be empty");
  const vertex = new SourceVertex(identifier, attrs, [], options);
  return State.of(fixedOutput(vertex, () => 0, options.platform));
}

class Attrs {
  readonly map = new Map<string, string>();
  readonly caps: string[];

  constructor(cap: string) {
    this.caps = [cap];
  }

  /** Sets `key` unless there is no value, and names the capability that it needs. */
  set(key: string, value: string | undefined, cap?: string): void {
    if (value === undefined || value === "") return;
    this.map.set(key, value);
    if (cap !== undefined) this.caps.push(cap);
  }

  state(identifier: string, options: OpOptions): State {
    const vertex = new SourceVertex(identifier, this.map, this.caps, options);
    return State.of(fixedOutput(vertex, () => 0, options.platform));
  }
}

export type ResolveMode = "default" | "pull" | "local";

export interface ImageOptions extends OpOptions {
  /** Whether a registry is asked although the image is there; `default` leaves it to the server. */
  readonly resolveMode?: ResolveMode | undefined;
  readonly recordType?: "regular" | "internal" | "frontend" | undefined;
  /** Takes only so many layers, from the lowest. */
  readonly layerLimit?: number | undefined;
  /** Digest that the resolved manifest must have. */
  readonly checksum?: string | undefined;
}

/** The root file system of an image. Throws `invalid_argument` for what is no image name. */
export function image(ref: string, options: ImageOptions = {}): State {
  const attrs = new Attrs(Cap.sourceImage);
  const mode = options.resolveMode ?? "default";
  if (mode !== "default") {
    attrs.set("image.resolvemode", mode, mode === "pull" ? Cap.sourceImageResolveMode : undefined);
  }
  attrs.set("image.recordtype", options.recordType);
  attrs.set("image.layerlimit", options.layerLimit?.toString(), Cap.sourceImageLayerLimit);
  attrs.set("image.checksum", options.checksum, Cap.sourceImageChecksum);
  return attrs.state(`docker-image://${formatReference(withDefaultTag(parseReference(ref)))}`, options);
}

export interface LocalOptions extends OpOptions {
  /** Session that has the files; without it, any of the build. */
  readonly sessionId?: string | undefined;
  readonly includePatterns?: readonly string[] | undefined;
  readonly excludePatterns?: readonly string[] | undefined;
  /** Only these paths, and what they link to. */
  readonly followPaths?: readonly string[] | undefined;
  /** Lets builds with equal hints share what was transferred. */
  readonly sharedKeyHint?: string | undefined;
  /** How files that the server has already are found; with `required`, an old server refuses. */
  readonly differ?: { readonly type: "none" | "metadata"; readonly required?: boolean } | undefined;
  /** Transfers names and metadata only, but for these paths. */
  readonly metadataOnly?: { readonly except?: readonly string[] } | undefined;
}

/** A directory of the client. */
export function local(name: string, options: LocalOptions = {}): State {
  const attrs = new Attrs(Cap.sourceLocal);
  attrs.set("local.session", options.sessionId, Cap.sourceLocalSessionId);
  attrs.set("local.includepattern", list(options.includePatterns), Cap.sourceLocalIncludePatterns);
  attrs.set("local.followpaths", list(options.followPaths), Cap.sourceLocalFollowPaths);
  attrs.set("local.excludepatterns", list(options.excludePatterns), Cap.sourceLocalExcludePatterns);
  attrs.set("local.sharedkeyhint", options.sharedKeyHint, Cap.sourceLocalSharedKeyHint);
  const differ = options.differ;
  attrs.set("local.differ", differ?.type, differ?.required ? Cap.sourceLocalDiffer : undefined);
  if (options.metadataOnly !== undefined) {
    attrs.set("local.metadatatransfer", "true", Cap.sourceMetadataTransfer);
    attrs.set("local.metadatatransferexclude", list(options.metadataOnly.except));
  }
  return attrs.state(`local://${name}`, options);
}

/** A JSON array as Go writes it; undefined for an empty one. */
function list(values: readonly string[] | undefined): string | undefined {
  if (values === undefined || values.length === 0) return undefined;
  return JSON.stringify(values.map((value) => value.toWellFormed())).replace(
    /[<>&\u2028\u2029\ufffd]/g,
    (c) => (c === "\ufffd" ? c : `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`),
  );
}

export interface GitOptions extends OpOptions {
  readonly ref?: string | undefined;
  readonly subdir?: string | undefined;
  readonly keepGitDir?: boolean | undefined;
  /** Names of secrets; set, they must be understood by the server. */
  readonly authTokenSecret?: string | undefined;
  readonly authHeaderSecret?: string | undefined;
  readonly knownSshHosts?: string | undefined;
  /** Id of the forwarded agent; `default` by default. */
  readonly sshSocket?: string | undefined;
  /** Commit that the checkout must have. */
  readonly checksum?: string | undefined;
  readonly skipSubmodules?: boolean | undefined;
  readonly mtime?: string | undefined;
  readonly advice?: boolean | undefined;
  readonly fetchByCommit?: boolean | undefined;
  readonly bundle?:
    | { readonly locator: string; readonly sessionId?: string; readonly storeId?: string }
    | undefined;
  readonly checkoutBundle?: boolean | undefined;
}

/** A checkout of a git repository. A URL that can't be read fails when it is fetched. */
export function git(url: string, options: GitOptions = {}): State {
  let parsed: GitUrl | undefined;
  let remote = url;
  try {
    parsed = parseGitUrl(url) ?? parseGitUrl(`https://${url}`);
    if (parsed !== undefined) remote = parsed.remote;
  } catch {
    parsed = undefined;
  }
  const attrs = new Attrs(Cap.sourceGit);
  if (options.keepGitDir) attrs.set("git.keepgitdir", "true", Cap.sourceGitKeepDir);
  attrs.set("git.fullurl", remote, Cap.sourceGitFullUrl);
  const auth = options.authTokenSecret ?? options.authHeaderSecret;
  const authCap = auth === undefined ? undefined : Cap.sourceGitHttpAuth;
  attrs.set("git.authtokensecret", options.authTokenSecret ?? "GIT_AUTH_TOKEN", authCap);
  attrs.set("git.authheadersecret", options.authHeaderSecret ?? "GIT_AUTH_HEADER", authCap);
  if (parsed?.scheme === "ssh") {
    attrs.caps.push(Cap.sourceGitKnownSshHosts);
    attrs.set("git.knownsshhosts", options.knownSshHosts);
    attrs.set("git.mountsshsock", options.sshSocket ?? "default", Cap.sourceGitMountSshSock);
  }
  attrs.set("git.checksum", options.checksum, Cap.sourceGitChecksum);
  if (options.skipSubmodules) attrs.set("git.skipsubmodules", "true", Cap.sourceGitSkipSubmodules);
  attrs.set("git.mtime", options.mtime, Cap.sourceGitMtime);
  if (options.advice) attrs.set("git.advice", "true");
  if (options.fetchByCommit) attrs.set("git.fetchbycommit", "true", Cap.sourceGitFetchByCommit);
  attrs.set("git.bundle", options.bundle?.locator, Cap.sourceGitBundle);
  attrs.set("oci.session", options.bundle?.sessionId);
  attrs.set("oci.store", options.bundle?.storeId);
  if (options.checkoutBundle) attrs.set("git.checkoutbundle", "true", Cap.sourceGitCheckoutBundle);
  return attrs.state(`git://${gitId(parsed, remote, options)}`, options);
}

/** The same for all protocols. */
function gitId(parsed: GitUrl | undefined, remote: string, options: GitOptions): string {
  if (parsed === undefined) return remote;
  const ref = options.ref ?? "";
  const subdir = options.subdir ?? "";
  const id = parsed.host + joinPath("/", parsed.path);
  if (ref === "" && subdir === "") return id;
  return subdir === "" ? `${id}#${ref}` : `${id}#${ref}:${subdir}`;
}

/** {@link git} from a URL and its fragment `ref:subdir`. */
export function gitFragment(url: string, fragment: string, options: GitOptions = {}): State {
  const colon = fragment.indexOf(":");
  const ref = colon < 0 ? fragment : fragment.slice(0, colon);
  const subdir = colon < 0 ? "" : cleanSubdir(fragment.slice(colon + 1));
  return git(url, { ref, subdir, ...options });
}

/** Name and owner of a file that is one source. */
export interface FileOptions extends OpOptions {
  readonly filename?: string | undefined;
  readonly mode?: number | undefined;
  readonly uid?: number | undefined;
  readonly gid?: number | undefined;
}

export interface HttpOptions extends FileOptions {
  readonly checksum?: string | undefined;
  readonly authHeaderSecret?: string | undefined;
  readonly header?: { readonly accept?: string; readonly userAgent?: string } | undefined;
  /** OpenPGP key and detached signature, both armoured. */
  readonly signature?: { readonly publicKey: string; readonly signature: string } | undefined;
}

/** A file from a web server. */
export function http(url: string, options: HttpOptions = {}): State {
  const attrs = new Attrs(Cap.sourceHttp);
  attrs.set("http.checksum", options.checksum, Cap.sourceHttpChecksum);
  setFile(attrs, options, true);
  attrs.set("http.authheadersecret", options.authHeaderSecret, Cap.sourceHttpAuth);
  if (options.header !== undefined) {
    attrs.caps.push(Cap.sourceHttpHeader);
    attrs.set("http.header.accept", options.header.accept);
    attrs.set("http.header.user-agent", options.header.userAgent);
  }
  if (options.signature !== undefined) {
    attrs.caps.push(Cap.sourceHttpSignatureVerify);
    attrs.set("http.sig.pubkey", options.signature.publicKey);
    attrs.set("http.sig.signature", options.signature.signature);
  }
  return attrs.state(url, options);
}

function setFile(attrs: Attrs, options: FileOptions, withCaps: boolean): void {
  attrs.set("http.filename", options.filename);
  const mode = (options.mode ?? 0) & 0o777;
  if (mode !== 0) attrs.set("http.perm", `0${mode.toString(8)}`, withCaps ? Cap.sourceHttpPerm : undefined);
  const owner = withCaps ? Cap.sourceHttpUidGid : undefined;
  if (options.uid) attrs.set("http.uid", String(options.uid), owner);
  if (options.gid) attrs.set("http.gid", String(options.gid), owner);
}

/** Where an OCI layout of the client is. */
export interface OciStore {
  readonly sessionId?: string | undefined;
  readonly storeId?: string | undefined;
}

export interface OciLayoutOptions extends OpOptions {
  readonly store?: OciStore | undefined;
  readonly layerLimit?: number | undefined;
}

/** The root file system of an image in an OCI layout of the client; `ref` needs a digest. */
export function ociLayout(ref: string, options: OciLayoutOptions = {}): State {
  const attrs = new Attrs(Cap.sourceOciLayout);
  setStore(attrs, options.store);
  attrs.set("oci.layerlimit", options.layerLimit?.toString());
  return attrs.state(`oci-layout://${ref}`, options);
}

function setStore(attrs: Attrs, store: OciStore | undefined): void {
  attrs.set("oci.session", store?.sessionId);
  attrs.set("oci.store", store?.storeId);
}

/** One blob of a registry as a file; `ref` is a name with a digest and without tag. */
export function imageBlob(ref: string, options: FileOptions = {}): State {
  const attrs = new Attrs(Cap.sourceImageBlob);
  setFile(attrs, options, false);
  return attrs.state(`docker-image+blob://${blobReference(ref)}`, options);
}

/** One blob of an OCI layout of the client as a file. */
export function ociLayoutBlob(ref: string, options: FileOptions & { readonly store?: OciStore } = {}): State {
  const attrs = new Attrs(Cap.sourceImageBlob);
  setFile(attrs, options, false);
  setStore(attrs, options.store);
  return attrs.state(`oci-layout+blob://${blobReference(ref)}`, options);
}

function blobReference(ref: string): string {
  const parsed: Reference = parseReference(ref);
  if (parsed.tag !== undefined) throw invalid("tagged image reference not allowed for blob reference");
  if (parsed.digest === undefined) throw invalid("checksum required in blob reference");
  return formatReference(parsed);
}

function invalid(message: string): BuildError {
  return new BuildError("invalid_argument", message);
}
