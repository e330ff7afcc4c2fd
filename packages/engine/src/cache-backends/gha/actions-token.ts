import { invalid } from "../cache-attrs.ts";

/** A part of a repository's caches, and whether this build may write there. */
export interface ActionsScope {
  readonly scope: string;
  readonly canWrite: boolean;
}

const MAX_SCOPES = 64;
const WRITE = 2;

/**
 * The scopes that a runtime token of GitHub Actions is good for. The token isn't verified: the service does
 * that.
 *
 * @throws BuildError `invalid_argument` for anything else than a token that holds now.
 */
export function actionsScopes(token: string, nowMs: number): readonly ActionsScope[] {
  const claims = claimsOf(token);
  const { ac, exp, nbf } = claims;
  if (typeof ac !== "string") throw invalid("invalid token without access controls");
  if (typeof exp !== "number") throw invalid("invalid token without expiration time");
  if (typeof nbf !== "number") throw invalid("invalid token without issue time");
  if (nowMs > exp * 1000) throw invalid(`cache token expired at ${new Date(exp * 1000).toISOString()}`);
  if (nowMs < nbf * 1000)
    throw invalid(`invalid token with future issue time ${new Date(nbf * 1000).toISOString()}`);
  const list = parseJson(ac, "failed to parse token access controls");
  if (!Array.isArray(list)) throw invalid("failed to parse token access controls");
  if (list.length > MAX_SCOPES) throw invalid(`token with more than ${MAX_SCOPES} scopes`);
  return list.map((entry: unknown) => {
    const { Scope: scope, Permission: permission } = (entry ?? {}) as Record<string, unknown>;
    if (typeof scope !== "string" || typeof permission !== "number")
      throw invalid("failed to parse token access controls");
    return { scope, canWrite: (permission & WRITE) !== 0 };
  });
}

function claimsOf(token: string): Readonly<Record<string, unknown>> {
  const parts = token.split(".");
  if (parts.length !== 3) throw invalid("token contains an invalid number of segments");
  const text = Buffer.from(parts[1] ?? "", "base64url").toString("utf8");
  const claims = parseJson(text, "token could not be decoded");
  if (typeof claims !== "object" || claims === null) throw invalid("invalid token without claims map");
  return claims as Record<string, unknown>;
}

/** The text is part of a secret: it isn't shown. */
function parseJson(text: string, failure: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw invalid(failure);
  }
}
