import { request as requestHttp } from "node:http";
import { request as requestHttps } from "node:https";
import { BuildError, errorMessage, isBuildError, sleep } from "@kiln/base";

/** How to trust a host. */
export interface HostTls {
  readonly ca?: readonly (string | Uint8Array)[];
  readonly cert?: string | Uint8Array;
  readonly key?: string | Uint8Array;
  readonly insecure?: boolean;
}

/** What to ask a token server. */
export interface TokenRequest {
  readonly realm: string;
  readonly service: string;
  readonly scopes: readonly string[];
  readonly username: string;
  readonly secret: string;
  readonly tls?: HostTls | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** A token server's answer. */
export interface Token {
  readonly token: string;
  readonly expiresInSeconds?: number;
  readonly issuedAt?: Date;
}

/** A token server has answered with another status than 2xx. Stays inside this package. */
export class TokenStatusError extends BuildError {
  readonly status: number;

  constructor(method: string, url: URL, response: { status: number; statusText: string }) {
    const shown = `${url.origin}${url.pathname}`;
    super(
      response.status === 401 || response.status === 403 ? "permission_denied" : "unknown",
      `unexpected status from ${method} request to ${shown}: ${response.status} ${response.statusText}`,
    );
    this.status = response.status;
  }
}

/** Largest answer of a token server. */
const maxResponseBytes = 1 << 20;
/** Longest time for a token, with all attempts. */
const timeoutMs = 60_000;
const maxAttempts = 3;
const retryDelayMs = 300;

/** Fetches a token by GET, with basic authentication when there is a secret. */
export async function fetchTokenByGet(ask: TokenRequest): Promise<Token> {
  const url = urlOf(ask.realm);
  if (ask.service !== "") url.searchParams.append("service", ask.service);
  for (const scope of ask.scopes) url.searchParams.append("scope", scope);
  const headers: Record<string, string> = {};
  if (ask.secret !== "") {
    headers.authorization = `Basic ${Buffer.from(`${ask.username}:${ask.secret}`).toString("base64")}`;
  }
  return readToken(await send(url, { method: "GET", headers, ask }));
}

/** Fetches a token by OAuth2's POST, with the password or (without a username) a refresh token. */
export async function fetchTokenByPost(ask: TokenRequest): Promise<Token> {
  const form = new URLSearchParams();
  if (ask.scopes.length > 0) form.set("scope", ask.scopes.join(" "));
  form.set("service", ask.service);
  form.set("client_id", "buildkit-client");
  if (ask.username === "") {
    form.set("grant_type", "refresh_token");
    form.set("refresh_token", ask.secret);
  } else {
    form.set("grant_type", "password");
    form.set("username", ask.username);
    form.set("password", ask.secret);
  }
  const headers = { "content-type": "application/x-www-form-urlencoded; charset=utf-8" };
  return readToken(await send(urlOf(ask.realm), { method: "POST", headers, body: form.toString(), ask }));
}

function urlOf(realm: string): URL {
  try {
    const url = new URL(realm);
    if (url.protocol === "https:" || url.protocol === "http:") return url;
  } catch {
    // Said below.
  }
  throw new BuildError("invalid_argument", `invalid token realm ${JSON.stringify(realm)}`);
}

interface Sent {
  readonly method: string;
  readonly headers: Record<string, string>;
  readonly body?: string;
  readonly ask: TokenRequest;
}

/** Asks again after 408, 429, 5xx and broken connections, as long as the time for all of it lasts. */
async function send(url: URL, sent: Sent): Promise<string> {
  const { signal } = sent.ask;
  const limit = AbortSignal.timeout(timeoutMs);
  const both = signal ? AbortSignal.any([signal, limit]) : limit;
  for (let attempt = 1; ; attempt++) {
    try {
      return await sendOnce(url, sent, both);
    } catch (error) {
      if (attempt >= maxAttempts || both.aborted || !mayPass(error)) throw error;
    }
    await sleep(retryDelayMs * 2 ** (attempt - 1), both);
  }
}

function mayPass(error: unknown): boolean {
  if (!(error instanceof TokenStatusError)) return isBuildError(error, "unavailable");
  return error.status === 408 || error.status === 429 || (error.status >= 500 && error.status !== 501);
}

function sendOnce(url: URL, sent: Sent, signal: AbortSignal): Promise<string> {
  const { method, headers, body, ask } = sent;
  const { tls } = ask;
  const options = {
    method,
    headers: {
      ...headers,
      ...(body === undefined ? {} : { "content-length": String(Buffer.byteLength(body)) }),
    },
    signal,
    ...(url.protocol === "https:" && tls
      ? {
          rejectUnauthorized: !tls.insecure,
          ...(tls.ca ? { ca: tls.ca.map((c) => Buffer.from(c)) } : {}),
          ...(tls.cert ? { cert: Buffer.from(tls.cert) } : {}),
          ...(tls.key ? { key: Buffer.from(tls.key) } : {}),
        }
      : {}),
  };
  return new Promise((resolve, reject) => {
    const request = (url.protocol === "https:" ? requestHttps : requestHttp)(url, options, (response) => {
      const chunks: Buffer[] = [];
      let size = 0;
      response.on("data", (chunk: Buffer) => {
        size += chunk.length;
        if (size > maxResponseBytes) response.destroy(new Error("the token server's answer is too large"));
        else chunks.push(chunk);
      });
      response.on("error", (error) => reject(unreachable(url, error)));
      response.on("end", () => {
        const status = response.statusCode ?? 0;
        if (status >= 200 && status < 400) resolve(Buffer.concat(chunks).toString("utf8"));
        else reject(new TokenStatusError(method, url, { status, statusText: response.statusMessage ?? "" }));
      });
    });
    request.on("error", (error) => reject(unreachable(url, error)));
    request.end(body);
  });
}

function unreachable(url: URL, error: unknown): BuildError {
  return new BuildError("unavailable", `failed to reach ${url.origin}: ${errorMessage(error)}`, {
    cause: error,
  });
}

function readToken(text: string): Token {
  let json: Record<string, unknown>;
  try {
    json = JSON.parse(text) as Record<string, unknown>;
  } catch (error) {
    throw new BuildError("unknown", `unable to decode token response: ${errorMessage(error)}`);
  }
  const token = stringOf(json.token) || stringOf(json.access_token);
  if (token === "") {
    throw new BuildError("unknown", "authorization server did not include a token in the response");
  }
  const issuedAt = new Date(stringOf(json.issued_at));
  return {
    token,
    ...(typeof json.expires_in === "number" ? { expiresInSeconds: Math.floor(json.expires_in) } : {}),
    ...(Number.isNaN(issuedAt.getTime()) ? {} : { issuedAt }),
  };
}

function stringOf(value: unknown): string {
  return typeof value === "string" ? value : "";
}
