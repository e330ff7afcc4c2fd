/** Cache sources and destinations with what the environment adds to them. */
import type { BuildRequest, CacheOption } from "@kiln/bake";
import { isTrue } from "./outputs.ts";

type Env = Readonly<Record<string, string | undefined>>;

/** Cache options ready for a solve. */
export interface PreparedCaches {
  readonly from: readonly { type: string; attrs: Map<string, string> }[];
  readonly to: readonly { type: string; attrs: Map<string, string> }[];
}

/**
 * The caches of a request. GitHub's and S3's get their credentials from the environment; GitHub's is left out where it
 * has none, and both where the daemon can't use them.
 */
export function prepareCaches(
  request: BuildRequest,
  opts: { caps: ReadonlySet<string>; env: Env },
): PreparedCaches {
  const usable = ({ type }: CacheOption): boolean =>
    (type !== "gha" && type !== "s3") || opts.caps.has(`cache.${type}`);
  const complete = (options: readonly CacheOption[]): { type: string; attrs: Map<string, string> }[] =>
    options
      .filter(usable)
      .map(({ type, attrs }) => ({ type, attrs: withCredentials(type, new Map(attrs), opts.env) }))
      .filter(({ type, attrs }) => type !== "gha" || hasGithubAccess(attrs));
  const to = complete(request.cacheTo);
  if (isTrue(request.args.get("BUILDKIT_INLINE_CACHE"))) to.push({ type: "inline", attrs: new Map() });
  return { from: complete(request.cacheFrom), to };
}

function withCredentials(type: string, attrs: Map<string, string>, env: Env): Map<string, string> {
  const setDefault = (key: string, value: string | undefined): void => {
    if (value && !attrs.has(key)) attrs.set(key, value);
  };
  if (type === "gha") {
    const version = attrs.get("version") ?? (isTrue(env.ACTIONS_CACHE_SERVICE_V2) ? "2" : "");
    setDefault("token", env.ACTIONS_RUNTIME_TOKEN);
    if (version === "2") setDefault("url_v2", env.ACTIONS_RESULTS_URL);
    setDefault("url", env.ACTIONS_CACHE_URL ?? env.ACTIONS_RESULTS_URL);
  } else if (type === "s3" && !(attrs.has("access_key_id") && attrs.has("secret_access_key"))) {
    setDefault("access_key_id", env.AWS_ACCESS_KEY_ID ?? env.AWS_ACCESS_KEY);
    setDefault("secret_access_key", env.AWS_SECRET_ACCESS_KEY ?? env.AWS_SECRET_KEY);
    setDefault("session_token", env.AWS_SESSION_TOKEN);
  }
  return attrs;
}

function hasGithubAccess(attrs: ReadonlyMap<string, string>): boolean {
  return Boolean(attrs.get("token") && (attrs.get("url") || attrs.get("url_v2")));
}
