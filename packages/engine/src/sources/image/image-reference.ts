import { type Digest, digestProblem, formatReference, parseReference, type Reference } from "@kiln/oci";
import { invalid } from "../source-attrs.ts";

/**
 * The reference of `docker-image://…` and `docker-image+blob://…`. Short names are completed as Docker does
 * it, so that a policy for a name can't be passed by another spelling of it.
 */
export function parseImageReference(text: string): Reference {
  let ref: Reference;
  try {
    ref = parseReference(text);
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    throw invalid(`failed to parse image reference ${JSON.stringify(text)}: ${message}`, error);
  }
  if (ref.tag === undefined && ref.digest === undefined) throw invalid("object required");
  return ref;
}

/** Name and digest of `oci-layout://…`: the name is the client's own, only the digest counts. */
export interface LayoutReference {
  readonly text: string;
  /** The name without tag and digest; also the id of the store when none is given. */
  readonly locator: string;
  readonly digest: Digest | undefined;
}

/** The reference of `oci-layout://…` and `oci-layout+blob://…`. */
export function parseLayoutReference(text: string): LayoutReference {
  const match = /^([^@\s]{1,512}?)(?::([^@:/\s]{1,128}))?(?:@([^@\s]{1,256}))?$/.exec(text);
  if (!match) throw invalid(`invalid reference ${JSON.stringify(text)}`);
  if (match[2] === undefined && match[3] === undefined) throw invalid("object required");
  if (match[3] !== undefined) {
    const problem = digestProblem(match[3]);
    if (problem !== undefined) throw invalid(problem);
  }
  return { text, locator: match[1]!, digest: match[3] as Digest | undefined };
}

/** Name of the repository: `docker.io/library/alpine`. */
export function repositoryOf(ref: Reference): string {
  return `${ref.domain}/${ref.path}`;
}

export { formatReference };
