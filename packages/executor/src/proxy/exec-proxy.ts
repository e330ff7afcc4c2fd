import { createHash } from "node:crypto";
import {
  createServer,
  request as httpRequest,
  type IncomingMessage,
  type Server,
  type ServerResponse,
} from "node:http";
import { request as httpsRequest } from "node:https";
import type { Socket } from "node:net";
import type { Duplex } from "node:stream";
import { pipeline } from "node:stream/promises";
import { createSecureContext, TLSSocket, connect as tlsConnect } from "node:tls";
import { BuildError, errorMessage, redactUrls } from "@kiln/base";
import type { ProxyCapture } from "./proxy-capture.ts";
import type { CertificateAuthority } from "./x509.ts";

/** What a policy makes of a URL: another one to fetch instead, or with `hasAttrs` something that a proxy can't do. */
export interface ProxyDecision {
  readonly url: string;
  readonly hasAttrs: boolean;
}

/** Asks whether a URL (passwords masked) may be fetched. Rejects when it may not. */
export type ProxyCheck = (url: string) => Promise<ProxyDecision>;

/** Opens a connection on behalf of the container, from the network that its egress has. */
export type ProxyDial = (host: string, port: number) => Promise<Socket>;

/** What a step's proxy works with. */
export interface ExecProxyOptions {
  readonly authority: CertificateAuthority;
  readonly dial: ProxyDial;
  readonly check?: ProxyCheck;
  readonly capture?: ProxyCapture;
}

const HEADERS_TIMEOUT_MS = 30_000;
/** Headers that are between two neighbours only. */
const HOP_HEADERS = new Set([
  "connection",
  "keep-alive",
  "proxy-authenticate",
  "proxy-authorization",
  "proxy-connection",
  "te",
  "trailer",
  "transfer-encoding",
  "upgrade",
]);

/**
 * The HTTP proxy of one container. Plain requests are passed on; for CONNECT it is itself the server that is
 * asked for, with a certificate of its own authority, and passes on what is asked of it there. Every request
 * goes through the policy, and is noted.
 */
export class ExecProxy implements Disposable {
  readonly server: Server;
  readonly #options: ExecProxyOptions;
  /** Serves what is inside of CONNECT tunnels. */
  readonly #inner: Server;
  /** The host and port that each tunnel was asked for. */
  readonly #tunnels = new WeakMap<Duplex, string>();
  readonly #sockets = new Set<Duplex>();

  constructor(options: ExecProxyOptions) {
    this.#options = options;
    const limits = { headersTimeout: HEADERS_TIMEOUT_MS, requestTimeout: 0, keepAliveTimeout: 0 };
    this.server = createServer(limits, (request, response) => {
      this.#serve(request, response, outerUrl(request)).catch(() => response.destroy());
    });
    this.#inner = createServer(limits, (request, response) => {
      const authority = this.#tunnels.get(request.socket) ?? "";
      this.#serve(request, response, `https://${authority}${request.url ?? "/"}`).catch(() =>
        response.destroy(),
      );
    });
    this.server.on("connect", (request: IncomingMessage, socket: Duplex) => this.#tunnel(request, socket));
    this.server.on("connection", (socket: Socket) => this.#track(socket));
    for (const server of [this.server, this.#inner]) {
      // Some clients (busybox) shut their side down when they have asked, and then wait for the answer.
      Object.assign(server, { httpAllowHalfOpen: true });
      server.on("clientError", (_error, socket) => socket.destroy());
    }
  }

  #track(socket: Duplex): void {
    this.#sockets.add(socket);
    socket.on("error", () => socket.destroy());
    socket.once("close", () => this.#sockets.delete(socket));
  }

  #tunnel(request: IncomingMessage, socket: Duplex): void {
    const authority = request.url ?? "";
    const host = hostOf(authority);
    if (host === "") {
      socket.end("HTTP/1.1 400 Bad Request\r\n\r\n");
      return;
    }
    socket.write("HTTP/1.1 200 Connection Established\r\n\r\n");
    const { pem, key } = this.#options.authority.certificateFor(host);
    const secureContext = createSecureContext({
      cert: pem,
      key: key.export({ type: "pkcs8", format: "pem" }),
    });
    const secure = new TLSSocket(socket as Socket, {
      isServer: true,
      secureContext,
      ALPNProtocols: ["http/1.1"],
    });
    this.#track(secure);
    this.#tunnels.set(secure, authority.replace(/:443$/, ""));
    this.#inner.emit("connection", secure);
  }

  async #serve(request: IncomingMessage, response: ServerResponse, url: string): Promise<void> {
    const method = request.method ?? "GET";
    let target: URL;
    try {
      target = await this.#allowed(method, url);
    } catch {
      response.writeHead(403, { "content-type": "text/plain; charset=utf-8", connection: "close" });
      response.end("Forbidden\n");
      return;
    }
    const { capture } = this.#options;
    const noted = { method, url: target.href };
    let answer: IncomingMessage;
    try {
      answer = await this.#fetch(request, method, target);
    } catch (error) {
      capture?.addRequest({ ...noted, redirectTarget: "", statusCode: 502 });
      capture?.addIncomplete({ ...noted, reason: "upstream_error" });
      response.writeHead(502, { "content-type": "text/plain; charset=utf-8", connection: "close" });
      response.end(`${errorMessage(error)}\n`);
      return;
    }
    const statusCode = answer.statusCode ?? 502;
    capture?.addRequest({ ...noted, redirectTarget: redirectTarget(target, answer), statusCode });
    await this.#passOn(request, response, { answer, noted });
  }

  /** The URL to fetch. Rejects when policy doesn't have it. */
  async #allowed(method: string, url: string): Promise<URL> {
    const parsed = new URL(url);
    const { check } = this.#options;
    if (!check) return parsed;
    const asked = redactUrls(plainUrl(url));
    const decision = await check(asked);
    if (decision.url === asked && !decision.hasAttrs) return parsed;
    if (method !== "GET" || decision.hasAttrs || !/^https?:\/\//.test(decision.url)) {
      throw new BuildError("permission_denied", `source policy converted proxy request ${asked}`);
    }
    return new URL(decision.url);
  }

  async #fetch(request: IncomingMessage, method: string, target: URL): Promise<IncomingMessage> {
    const isTls = target.protocol === "https:";
    const host = target.hostname.replace(/^\[|\]$/g, "");
    const socket = await this.#options.dial(host, Number(target.port) || (isTls ? 443 : 80));
    this.#track(socket);
    const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
    const connection = isTls ? tlsConnect({ socket, servername: host, ALPNProtocols: ["http/1.1"] }) : socket;
    socket.on("error", reject);
    connection.on("error", reject);
    const upstream = (isTls ? httpsRequest : httpRequest)({
      method,
      path: `${target.pathname}${target.search}`,
      headers: forwardedHeaders(request, target.host),
      setDefaultHeaders: false,
      // With this there is no agent, so never a connection of another container's.
      createConnection: () => connection,
      ...(target.username === ""
        ? {}
        : { auth: `${decodeURIComponent(target.username)}:${decodeURIComponent(target.password)}` }),
    });
    upstream.once("response", resolve);
    upstream.once("error", reject);
    pipeline(request, upstream).catch(reject);
    try {
      return await promise;
    } catch (error) {
      connection.destroy();
      throw error;
    }
  }

  async #passOn(
    request: IncomingMessage,
    response: ServerResponse,
    of: { answer: IncomingMessage; noted: { method: string; url: string } },
  ): Promise<void> {
    const { answer, noted } = of;
    const { capture } = this.#options;
    const headers = [...pairs(answer.rawHeaders)].filter(([name]) => !HOP_HEADERS.has(name.toLowerCase()));
    response.sendDate = false;
    response.writeHead(answer.statusCode ?? 502, answer.statusMessage, headers.flat());
    const hash = createHash("sha256");
    answer.on("data", (bytes: Buffer) => hash.update(bytes));
    let failed = false;
    try {
      await pipeline(answer, response);
    } catch {
      failed = true;
      response.destroy();
    }
    const reason = incompleteReason(request, answer, failed);
    if (reason !== "") capture?.addIncomplete({ ...noted, reason });
    else if (isSuccess(answer)) capture?.addMaterial(noted.url, `sha256:${hash.digest("hex")}`);
  }

  [Symbol.dispose](): void {
    this.server.close();
    this.#inner.close();
    for (const socket of this.#sockets) socket.destroy();
  }
}

function isSuccess({ statusCode = 0 }: IncomingMessage): boolean {
  return statusCode >= 200 && statusCode < 300;
}

function incompleteReason(request: IncomingMessage, answer: IncomingMessage, failed: boolean): string {
  if (request.method !== "GET") return "method_not_materializable";
  if (request.headers.range !== undefined || answer.statusCode === 206) return "partial_response";
  if (failed || !answer.complete) return "body_read_failed";
  return (answer.statusCode ?? 0) >= 400 ? "unsuccessful_response" : "";
}

function outerUrl(request: IncomingMessage): string {
  const url = request.url ?? "/";
  return /^[a-z]+:\/\//i.test(url) ? url : `http://${request.headers.host ?? ""}${url}`;
}

/** A URL as a policy is asked: in its normal form, but without the slash that a bare host gets there. */
function plainUrl(url: string): string {
  return new URL(url).href;
}

function redirectTarget(url: URL, answer: IncomingMessage): string {
  const { location } = answer.headers;
  if (!location) return "";
  return URL.canParse(location, url) ? new URL(location, url).href : location;
}

function hostOf(authority: string): string {
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([A-Za-z0-9_.-]{1,253}))(?::\d{1,5})?$/.exec(authority);
  return match?.[1] ?? match?.[2] ?? "";
}

function* pairs(raw: readonly string[]): Generator<[string, string]> {
  for (let at = 0; at + 1 < raw.length; at += 2) yield [raw[at] ?? "", raw[at + 1] ?? ""];
}

/** The client's headers without those that are meant for the proxy; answers are to come as they are stored. */
function forwardedHeaders(request: IncomingMessage, host: string): string[] {
  const kept = [...pairs(request.rawHeaders)].filter(
    ([name]) => !HOP_HEADERS.has(name.toLowerCase()) && !/^(host|accept-encoding)$/i.test(name),
  );
  const chunked = /\bchunked\b/i.test(request.headers["transfer-encoding"] ?? "");
  return [
    "Host",
    host,
    ...kept.flat(),
    "Connection",
    "close",
    ...(chunked ? ["Transfer-Encoding", "chunked"] : []),
  ];
}
