import { BuildError, errorMessage, isBuildError, isCanceled, sleep } from "@kiln/base";
import type { RegistryHost } from "./hosts.ts";
import {
  httpStatusOf,
  isTransient,
  isTransientStatus,
  retryAfterMs,
  unexpectedStatus,
  withStatus,
} from "./http-error.ts";
import { type HttpResponse, printableUrl, type RequestBody } from "./http-transport.ts";
import { readBody } from "./read-body.ts";
import type { RegistryLimits } from "./registry.ts";
import type { AuthContext, TokenAuth } from "./token-auth.ts";

const MAX_ERROR_BODY_BYTES = 64_000;

/** One request to one server of a registry. */
export interface HostRequest {
  readonly host: RegistryHost;
  readonly method: string;
  /** Relative to the host's API base, e.g. `library/alpine/manifests/latest`; or a whole URL. */
  readonly target: string | URL;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: RequestBody | undefined;
  readonly scopes: readonly string[];
  /** Sent to mirrors as `ns`. */
  readonly namespace: string;
  readonly signal?: AbortSignal | undefined;
  /**
   * Repeat after 429, 5xx and broken connections. `quick`: after 5xx and broken connections only once, for
   * questions whose failure somebody else tries to make up for. Default true.
   */
  readonly retry?: boolean | "quick";
}

/** What requests of one client share. */
export interface RequestEnv {
  readonly auth: TokenAuth;
  readonly limits: RegistryLimits;
  readonly userAgent: string;
}

/**
 * Sends with authorization, and again when that may help: after a challenge, after 408, 429 and 5xx (waiting
 * as the server asks, within bounds), after a broken connection, and with GET for a HEAD that isn't allowed.
 * Resolves with the last answer, whatever its status.
 */
export async function hostRequest(request: HostRequest, env: RequestEnv): Promise<HttpResponse> {
  const attempts = request.retry === false ? 1 : env.limits.maxAttempts;
  let method = request.method;
  for (let attempt = 1; ; attempt++) {
    let waitMs = env.limits.retryDelayMs * 2 ** (attempt - 1);
    try {
      const response = await authorizedRequest({ ...request, method }, env);
      if (response.status === 405 && method === "HEAD") {
        response.body.destroy();
        method = "GET";
        continue;
      }
      const last = request.retry === "quick" && response.status !== 429 ? 2 : attempts;
      if (!isTransientStatus(response.status) || attempt >= last) return response;
      waitMs = retryAfterMs(response) ?? waitMs;
      response.body.destroy();
    } catch (error) {
      const last = request.retry === "quick" ? 2 : attempts;
      if (isCanceled(error) || !isTransient(error) || attempt >= last) throw error;
    }
    await sleep(Math.min(waitMs, env.limits.maxRetryDelayMs), request.signal);
  }
}

async function authorizedRequest(request: HostRequest, env: RequestEnv): Promise<HttpResponse> {
  const { host, signal } = request;
  const url = targetUrl(request);
  const own = url.host === host.host;
  const ctx: AuthContext = {
    host: host.host,
    transport: host.transport,
    scopes: request.scopes,
    userAgent: env.userAgent,
    signal,
  };
  for (let round = 0; ; round++) {
    const authorization = own ? await authorize(env.auth, ctx) : undefined;
    let response: HttpResponse;
    try {
      response = await host.transport.request({
        method: request.method,
        url,
        headers: {
          "user-agent": env.userAgent,
          ...request.headers,
          ...(authorization === undefined ? {} : { authorization }),
        },
        body: request.body,
        signal,
      });
    } catch (error) {
      if (isCanceled(error) || !isBuildError(error)) throw error;
      throw new BuildError(error.code, `failed to do request: ${errorMessage(error)}`, { cause: error });
    }
    // A server that we were redirected to isn't the one we have credentials for.
    if (response.status !== 401 || !own || response.url.host !== url.host) return response;
    // Two rounds: the first answers the challenge, a second 401 is final.
    if (!(await env.auth.onUnauthorized(response, ctx, round > 0))) return response;
    response.body.destroy();
  }
}

async function authorize(auth: TokenAuth, ctx: AuthContext): Promise<string | undefined> {
  try {
    return await auth.header(ctx);
  } catch (error) {
    if (isCanceled(error)) throw error;
    const again = isTransient(error);
    const code =
      isBuildError(error) && (again || error.code === "permission_denied") ? error.code : "unauthenticated";
    const wrapped = new BuildError(code, `failed to authorize: ${errorMessage(error)}`, { cause: error });
    // The token server's 404 says nothing about the image.
    throw again ? wrapped : withStatus(wrapped, 401);
  }
}

function targetUrl(request: HostRequest): URL {
  if (request.target instanceof URL) return request.target;
  const { scheme, host, path, isProxy } = request.host;
  const url = new URL(`${scheme}://${host}${path}/${request.target}`);
  if (isProxy) url.searchParams.append("ns", request.namespace);
  return url;
}

/**
 * The error for an answer that isn't what was asked for; reads (a bounded part of) its body, which an answer
 * to HEAD doesn't have. `method` is what is named in the text.
 */
export async function errorFromResponse(response: HttpResponse, method: string): Promise<BuildError> {
  let body = "";
  try {
    body = Buffer.from(await readBody(response.body, MAX_ERROR_BODY_BYTES)).toString();
  } catch {
    // A body that can't be read (too long, cut off) only costs the details.
  } finally {
    response.body.destroy();
  }
  return unexpectedStatus({ status: response.status, method, url: printableUrl(response.url), body });
}

/** True when the error stands for a registry's 404. */
export function isMissing(error: unknown): boolean {
  return httpStatusOf(error) === 404 || isBuildError(error, "not_found");
}
