import { createHash, randomUUID } from "node:crypto";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { createServer as createTlsServer } from "node:https";
import type { AddressInfo } from "node:net";
import { type Descriptor, type Digest, goodDigest } from "./test-blobs.ts";

/** How the registry wants to be logged in to. `token` is Docker's token server, at `/token` of the same host. */
export type AuthMode =
  | { readonly kind: "none" }
  | { readonly kind: "basic"; readonly username: string; readonly password: string }
  | {
      readonly kind: "token";
      /** Without these, anonymous tokens are given. */
      readonly username?: string;
      readonly password?: string;
      /** Refresh token that the POST form takes. */
      readonly refreshToken?: string;
      /** GET is refused with this status, so that clients turn to POST. */
      readonly getStatus?: number;
      /** Repositories that tokens are refused for. */
      readonly denied?: readonly string[];
      readonly expiresInS?: number;
    };

/** Something that goes wrong, `times` times, for requests that `match`. */
export interface Fault {
  readonly match: (request: { readonly method: string; readonly path: string }) => boolean;
  times: number;
  readonly action:
    | {
        readonly kind: "status";
        readonly status: number;
        readonly headers?: Record<string, string>;
        readonly body?: string;
      }
    | { readonly kind: "truncate" | "stall"; readonly afterBytes: number }
    | { readonly kind: "corrupt" | "reset" | "noRange" | "noDigest" };
}

/** Options of {@link TestRegistry.start}. */
export interface TestRegistryOptions {
  readonly auth?: AuthMode;
  readonly tls?: { readonly cert: string; readonly key: string };
  /** Blobs are answered with a redirect to this origin (path kept). */
  readonly redirectBlobsTo?: string;
}

/** One request as the registry saw it. */
export interface SeenRequest {
  readonly method: string;
  readonly path: string;
  readonly headers: IncomingMessage["headers"];
}

/**
 * An OCI registry in memory, on a loopback port: pull, push, mounts, chunked uploads, referrers, ranges, and
 * faults on demand. For tests and demos; it holds everything in memory and never forgets.
 */
export class TestRegistry implements AsyncDisposable {
  readonly blobs = new Map<string, Uint8Array>();
  /** Repositories and what each may serve. */
  readonly repositories = new Map<
    string,
    { readonly blobs: Set<string>; readonly tags: Map<string, Digest> }
  >();
  readonly manifests = new Map<string, { readonly mediaType: string; readonly body: Uint8Array }>();
  readonly requests: SeenRequest[] = [];
  readonly faults: Fault[] = [];
  readonly #options: TestRegistryOptions;
  readonly #server: Server;
  readonly #uploads = new Map<string, { readonly repository: string; chunks: Uint8Array[]; size: number }>();
  readonly #tokens = new Map<string, readonly string[]>();
  #host = "";

  private constructor(options: TestRegistryOptions) {
    this.#options = options;
    const listener = (req: IncomingMessage, res: ServerResponse): void => {
      this.#handle(req, res).catch((error: unknown) => res.destroy(error as Error));
    };
    this.#server = options.tls ? createTlsServer(options.tls, listener) : createServer(listener);
  }

  static async start(options: TestRegistryOptions = {}): Promise<TestRegistry> {
    const registry = new TestRegistry(options);
    await new Promise<void>((resolve) => registry.#server.listen(0, "127.0.0.1", resolve));
    registry.#host = `127.0.0.1:${(registry.#server.address() as AddressInfo).port}`;
    return registry;
  }

  /** `127.0.0.1:port`. */
  get host(): string {
    return this.#host;
  }

  get origin(): string {
    return `${this.#options.tls ? "https" : "http"}://${this.#host}`;
  }

  /** Puts a blob into a repository. */
  addBlob(repository: string, body: Uint8Array | string, mediaType: string): Descriptor {
    const bytes = Buffer.from(body);
    const digest = goodDigest(bytes);
    this.blobs.set(digest, bytes);
    this.#repository(repository).blobs.add(digest);
    return { mediaType, digest, size: bytes.length };
  }

  /** Puts a manifest or index into a repository, under `tag` if given. */
  addManifest(repository: string, manifest: object, mediaType: string, tag?: string): Descriptor {
    const body = Buffer.from(JSON.stringify(manifest));
    const digest = goodDigest(body);
    this.manifests.set(digest, { mediaType, body });
    const repo = this.#repository(repository);
    repo.blobs.add(digest);
    if (tag !== undefined) repo.tags.set(tag, digest);
    return { mediaType, digest, size: body.length };
  }

  /** Requests whose method and path match. */
  seen(method: string, path: RegExp): SeenRequest[] {
    return this.requests.filter((request) => request.method === method && path.test(request.path));
  }

  #repository(name: string): { readonly blobs: Set<string>; readonly tags: Map<string, Digest> } {
    let repo = this.repositories.get(name);
    if (!repo) {
      repo = { blobs: new Set(), tags: new Map() };
      this.repositories.set(name, repo);
    }
    return repo;
  }

  async #handle(req: IncomingMessage, res: ServerResponse): Promise<void> {
    const url = new URL(req.url ?? "/", this.origin);
    const method = req.method ?? "GET";
    this.requests.push({ method, path: url.pathname + url.search, headers: req.headers });
    const fault = this.faults.find((f) => f.times > 0 && f.match({ method, path: url.pathname }));
    if (fault) {
      fault.times--;
      if (fault.action.kind === "reset") {
        req.socket.destroy();
        return;
      }
      if (fault.action.kind === "status") {
        req.resume();
        res.writeHead(fault.action.status, fault.action.headers).end(fault.action.body ?? "");
        return;
      }
    }
    if (url.pathname === "/token") return this.#token(req, res, url);
    const route = /^\/v2\/(.+)\/(manifests|blobs|referrers)\/(.+)$/.exec(url.pathname);
    if (!route) {
      res.writeHead(url.pathname === "/v2/" ? 200 : 404).end();
      return;
    }
    const [, repository, kind, name] = route as unknown as [string, string, string, string];
    const push = method !== "GET" && method !== "HEAD";
    if (!this.#authorized(req, res, repository, push ? "push" : "pull")) {
      req.resume();
      return;
    }
    if (kind === "manifests") return this.#manifest(req, res, { repository, name, fault });
    if (kind === "referrers") return this.#referrers(res, name);
    if (name.startsWith("uploads/")) return this.#upload(req, res, { repository, id: name.slice(8), url });
    return this.#blob(req, res, { repository, name, fault });
  }

  #authorized(req: IncomingMessage, res: ServerResponse, repository: string, action: string): boolean {
    const auth = this.#options.auth ?? { kind: "none" };
    const given = req.headers.authorization ?? "";
    if (auth.kind === "none") return true;
    if (auth.kind === "basic") {
      if (given === `Basic ${Buffer.from(`${auth.username}:${auth.password}`).toString("base64")}`)
        return true;
      res.writeHead(401, { "www-authenticate": 'Basic realm="test"' }).end();
      return false;
    }
    const wanted = `repository:${repository}:${action === "push" ? "pull,push" : "pull"}`;
    const scopes = this.#tokens.get(given.replace(/^Bearer /, ""));
    const ok = scopes?.some((scope) => {
      const [, name, actions] = /^repository:(.*):([a-z,]*)$/.exec(scope) ?? [];
      return name === repository && (actions ?? "").split(",").includes(action);
    });
    if (ok) return true;
    const error = given === "" ? "" : `,error="insufficient_scope"`;
    const challenge = `Bearer realm="${this.origin}/token",service="test",scope="${wanted}"${error}`;
    const body = JSON.stringify({ errors: [{ code: "UNAUTHORIZED", message: "authentication required" }] });
    res.writeHead(401, { "www-authenticate": challenge }).end(req.method === "HEAD" ? "" : body);
    return false;
  }

  async #token(req: IncomingMessage, res: ServerResponse, url: URL): Promise<void> {
    const auth = this.#options.auth;
    if (auth?.kind !== "token") {
      res.writeHead(404).end();
      return;
    }
    const form = new URLSearchParams(Buffer.concat(await chunksOf(req)).toString());
    const refused = (status: number): void => {
      const body = JSON.stringify({
        errors: [{ code: "UNAUTHORIZED", message: "incorrect username or password" }],
      });
      res.writeHead(status).end(body);
    };
    if (req.method === "GET" && auth.getStatus !== undefined) return refused(auth.getStatus);
    const basic = `Basic ${Buffer.from(`${auth.username}:${auth.password}`).toString("base64")}`;
    const known =
      req.method === "POST"
        ? (form.get("grant_type") === "refresh_token" && form.get("refresh_token") === auth.refreshToken) ||
          (form.get("username") === auth.username && form.get("password") === auth.password)
        : auth.username === undefined || req.headers.authorization === basic;
    if (!known) return refused(401);
    const asked = (
      req.method === "POST" ? [form.get("scope") ?? ""] : url.searchParams.getAll("scope")
    ).flatMap((s) => s.split(" "));
    const granted = asked.filter(
      (scope) => !auth.denied?.some((name) => scope.startsWith(`repository:${name}:`)),
    );
    const token = randomUUID();
    this.#tokens.set(token, granted);
    const field = req.method === "POST" ? "access_token" : "token";
    res.writeHead(200, { "content-type": "application/json" });
    res.end(
      JSON.stringify({
        [field]: token,
        expires_in: auth.expiresInS ?? 300,
        issued_at: new Date().toISOString(),
      }),
    );
  }

  async #manifest(
    req: IncomingMessage,
    res: ServerResponse,
    at: { readonly repository: string; readonly name: string; readonly fault: Fault | undefined },
  ): Promise<void> {
    const repo = this.#repository(at.repository);
    if (req.method === "PUT") {
      const body = Buffer.concat(await chunksOf(req));
      const digest = goodDigest(body);
      if (at.name.includes(":") && at.name !== digest)
        return fail(res, 400, "DIGEST_INVALID", "digest mismatch");
      this.manifests.set(digest, { mediaType: req.headers["content-type"] ?? "", body });
      repo.blobs.add(digest);
      if (!at.name.includes(":")) repo.tags.set(at.name, digest);
      res
        .writeHead(201, {
          "docker-content-digest": digest,
          location: `/v2/${at.repository}/manifests/${digest}`,
        })
        .end();
      return;
    }
    const digest = at.name.includes(":") ? at.name : repo.tags.get(at.name);
    const found = digest !== undefined && repo.blobs.has(digest) ? this.manifests.get(digest) : undefined;
    if (!found) return fail(res, 404, "MANIFEST_UNKNOWN", "manifest unknown");
    const noDigest = at.fault?.action.kind === "noDigest";
    const body = at.fault?.action.kind === "corrupt" ? flipped(found.body) : found.body;
    res.writeHead(200, {
      "content-type": found.mediaType,
      "content-length": body.length,
      ...(noDigest ? {} : { "docker-content-digest": digest }),
    });
    res.end(req.method === "HEAD" ? undefined : body);
  }

  #referrers(res: ServerResponse, digest: string): void {
    const manifests = [...this.manifests].flatMap(([own, { mediaType, body }]) => {
      const doc = JSON.parse(Buffer.from(body).toString()) as { subject?: Descriptor; artifactType?: string };
      return doc.subject?.digest === digest
        ? [{ mediaType, digest: own, size: body.length, artifactType: doc.artifactType }]
        : [];
    });
    res.writeHead(200, { "content-type": "application/vnd.oci.image.index.v1+json" });
    res.end(JSON.stringify({ schemaVersion: 2, manifests }));
  }

  #blob(
    req: IncomingMessage,
    res: ServerResponse,
    at: { readonly repository: string; readonly name: string; readonly fault: Fault | undefined },
  ): void {
    const body = this.#repository(at.repository).blobs.has(at.name) ? this.blobs.get(at.name) : undefined;
    if (!body) {
      fail(res, 404, "BLOB_UNKNOWN", "blob unknown to registry");
      return;
    }
    if (this.#options.redirectBlobsTo !== undefined) {
      res.writeHead(307, { location: this.#options.redirectBlobsTo + (req.url ?? "") }).end();
      return;
    }
    const action = at.fault?.action;
    const range = action?.kind === "noRange" ? null : /^bytes=(\d+)-(\d*)$/.exec(req.headers.range ?? "");
    const from = range ? Number(range[1]) : 0;
    const to = range?.[2] ? Math.min(Number(range[2]) + 1, body.length) : body.length;
    let part = body.subarray(from, to);
    if (action?.kind === "corrupt") part = flipped(part);
    res.writeHead(range ? 206 : 200, {
      "content-type": "application/octet-stream",
      "content-length": part.length,
      ...(range ? { "content-range": `bytes ${from}-${to - 1}/${body.length}` } : {}),
    });
    if (req.method === "HEAD") res.end();
    else if (action?.kind === "truncate" || action?.kind === "stall") {
      res.write(part.subarray(0, action.afterBytes), () => {
        if (action.kind === "truncate") res.destroy();
      });
    } else res.end(part);
  }

  async #upload(
    req: IncomingMessage,
    res: ServerResponse,
    at: { readonly repository: string; readonly id: string; readonly url: URL },
  ): Promise<void> {
    const repo = this.#repository(at.repository);
    const location = (id: string): string => `/v2/${at.repository}/blobs/uploads/${id}?state=x`;
    if (req.method === "POST") {
      const mount = at.url.searchParams.get("mount");
      const from = at.url.searchParams.get("from");
      if (mount && from && this.repositories.get(from)?.blobs.has(mount)) {
        repo.blobs.add(mount);
        res.writeHead(201, { location: `/v2/${at.repository}/blobs/${mount}` }).end();
        return;
      }
      const id = randomUUID();
      this.#uploads.set(id, { repository: at.repository, chunks: [], size: 0 });
      res.writeHead(202, { location: location(id) }).end();
      return;
    }
    const upload = this.#uploads.get(at.id);
    if (!upload) return fail(res, 404, "BLOB_UPLOAD_UNKNOWN", "upload unknown");
    if (req.method === "GET") {
      res.writeHead(204, { location: location(at.id), range: `0-${Math.max(0, upload.size - 1)}` }).end();
      return;
    }
    const start = /^(\d+)-/.exec(String(req.headers["content-range"] ?? ""))?.[1];
    const body = Buffer.concat(await chunksOf(req));
    if (start !== undefined && Number(start) !== upload.size)
      return fail(res, 416, "RANGE_INVALID", "out of order");
    upload.chunks.push(body);
    upload.size += body.length;
    if (req.method === "PATCH") {
      res.writeHead(202, { location: location(at.id), range: `0-${upload.size - 1}` }).end();
      return;
    }
    const all = Buffer.concat(upload.chunks);
    const digest = `sha256:${createHash("sha256").update(all).digest("hex")}`;
    if (digest !== at.url.searchParams.get("digest"))
      return fail(res, 400, "DIGEST_INVALID", "digest mismatch");
    this.#uploads.delete(at.id);
    this.blobs.set(digest, all);
    repo.blobs.add(digest);
    res
      .writeHead(201, { location: `/v2/${at.repository}/blobs/${digest}`, "docker-content-digest": digest })
      .end();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}

/** The same bytes but for one bit. */
function flipped(bytes: Uint8Array): Buffer {
  const copy = Buffer.from(bytes);
  if (copy.length > 0) copy[0] = copy[0]! ^ 1;
  return copy;
}

async function chunksOf(source: AsyncIterable<Buffer>): Promise<Buffer[]> {
  const chunks: Buffer[] = [];
  for await (const chunk of source) chunks.push(chunk);
  return chunks;
}

function fail(res: ServerResponse, status: number, code: string, message: string): void {
  res.writeHead(status, { "content-type": "application/json" });
  res.end(JSON.stringify({ errors: [{ code, message }] }));
}
