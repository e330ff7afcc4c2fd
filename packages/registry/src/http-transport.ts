import { getServers } from "node:dns";
import {
  Agent as HttpAgent,
  request as httpRequest,
  type IncomingHttpHeaders,
  type IncomingMessage,
} from "node:http";
import { Agent as HttpsAgent, request as httpsRequest } from "node:https";
import { isIP } from "node:net";
import { createSecureContext, getCACertificates, type SecureContext } from "node:tls";
import { BuildError, isBuildError, redactUrls } from "@kiln/base";
import {
  type AddressPolicy,
  forbiddenAddress,
  guardedLookup,
  hostWithoutPort,
  isAllowedAddress,
  isLocalHost,
} from "./address-guard.ts";
import { asPermanent } from "./http-error.ts";
import { type Env, proxyForUrl } from "./proxy.ts";

/** Trust and identity for TLS; PEM texts. */
export interface TlsOptions {
  /** Added to the system's roots. */
  readonly ca?: readonly string[];
  readonly keyPairs?: readonly { readonly cert: string; readonly key: string }[];
  /** Accept any certificate. */
  readonly insecure?: boolean;
}

/** How a transport connects. */
export interface HttpTransportOptions {
  readonly tls?: TlsOptions;
  /** When an `https:` request fails for lack of TLS, repeat it over plain HTTP and remember that. */
  readonly plainFallback?: boolean;
  /** Where proxies come from; none without. */
  readonly env?: Env;
  /** For the URL asked for; {@link redirectPolicy} holds for where the server sends us. Default `any`. */
  readonly addressPolicy?: AddressPolicy;
  /** Default `noLinkLocal`, and `publicOnly` when the first host isn't itself local. */
  readonly redirectPolicy?: AddressPolicy;
  /** Follow redirects from HTTPS to HTTP, as browsers and download tools do. Default false. */
  readonly allowDowngrade?: boolean;
  readonly connectTimeoutMs?: number;
  /** Longest wait for the head of an answer. */
  readonly headTimeoutMs?: number;
}

/** A body that can be sent again. */
export interface RequestBody {
  readonly sizeBytes: number;
  open(): AsyncIterable<Uint8Array> | Iterable<Uint8Array>;
}

/** One request. */
export interface HttpRequest {
  readonly method: string;
  readonly url: URL;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: RequestBody | undefined;
  readonly signal?: AbortSignal | undefined;
  /** Most redirects to follow; 0 returns the redirect itself. Default 10. */
  readonly maxRedirects?: number;
}

/** An answer. The caller reads the body to its end or destroys it. */
export interface HttpResponse {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  /** After redirects. */
  readonly url: URL;
  readonly body: IncomingMessage;
}

const MAX_REDIRECTS = 10;
const CONNECT_TIMEOUT_MS = 30_000;
const HEAD_TIMEOUT_MS = 60_000;
const MAX_HEADER_BYTES = 64 * 1024;
/** What must not follow a redirect to another origin (CVE-2020-15157). */
const CREDENTIAL_HEADERS = ["authorization", "cookie", "proxy-authorization", "www-authenticate"];

/**
 * HTTP/1.1 with redirects, proxies and TLS options. No cookies, no decompression, no retries; credentials
 * never follow to another origin, and a redirect never leads from HTTPS to HTTP or to a metadata service.
 */
export class HttpTransport implements Disposable {
  readonly #options: HttpTransportOptions;
  readonly #agents = new Map<string, HttpAgent>();
  readonly #plainHosts = new Set<string>();
  #context: SecureContext | undefined;

  constructor(options: HttpTransportOptions = {}) {
    this.#options = options;
  }

  /** Sends; resolves with any status. Throws `unavailable` or `deadline_exceeded` when there's no answer. */
  async request(request: HttpRequest): Promise<HttpResponse> {
    let current: HttpRequest = request;
    let policy = this.#options.addressPolicy ?? "any";
    const max = request.maxRedirects ?? MAX_REDIRECTS;
    for (let redirects = 0; ; redirects++) {
      const response = await this.#sendWithFallback(current, policy);
      const location = response.headers.location;
      if (max === 0 || location === undefined || !isRedirect(response.status)) return response;
      response.body.destroy();
      if (redirects >= max) {
        throw new BuildError("failed_precondition", `stopped after ${max} redirects`);
      }
      current = redirected(current, response, { location, downgrade: this.#options.allowDowngrade ?? false });
      if (current.url.hostname !== request.url.hostname) {
        const local = isLocalHost(request.url.host);
        policy = this.#options.redirectPolicy ?? (local ? "noLinkLocal" : "publicOnly");
      }
    }
  }

  async #sendWithFallback(request: HttpRequest, policy: AddressPolicy): Promise<HttpResponse> {
    const { url } = request;
    if (!this.#options.plainFallback || url.protocol !== "https:") return this.#send(request, policy);
    const plain = new URL(url);
    plain.protocol = "http:";
    if (url.port === "") plain.port = "";
    if (!this.#plainHosts.has(url.host)) {
      try {
        return await this.#send(request, policy);
      } catch (error) {
        if (!isTlsMissing(error, url)) throw error;
        this.#plainHosts.add(url.host);
      }
    }
    return this.#send({ ...request, url: plain }, policy);
  }

  async #send(request: HttpRequest, policy: AddressPolicy): Promise<HttpResponse> {
    const { url, method, signal } = request;
    signal?.throwIfAborted();
    const host = hostWithoutPort(url.host);
    const proxy = this.#options.env ? proxyForUrl(url, this.#options.env) : undefined;
    if (proxy === undefined && isIP(host) !== 0 && !isAllowedAddress(host, policy))
      throw forbiddenAddress(host);
    const send = url.protocol === "https:" ? httpsRequest : httpRequest;
    const headers: Record<string, string> = { ...request.headers };
    if (request.body) headers["content-length"] = String(request.body.sizeBytes);
    const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
    const message = send(url, {
      method,
      headers,
      agent: this.#agent(url, proxy),
      maxHeaderSize: MAX_HEADER_BYTES,
      ...(proxy === undefined && policy !== "any" ? { lookup: guardedLookup(policy) } : {}),
      ...(signal === undefined ? {} : { signal }),
    });
    const timer = setTimeout(
      () => message.destroy(timeoutError("timeout awaiting response headers")),
      this.#options.headTimeoutMs ?? HEAD_TIMEOUT_MS,
    );
    message.on("response", resolve);
    message.on("error", reject);
    message.on("socket", (socket) => {
      if (!socket.connecting) return;
      const connectTimer = setTimeout(
        () => message.destroy(timeoutError("dial tcp: i/o timeout")),
        this.#options.connectTimeoutMs ?? CONNECT_TIMEOUT_MS,
      );
      const ready = url.protocol === "https:" ? "secureConnect" : "connect";
      const clear = (): void => clearTimeout(connectTimer);
      socket.once(ready, clear).once("close", clear);
    });
    try {
      const sent = request.body ? writeBody(message, request.body, () => timer.refresh()) : undefined;
      if (!request.body) message.end();
      sent?.catch((error: unknown) => {
        reject(error);
        message.destroy();
      });
      const body = await promise;
      return { status: body.statusCode ?? 0, headers: body.headers, url, body };
    } catch (error) {
      message.destroy();
      signal?.throwIfAborted();
      throw requestError(error, method, url);
    } finally {
      clearTimeout(timer);
    }
  }

  #agent(url: URL, proxy: string | undefined): HttpAgent {
    const key = `${url.protocol}${proxy ?? ""}`;
    let agent = this.#agents.get(key);
    if (!agent) {
      const proxyEnv = proxy === undefined ? undefined : { HTTP_PROXY: proxy, HTTPS_PROXY: proxy };
      const common = {
        keepAlive: true,
        maxFreeSockets: 8,
        timeout: 120_000,
        ...(proxyEnv === undefined ? {} : { proxyEnv }),
      };
      agent =
        url.protocol === "https:"
          ? new HttpsAgent({
              ...common,
              secureContext: this.#secureContext(),
              rejectUnauthorized: !this.#options.tls?.insecure,
              ALPNProtocols: ["http/1.1"],
            })
          : new HttpAgent(common);
      this.#agents.set(key, agent);
    }
    return agent;
  }

  /** Made once: parsing the system's roots for every connection would cost more than the handshake. */
  #secureContext(): SecureContext {
    this.#context ??= createSecureContext({
      ca: [...rootCertificates(), ...(this.#options.tls?.ca ?? [])],
      cert: this.#options.tls?.keyPairs?.map((pair) => pair.cert),
      key: this.#options.tls?.keyPairs?.map((pair) => pair.key),
    });
    return this.#context;
  }

  [Symbol.dispose](): void {
    for (const agent of this.#agents.values()) agent.destroy();
    this.#agents.clear();
  }
}

let roots: readonly string[] | undefined;

/** Node's bundled roots and those of the system, so that a company's own CA works as with other tools. */
function rootCertificates(): readonly string[] {
  roots ??= [...new Set([...getCACertificates("bundled"), ...getCACertificates("system")])];
  return roots;
}

function isRedirect(status: number): boolean {
  return status === 301 || status === 302 || status === 303 || status === 307 || status === 308;
}

function redirected(
  request: HttpRequest,
  response: HttpResponse,
  to: { readonly location: string; readonly downgrade: boolean },
): HttpRequest {
  const { location } = to;
  if (!URL.canParse(location, response.url)) {
    throw new BuildError("failed_precondition", "redirect to a malformed URL");
  }
  const url = new URL(location, response.url);
  if (url.protocol !== "https:" && url.protocol !== "http:") {
    throw new BuildError("permission_denied", `refusing redirect to ${url.protocol}`);
  }
  const secure = request.url.protocol === "https:" && response.url.protocol === "https:";
  if (secure && url.protocol === "http:" && !to.downgrade) {
    throw new BuildError("permission_denied", `refusing redirect from https to http (${url.host})`);
  }
  const headers = new Map(Object.entries(request.headers ?? {}));
  if (url.origin !== response.url.origin) {
    for (const name of headers.keys())
      if (CREDENTIAL_HEADERS.includes(name.toLowerCase())) headers.delete(name);
  }
  url.username = "";
  url.password = "";
  const { status } = response;
  const toGet = status === 303 || ((status === 301 || status === 302) && request.method === "POST");
  const method = toGet && request.method !== "HEAD" ? "GET" : request.method;
  return {
    ...request,
    method,
    url,
    headers: Object.fromEntries(headers),
    body: method === request.method ? request.body : undefined,
  };
}

/** Sends the body as fast as the connection takes it; stops when the answer comes first. */
async function writeBody(
  message: ReturnType<typeof httpRequest>,
  body: RequestBody,
  onProgress: () => void,
): Promise<void> {
  let answered = false;
  message.once("response", () => {
    answered = true;
  });
  let sent = 0;
  for await (const chunk of body.open()) {
    if (answered || message.destroyed) return;
    sent += chunk.length;
    if (sent > body.sizeBytes) break;
    onProgress();
    if (!message.write(chunk)) await drained(message);
  }
  if (sent !== body.sizeBytes && !answered && !message.destroyed) {
    throw new BuildError("data_loss", `body has ${sent} bytes, expected ${body.sizeBytes}`);
  }
  message.end();
}

function drained(message: ReturnType<typeof httpRequest>): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      message.off("drain", done).off("close", done).off("response", done);
      resolve();
    };
    message.on("drain", done).on("close", done).on("response", done);
  });
}

function timeoutError(text: string): Error {
  return Object.assign(new Error(text), { code: "ETIMEDOUT" });
}

/** True when the peer doesn't speak TLS, or nobody listens and no port was named. */
function isTlsMissing(error: unknown, url: URL): boolean {
  const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error;
  const code = cause instanceof Error && "code" in cause ? String(cause.code) : "";
  if (
    code === "EPROTO" ||
    code === "ERR_SSL_WRONG_VERSION_NUMBER" ||
    code === "ERR_SSL_PACKET_LENGTH_TOO_LONG"
  ) {
    return true;
  }
  return url.port === "" && (code === "ECONNREFUSED" || code === "ETIMEDOUT");
}

/** Node's errors in the words of Go's net/http, which people and tools know from registries. */
function requestError(error: unknown, method: string, url: URL): unknown {
  if (isBuildError(error)) return error;
  const code = error instanceof Error && "code" in error ? String(error.code) : "";
  const port = url.port || (url.protocol === "https:" ? "443" : "80");
  const text = describe(error, code, `${hostWithoutPort(url.host)}`, port);
  const verb = method[0]!.toUpperCase() + method.slice(1).toLowerCase();
  const message = redactUrls(`${verb} "${printableUrl(url)}": ${text}`);
  if (isBuildError(error instanceof Error ? error.cause : undefined, "permission_denied")) {
    return new BuildError("permission_denied", message, { cause: error });
  }
  const timeout = code === "ETIMEDOUT" || code === "ESOCKETTIMEDOUT";
  const failure = new BuildError(timeout ? "deadline_exceeded" : "unavailable", message, { cause: error });
  return isPermanent(code) ? asPermanent(failure) : failure;
}

function isPermanent(code: string): boolean {
  return (
    code === "ECONNREFUSED" ||
    code === "ENOTFOUND" ||
    code.startsWith("ERR_TLS") ||
    code.includes("CERT") ||
    code.includes("VERIFY")
  );
}

function describe(error: unknown, code: string, host: string, port: string): string {
  switch (code) {
    case "ECONNREFUSED":
      return `dial tcp ${addressOf(error) ?? host}:${port}: connect: connection refused`;
    case "EHOSTUNREACH":
      return `dial tcp ${addressOf(error) ?? host}:${port}: connect: no route to host`;
    case "ENETUNREACH":
      return `dial tcp ${addressOf(error) ?? host}:${port}: connect: network is unreachable`;
    case "ENOTFOUND":
      return `dial tcp: lookup ${host}${nameServer()}: no such host`;
    case "EAI_AGAIN":
      return `dial tcp: lookup ${host}${nameServer()}: server misbehaving`;
    case "ECONNRESET":
    case "EPIPE":
      return "read tcp: connection reset by peer";
    case "SELF_SIGNED_CERT_IN_CHAIN":
    case "DEPTH_ZERO_SELF_SIGNED_CERT":
    case "UNABLE_TO_VERIFY_LEAF_SIGNATURE":
    case "UNABLE_TO_GET_ISSUER_CERT_LOCALLY":
      return "tls: failed to verify certificate: x509: certificate signed by unknown authority";
    default:
      return error instanceof Error ? error.message : String(error);
  }
}

/** ` on <address>:53` of the first name server. */
function nameServer(): string {
  const [first] = getServers();
  if (first === undefined) return "";
  return ` on ${/^\[.*\]:\d+$|^[^:]+:\d+$/.test(first) ? first : isIP(first) === 6 ? `[${first}]:53` : `${first}:53`}`;
}

function addressOf(error: unknown): string | undefined {
  const address = error instanceof Error && "address" in error ? error.address : undefined;
  return typeof address === "string" ? address : undefined;
}

/** A URL for messages: without userinfo; the values of its query stay out, since they may be signatures. */
export function printableUrl(url: URL): string {
  const query = [...url.searchParams.keys()].map((key) => `${key}=xxxxx`).join("&");
  return `${url.protocol}//${url.host}${url.pathname}${query === "" ? "" : `?${query}`}`;
}
