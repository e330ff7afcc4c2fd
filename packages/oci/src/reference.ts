import { BuildError } from "@kiln/base";
import { type Digest, digestProblem } from "./digest.ts";

/**
 * Name of an image, with its domain: `docker.io/library/alpine:3.20@sha256:…`. Grammar and texts are those
 * of github.com/distribution/reference 0.6.
 */
export interface Reference {
  /** Registry host and port; "" only from {@link parseBareReference}. */
  readonly domain: string;
  readonly path: string;
  readonly tag?: string | undefined;
  readonly digest?: Digest | undefined;
}

const DEFAULT_DOMAIN = "docker.io";
const LEGACY_DOMAIN = "index.docker.io";
const OFFICIAL_PREFIX = "library/";
const MAX_PATH_LENGTH = 255;
/** Longer names are refused unread, so that matching stays cheap. */
const MAX_LENGTH = 4096;

const component = "(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])";
const domain = `(?:${component}(?:\\.${component})*|\\[[a-fA-F0-9:]+\\])(?::[0-9]+)?`;
const pathComponent = "[a-z0-9]+(?:(?:[._]|__|[-]+)[a-z0-9]+)*";
const remote = `${pathComponent}(?:/${pathComponent})*`;
const tagPattern = "[\\w][\\w.-]{0,127}";
const digestPattern = "[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}";
const REFERENCE = new RegExp(`^((?:${domain}/)?${remote})(?::(${tagPattern}))?(?:@(${digestPattern}))?$`);
const NAME = new RegExp(`^(?:(${domain})/)?(${remote})$`);
const TAG = new RegExp(`^${tagPattern}$`);
const IDENTIFIER = /^[a-f0-9]{64}$/;

/**
 * Reads a name as the user writes it: `alpine` is `docker.io/library/alpine`. No tag is added (see
 * {@link withDefaultTag}). Throws `invalid_argument` with the reference library's text.
 */
export function parseReference(text: string): Reference {
  if (IDENTIFIER.test(text)) {
    throw invalid(`invalid repository name (${text}), cannot specify 64-byte hexadecimal strings`);
  }
  const [host, rest] = splitDomain(text);
  const colon = rest.indexOf(":");
  const name = colon >= 0 ? rest.slice(0, colon) : rest;
  if (name.toLowerCase() !== name) {
    throw invalid(`invalid reference format: repository name (${name}) must be lowercase`);
  }
  return parseBareReference(`${host}/${rest}`);
}

/** Reads a name by the grammar alone, without Docker's defaults; the domain may then be missing. */
export function parseBareReference(text: string): Reference {
  const match = text.length > MAX_LENGTH ? null : REFERENCE.exec(text);
  if (!match) {
    if (text === "") throw invalid("repository name must have at least one component");
    if (text.length <= MAX_LENGTH && REFERENCE.test(text.toLowerCase())) {
      throw invalid("repository name must be lowercase");
    }
    throw invalid("invalid reference format");
  }
  const name = NAME.exec(match[1]!);
  const path = name ? name[2]! : match[1]!;
  if (path.length > MAX_PATH_LENGTH) {
    throw invalid(`repository name must not be more than ${MAX_PATH_LENGTH} characters`);
  }
  if (match[3] !== undefined) {
    const problem = digestProblem(match[3]);
    if (problem !== undefined) throw invalid(problem);
  }
  return {
    domain: name?.[1] ?? "",
    path,
    ...(match[2] === undefined ? {} : { tag: match[2] }),
    ...(match[3] === undefined ? {} : { digest: match[3] as Digest }),
  };
}

/** As {@link parseReference}, then `latest` when bare; a tag beside a digest is dropped (`ParseDockerRef`). */
export function parseDockerReference(text: string): Reference {
  const ref = parseReference(text);
  return ref.digest === undefined ? withDefaultTag(ref) : withoutTag(ref);
}

/** True when `text` can be read by {@link parseReference}. */
export function isReference(text: string): boolean {
  try {
    parseReference(text);
    return true;
  } catch {
    return false;
  }
}

function splitDomain(name: string): [string, string] {
  const slash = name.indexOf("/");
  if (slash < 0) return [DEFAULT_DOMAIN, OFFICIAL_PREFIX + name];
  const maybe = name.slice(0, slash);
  const rest = name.slice(slash + 1);
  let host = DEFAULT_DOMAIN;
  let path = name;
  if (maybe === LEGACY_DOMAIN) path = rest;
  else if (maybe === "localhost" || /[.:]/.test(maybe) || maybe.toLowerCase() !== maybe) {
    host = maybe;
    path = rest;
  }
  if (host === DEFAULT_DOMAIN && !path.includes("/")) path = OFFICIAL_PREFIX + path;
  return [host, path];
}

/** `domain/path`, without tag and digest. */
export function referenceName(ref: Reference): string {
  return ref.domain === "" ? ref.path : `${ref.domain}/${ref.path}`;
}

/** The whole name: `domain/path[:tag][@digest]`. */
export function formatReference(ref: Reference): string {
  const tag = ref.tag === undefined ? "" : `:${ref.tag}`;
  const digest = ref.digest === undefined ? "" : `@${ref.digest}`;
  return `${referenceName(ref)}${tag}${digest}`;
}

/** The name as people write it: `alpine` for `docker.io/library/alpine`. */
export function familiarName(ref: Reference): string {
  if (ref.domain !== DEFAULT_DOMAIN) return referenceName(ref);
  const rest = ref.path.startsWith(OFFICIAL_PREFIX) ? ref.path.slice(OFFICIAL_PREFIX.length) : "/";
  return rest.includes("/") ? ref.path : rest;
}

/** {@link familiarName} with tag and digest. */
export function familiarReference(ref: Reference): string {
  return formatReference({ ...ref, domain: "", path: familiarName(ref) });
}

/** True without tag and digest. */
export function isNameOnly(ref: Reference): boolean {
  return ref.tag === undefined && ref.digest === undefined;
}

/** Adds `latest` to a bare name. */
export function withDefaultTag(ref: Reference): Reference {
  return isNameOnly(ref) ? { ...ref, tag: "latest" } : ref;
}

/** The same name with another tag; throws `invalid tag format`. A digest stays. */
export function withTag(ref: Reference, tag: string): Reference {
  if (!TAG.test(tag)) throw invalid("invalid tag format");
  return { ...ref, tag };
}

/** The same name and tag with a digest. */
export function withDigest(ref: Reference, digest: Digest): Reference {
  return { ...ref, digest };
}

/** The same name without its tag. */
export function withoutTag(ref: Reference): Reference {
  const { tag: _, ...rest } = ref;
  return rest;
}

/** The bare name, without tag and digest. */
export function trimReference(ref: Reference): Reference {
  return { domain: ref.domain, path: ref.path };
}

/** True for a well-formed tag. */
export function isTag(text: string): boolean {
  return TAG.test(text);
}

function invalid(message: string): BuildError {
  return new BuildError("invalid_argument", message);
}
