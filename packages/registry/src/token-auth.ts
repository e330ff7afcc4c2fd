import { BuildError, errorMessage, isBuildError, isCanceled, sleep } from "@kiln/base";
import type { Authenticator, Credentials, Token, TokenRequest } from "./authenticator.ts";
import {
  httpStatusOf,
  isTransient,
  isTransientStatus,
  retryAfterMs,
  unexpectedStatus,
  unexpectedTokenStatus,
} from "./http-error.ts";
import { type HttpRequest, type HttpResponse, type HttpTransport, printableUrl } from "./http-transport.ts";
import { readBody } from "./read-body.ts";

const CLIENT_ID = "buildkit-client";
const DEFAULT_EXPIRES_S = 60;
const TOKEN_ATTEMPTS = 3;
const TOKEN_RETRY_DELAY_MS = 200;
/** Longest pause that a token server's Retry-After can cause. */
const MAX_TOKEN_WAIT_MS = 10_000;
const MAX_TOKEN_RESPONSE_BYTES = 1024 * 1024;
const MAX_CHALLENGE_CHARS = 16 * 1024;

/** A challenge of a `WWW-Authenticate` header. Parameter names are lower case. */
export interface Challenge {
  readonly scheme: "basic" | "bearer";
  readonly params: ReadonlyMap<string, string>;
}

type HostState =
  | { readonly kind: "basic"; readonly header: string }
  | {
      readonly kind: "bearer";
      readonly realm: string;
      readonly service: string;
      readonly scopes: readonly string[];
      readonly tokens: Map<string, Promise<CachedToken>>;
    };

interface CachedToken {
  readonly header: string;
  readonly expiresAt: number;
}

/** What is needed to answer for one request. */
export interface AuthContext {
  readonly host: string;
  readonly transport: HttpTransport;
  readonly scopes: readonly string[];
  readonly userAgent: string;
  readonly signal: AbortSignal | undefined;
}

/**
 * Answers the challenges of registries for one {@link Authenticator}: Basic, and Bearer with tokens from GET
 * or OAuth POST, kept until they expire. Safe for concurrent requests; one token per set of scopes is asked
 * for at a time.
 */
export class TokenAuth {
  readonly #authenticator: Authenticator;
  readonly #hosts = new Map<string, HostState>();

  constructor(authenticator: Authenticator) {
    this.#authenticator = authenticator;
  }

  /** Value of `Authorization`; undefined as long as the host hasn't asked for any. */
  async header(ctx: AuthContext): Promise<string | undefined> {
    const state = this.#hosts.get(ctx.host);
    if (state === undefined) return undefined;
    if (state.kind === "basic") return state.header;
    const scopes = normalizeScopes([...state.scopes, ...ctx.scopes]);
    const key = scopes.join(" ");
    let pending = state.tokens.get(key);
    const known = await pending?.catch(() => undefined);
    if (known === undefined || known.expiresAt <= Date.now()) {
      if (state.tokens.get(key) === pending) {
        pending = this.#token(state, scopes, ctx);
        state.tokens.set(key, pending);
        pending.catch(() => {
          if (state.tokens.get(key) === pending) state.tokens.delete(key);
        });
      } else pending = state.tokens.get(key);
    }
    return (await pending!).header;
  }

  /**
   * Takes note of a 401. True: send the request again. False: there is nothing to answer with. `repeated`
   * means that the same request had a 401 before; then an error in the challenge is final.
   */
  async onUnauthorized(response: HttpResponse, ctx: AuthContext, repeated: boolean): Promise<boolean> {
    for (const challenge of parseChallenges(response.headers["www-authenticate"])) {
      if (challenge.scheme === "bearer") {
        const serverError = challenge.params.get("error") ?? "";
        const known = this.#hosts.get(ctx.host);
        if (repeated) {
          this.#hosts.delete(ctx.host);
          if (serverError !== "") throw authorizationFailed(`server message: ${serverError}`);
          return false;
        }
        const before = known?.kind === "bearer" ? known.scopes : [];
        this.#hosts.set(ctx.host, bearerState(challenge, before));
        return true;
      }
      if (repeated) return false;
      const credentials = await this.#authenticator.credentials(ctx.host, ctx.signal);
      if (credentials !== undefined && credentials.username !== "" && credentials.secret !== "") {
        this.#hosts.set(ctx.host, { kind: "basic", header: basicHeader(credentials) });
        return true;
      }
    }
    return false;
  }

  async #token(
    state: Extract<HostState, { kind: "bearer" }>,
    scopes: readonly string[],
    ctx: AuthContext,
  ): Promise<CachedToken> {
    const request: TokenRequest = {
      host: ctx.host,
      realm: state.realm,
      service: state.service,
      scopes,
      clientId: CLIENT_ID,
    };
    const token =
      (await this.#authenticator.fetchToken?.(request, ctx.signal)) ?? (await this.#ask(request, ctx));
    const issuedAt = token.issuedAt ?? Date.now();
    const expiresInS = token.expiresInS || DEFAULT_EXPIRES_S;
    return { header: `Bearer ${token.token}`, expiresAt: issuedAt + expiresInS * 900 };
  }

  async #ask(request: TokenRequest, ctx: AuthContext): Promise<Token> {
    const credentials = await this.#authenticator.credentials(ctx.host, ctx.signal);
    if (credentials === undefined || credentials.secret === "") {
      return prefixed("failed to fetch anonymous token", fetchToken(request, undefined, ctx));
    }
    const secret = credentials.secret;
    return prefixed(
      "failed to fetch oauth token",
      fetchToken(request, credentials, ctx).catch((error: unknown) => {
        // GCR answers 404 to GET, Artifactory 401, others 405.
        const status = httpStatusOf(error);
        const post = status === 404 || status === 401 || (status === 405 && credentials.username !== "");
        if (!post) throw error;
        return fetchOAuthToken(request, { username: credentials.username, secret }, ctx);
      }),
    );
  }
}

function bearerState(challenge: Challenge, before: readonly string[]): HostState {
  const realm = challenge.params.get("realm") ?? "";
  if (!URL.canParse(realm) || !/^https?:/.test(realm)) {
    throw new BuildError("failed_precondition", "no realm specified for token auth challenge");
  }
  const scopes = (challenge.params.get("scope") ?? "").split(" ").filter((scope) => scope !== "");
  return {
    kind: "bearer",
    realm,
    service: challenge.params.get("service") ?? "",
    scopes: normalizeScopes([...scopes, ...before]),
    tokens: new Map(),
  };
}

async function prefixed<T>(prefix: string, work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (error) {
    if (isCanceled(error)) throw error;
    const code = isBuildError(error) ? error.code : "unknown";
    throw new BuildError(code, `${prefix}: ${errorMessage(error)}`, { cause: error });
  }
}

/** Docker's GET (https://distribution.github.io/distribution/spec/auth/token/). */
async function fetchToken(
  request: TokenRequest,
  credentials: Credentials | undefined,
  ctx: AuthContext,
): Promise<Token> {
  const url = new URL(request.realm);
  if (credentials) refusePlainRealm(url, ctx);
  if (request.service !== "") url.searchParams.append("service", request.service);
  for (const scope of request.scopes) url.searchParams.append("scope", scope);
  const response = await askPatiently(ctx, {
    method: "GET",
    url,
    headers: {
      "user-agent": ctx.userAgent,
      ...(credentials ? { authorization: basicHeader(credentials) } : {}),
    },
    signal: ctx.signal,
  });
  return tokenFrom(response, "GET", url, credentials === undefined);
}

/** OAuth2 POST (https://distribution.github.io/distribution/spec/auth/oauth/). */
async function fetchOAuthToken(
  request: TokenRequest,
  credentials: Credentials,
  ctx: AuthContext,
): Promise<Token> {
  const url = new URL(request.realm);
  refusePlainRealm(url, ctx);
  const form = new URLSearchParams();
  if (request.scopes.length > 0) form.set("scope", request.scopes.join(" "));
  form.set("service", request.service);
  form.set("client_id", request.clientId);
  if (credentials.username === "") {
    form.set("grant_type", "refresh_token");
    form.set("refresh_token", credentials.secret);
  } else {
    form.set("grant_type", "password");
    form.set("username", credentials.username);
    form.set("password", credentials.secret);
  }
  const body = Buffer.from(form.toString());
  const response = await askPatiently(ctx, {
    method: "POST",
    url,
    headers: {
      "user-agent": ctx.userAgent,
      "content-type": "application/x-www-form-urlencoded; charset=utf-8",
    },
    body: { sizeBytes: body.length, open: () => [body] },
    signal: ctx.signal,
  });
  return tokenFrom(response, "POST", url, false);
}

/**
 * Asks a token server again after 408, 429, 5xx and broken connections. What asks for the token may have little patience
 * of its own.
 */
async function askPatiently(ctx: AuthContext, request: HttpRequest): Promise<HttpResponse> {
  for (let attempt = 1; ; attempt++) {
    let waitMs = TOKEN_RETRY_DELAY_MS * 2 ** (attempt - 1);
    try {
      const response = await ctx.transport.request(request);
      if (attempt >= TOKEN_ATTEMPTS || !isTransientStatus(response.status)) return response;
      waitMs = retryAfterMs(response) ?? waitMs;
      response.body.destroy();
    } catch (error) {
      if (attempt >= TOKEN_ATTEMPTS || isCanceled(error) || !isTransient(error)) throw error;
    }
    await sleep(Math.min(waitMs, MAX_TOKEN_WAIT_MS), ctx.signal);
  }
}

/** A password isn't sent in the clear to a realm that an encrypted registry names. */
function refusePlainRealm(realm: URL, ctx: AuthContext): void {
  if (realm.protocol === "https:" || realm.host === ctx.host || /^(localhost|127\.|\[::1\])/.test(realm.host))
    return;
  throw new BuildError(
    "permission_denied",
    `refusing to send credentials to ${realm.protocol}//${realm.host}`,
  );
}

async function tokenFrom(
  response: HttpResponse,
  method: string,
  url: URL,
  isAnonymous: boolean,
): Promise<Token> {
  const body = Buffer.from(await readBody(response.body, MAX_TOKEN_RESPONSE_BYTES)).toString();
  if (response.status < 200 || response.status >= 400) {
    const answer = { status: response.status, method, url: tokenUrl(url), body };
    throw isAnonymous ? unexpectedStatus(answer) : unexpectedTokenStatus(answer);
  }
  let answer: unknown;
  try {
    answer = JSON.parse(body);
  } catch (error) {
    throw new BuildError("unknown", "unable to decode token response", { cause: error });
  }
  const fields = typeof answer === "object" && answer !== null ? (answer as Record<string, unknown>) : {};
  const token = fields.access_token || fields.token;
  if (typeof token !== "string" || token === "" || /[\r\n]/.test(token)) {
    throw new BuildError("unauthenticated", "authorization server did not include a token in the response");
  }
  const issuedAt = typeof fields.issued_at === "string" ? Date.parse(fields.issued_at) : Number.NaN;
  return {
    token,
    expiresInS: typeof fields.expires_in === "number" ? fields.expires_in : undefined,
    issuedAt: Number.isNaN(issuedAt) ? undefined : Math.min(issuedAt, Date.now()),
  };
}

/** Scope and service aren't secret and help the reader. */
function tokenUrl(url: URL): string {
  const known = [...url.searchParams.keys()].every((key) => key === "scope" || key === "service");
  return known ? url.href.replace(/\/\/[^/@]*@/, "//") : printableUrl(url);
}

function basicHeader(credentials: Credentials): string {
  return `Basic ${Buffer.from(`${credentials.username}:${credentials.secret}`).toString("base64")}`;
}

/** The error of a registry that turned us away for good. */
export function authorizationFailed(detail: string): BuildError {
  return new BuildError("unauthenticated", `${detail}: authorization failed`);
}

/** Sorted, without doubles, actions merged: `repository:a:pull` and `repository:a:push` are one. */
export function normalizeScopes(scopes: readonly string[]): string[] {
  const actions = new Map<string, Set<string>>();
  for (const scope of scopes.flatMap((text) => text.split(" "))) {
    if (scope === "") continue;
    const [type, name, verbs] = splitScope(scope);
    const key = name === undefined ? type : `${type}:${name}`;
    const known = actions.get(key) ?? new Set();
    for (const verb of verbs?.split(",") ?? []) known.add(verb);
    actions.set(key, known);
  }
  return [...actions].map(([name, verbs]) => `${name}:${[...verbs].sort().join(",")}`).sort();
}

function splitScope(scope: string): [type: string, name?: string, actions?: string] {
  const first = scope.indexOf(":");
  if (first < 0) return [scope];
  const second = scope.indexOf(":", first + 1);
  if (second < 0) return [scope.slice(0, first), scope.slice(first + 1)];
  return [scope.slice(0, first), scope.slice(first + 1, second), scope.slice(second + 1)];
}

/** Basic and Bearer challenges of a header, Bearer first. Others and malformed ones are left out. */
export function parseChallenges(header: string | undefined): readonly Challenge[] {
  if (header === undefined || header.length > MAX_CHALLENGE_CHARS) return [];
  const found: Challenge[] = [];
  let params: Map<string, string> | undefined;
  const token =
    /\s*,?\s*([!#$%&'*+.^_`|~0-9A-Za-z-]+)(?:\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]*))|(?=\s|,|$))/y;
  while (token.lastIndex < header.length) {
    const match = token.exec(header);
    if (!match) break;
    const value = match[2]?.replace(/\\(.)/g, "$1") ?? match[3];
    const word = match[1]!.toLowerCase();
    if (value !== undefined) params?.set(word, value);
    else {
      params = new Map();
      if (word === "basic" || word === "bearer") found.push({ scheme: word, params });
    }
  }
  return found.sort((a, b) => (a.scheme === b.scheme ? 0 : a.scheme === "bearer" ? -1 : 1));
}
