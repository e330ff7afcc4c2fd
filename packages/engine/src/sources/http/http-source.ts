import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { pipeline } from "node:stream";
import { createGunzip } from "node:zlib";
import type { SourceOp } from "@kiln/api/pb";
import { BuildError, isBuildError, wrapError } from "@kiln/base";
import { type Digest, parseDigest } from "@kiln/oci";
import { type HttpResponse, HttpTransport, type HttpTransportOptions } from "@kiln/registry";
import type { ImmutableRef, RefManager } from "@kiln/store";
import type { Capture } from "../../attestations/provenance/capture.ts";
import type { OpContext } from "../../op-context.ts";
import { createTree, inTree, refContext, writeFileInto } from "../file-ref.ts";
import { redactCredentials } from "../redact.ts";
import { verifyPgpSignature } from "../signature.ts";
import type { Source, SourceCacheKey, SourceInstance, SourceRequest } from "../source.ts";
import { invalid } from "../source-attrs.ts";
import type { SourceMetadata, SourceMetadataOptions, SourceMetadataResolver } from "../source-metadata.ts";
import type { SourceSessions } from "../source-sessions.ts";
import { downloadName } from "./file-name.ts";
import { type HttpSourceRequest, httpCacheKey, parseHttpRequest, urlDigest } from "./http-request.ts";
import { DEFAULT_PATIENCE, type PatienceLimits, patientBody, sendPatiently } from "./patient-download.ts";

/** Services of the http source. */
export interface HttpSourceServices {
  readonly refs: RefManager;
  readonly sessions: SourceSessions;
  readonly userAgent: string;
  /** Proxies, address rules, timeouts. */
  readonly transport?: HttpTransportOptions;
  readonly patience?: PatienceLimits;
}

/** What is known of a download. */
interface Resolved {
  readonly digest: Digest;
  readonly filename: string;
  /** Milliseconds since the epoch. */
  readonly lastModified: number | undefined;
  /** The record that has it; undefined when only a checksum says what it is. */
  readonly refId: string | undefined;
}

const SESSION_HOST = "buildkit-session";
const MAX_CHECKSUM_SUFFIX_BYTES = 4 * 1024;
const KEY_CHECKSUM = "http.checksum";
const KEY_ETAG = "etag";
const KEY_MODTIME = "http.modtime";

/** Downloads: `http://`, `https://`; and `http://buildkit-session/…`, which the client uploads. */
export class HttpSource implements Source, SourceMetadataResolver, Disposable {
  readonly schemes = ["http", "https"];
  readonly #services: HttpSourceServices;
  readonly #transport: HttpTransport;

  constructor(services: HttpSourceServices) {
    this.#services = services;
    this.#transport = new HttpTransport({
      addressPolicy: "noLinkLocal",
      allowDowngrade: true,
      ...services.transport,
    });
  }

  resolve(request: SourceRequest): SourceInstance {
    return this.#instance(request);
  }

  async resolveMetadata(
    source: SourceOp,
    opts: SourceMetadataOptions,
    ctx: OpContext,
  ): Promise<SourceMetadata> {
    const attrs = new Map(Object.entries(source.attrs));
    const instance = this.#instance({ identifier: source.identifier, attrs, platform: undefined });
    return { source, http: await instance.metadata(opts.http?.checksum, ctx) };
  }

  #instance(request: SourceRequest): HttpInstance {
    return new HttpInstance(parseHttpRequest(request), this.#services, this.#transport);
  }

  [Symbol.dispose](): void {
    this.#transport[Symbol.dispose]();
  }
}

class HttpInstance implements SourceInstance {
  readonly #request: HttpSourceRequest;
  readonly #services: HttpSourceServices;
  readonly #transport: HttpTransport;
  readonly #patience: PatienceLimits;
  #resolved: Resolved | undefined;

  constructor(request: HttpSourceRequest, services: HttpSourceServices, transport: HttpTransport) {
    this.#request = request;
    this.#services = services;
    this.#transport = transport;
    this.#patience = services.patience ?? DEFAULT_PATIENCE;
  }

  async cacheKey(_index: number, ctx: OpContext): Promise<SourceCacheKey> {
    const found = await this.#resolve(ctx);
    return { key: httpCacheKey(this.#request, found), pin: found.digest, done: true };
  }

  capture(into: Capture, pin: string): void {
    into.addHttp({ url: this.#request.urlText, digest: parseDigest(pin) });
  }

  async metadata(
    checksum: NonNullable<SourceMetadataOptions["http"]>["checksum"],
    ctx: OpContext,
  ): Promise<NonNullable<SourceMetadata["http"]>> {
    if (checksum !== undefined && checksum.suffix.length > MAX_CHECKSUM_SUFFIX_BYTES) {
      throw invalid(`http checksum request suffix exceeds max size ${MAX_CHECKSUM_SUFFIX_BYTES}`);
    }
    const found = await this.#resolve(ctx);
    const base = { checksum: found.digest, filename: found.filename, lastModified: found.lastModified };
    if (checksum === undefined) return base;
    const loaded = await this.#load(ctx);
    const hash = createHash(checksum.algorithm);
    await this.#withFile(loaded, ctx, async (path) => {
      for await (const chunk of createReadStream(path)) hash.update(chunk as Buffer);
    });
    hash.update(checksum.suffix);
    const digest = `${checksum.algorithm}:${hash.digest("hex")}`;
    return { ...base, checksumResponse: { digest, suffix: checksum.suffix } };
  }

  async snapshot(ctx: OpContext): Promise<ImmutableRef> {
    const known = await this.#knownRef(ctx);
    if (known !== undefined) return known;
    const response = await this.#get(ctx, {});
    checkStatus(response);
    const { ref, found } = await this.#save(response, ctx);
    const wanted = this.#resolved?.digest ?? this.#request.checksum;
    if (wanted !== undefined && found.digest !== wanted) {
      await ref.release();
      throw new BuildError("failed_precondition", `digest mismatch ${found.digest}: ${wanted}`);
    }
    return ref;
  }

  async #resolve(ctx: OpContext): Promise<Resolved> {
    const { checksum, signature, url, file } = this.#request;
    let found = this.#resolved;
    if (found === undefined && checksum !== undefined) {
      found = {
        digest: checksum,
        filename: downloadName(url, file.filename, undefined),
        lastModified: undefined,
        refId: undefined,
      };
      this.#resolved = found;
    }
    found ??= await this.#load(ctx);
    if (signature !== undefined) {
      const loaded = await this.#load(ctx);
      await this.#verify(loaded, signature, ctx);
    }
    return found;
  }

  /** Downloads unless this build, or an earlier one, has what the server still offers. */
  async #load(ctx: OpContext): Promise<Resolved & { readonly refId: string }> {
    const { checksum } = this.#request;
    if (this.#resolved?.refId !== undefined) return { ...this.#resolved, refId: this.#resolved.refId };
    const lock = await ctx.resolverCache.lock(urlDigest(this.#request), ctx.signal);
    let left: Resolved | undefined;
    try {
      const values = lock.values.filter(isResolved);
      const fit = values.find((value) => checksum === undefined || value.digest === checksum);
      if (fit !== undefined) {
        this.#resolved = fit;
        return fit;
      }
      const other = values[0];
      if (other !== undefined) throw this.#mismatch(other.digest);
      const found = (await this.#stillFresh(ctx)) ?? (await this.#download(ctx));
      if (checksum !== undefined && found.digest !== checksum) throw this.#mismatch(found.digest);
      this.#resolved = found;
      left = found;
      return found;
    } finally {
      lock.release(left);
    }
  }

  /** Asks the server whether one of the copies we have is what it offers. */
  async #stillFresh(ctx: OpContext): Promise<(Resolved & { readonly refId: string }) | undefined> {
    const copies = await this.#copies(ctx);
    if (copies.size === 0) return undefined;
    const etags = [...copies.keys()];
    const conditions = { "if-none-match": etags.join(", "), "accept-encoding": "gzip" };
    const ask = async (method: "HEAD" | "GET"): Promise<HttpResponse | undefined> => {
      try {
        return await this.#send(method, ctx, conditions);
      } catch (error) {
        // A server that can't answer HEAD may still answer GET.
        if (method === "HEAD" && isBuildError(error)) return undefined;
        throw error;
      }
    };
    const head = await ask("HEAD");
    head?.body.destroy();
    if (head?.status === 200 || head?.status === 304) {
      const copy = copies.get(this.#etagOf(head, etags));
      if (copy !== undefined) return this.#named(copy, head);
    }
    const get = await ask("GET");
    if (get === undefined) return undefined;
    if (get.status === 304) {
      get.body.destroy();
      const copy = copies.get(this.#etagOf(get, etags));
      if (copy !== undefined) return this.#named(copy, get);
      throw new BuildError(
        "failed_precondition",
        `invalid not-modified ETag: ${etagValue(get.headers.etag ?? "")}`,
      );
    }
    return this.#keep(get, ctx);
  }

  /** The name comes from the latest answer, as BuildKit's cache keys have it. */
  #named<R extends Resolved>(copy: R, response: HttpResponse): R {
    const { url, file } = this.#request;
    return { ...copy, filename: downloadName(url, file.filename, response.headers["content-disposition"]) };
  }

  /** A 304 without ETag means the only one that was asked about. */
  #etagOf(response: HttpResponse, asked: readonly string[]): string {
    const etag = etagValue(response.headers.etag ?? "");
    return etag === "" && response.status === 304 && asked.length === 1 ? asked[0]! : etag;
  }

  async #copies(ctx: OpContext): Promise<Map<string, Resolved & { readonly refId: string }>> {
    const { refs } = this.#services;
    const { url, file } = this.#request;
    const copies = new Map<string, Resolved & { readonly refId: string }>();
    if (url.host === SESSION_HOST) return copies;
    for (const refId of refs.search(urlDigest(this.#request))) {
      const metadata = refs.metadataOf(refId);
      const etag = metadata?.getString(KEY_ETAG);
      const digest = metadata?.getString(KEY_CHECKSUM);
      if (!etag || !digest || !this.#hold(refId, ctx)) continue;
      copies.set(etag, {
        digest: digest as Digest,
        filename: downloadName(url, file.filename, undefined),
        lastModified: parseHttpDate(metadata?.getString(KEY_MODTIME)),
        refId,
      });
    }
    return copies;
  }

  /** Keeps a record from being pruned as long as this build runs; false when it's gone. */
  #hold(refId: string, ctx: OpContext): boolean {
    try {
      const ref = this.#services.refs.get(refId);
      ctx.cleanup(() => ref.release());
      return true;
    } catch (error) {
      if (isBuildError(error, "not_found") || isBuildError(error, "failed_precondition")) return false;
      throw error;
    }
  }

  async #download(ctx: OpContext): Promise<Resolved & { readonly refId: string }> {
    return this.#keep(await this.#get(ctx, {}), ctx);
  }

  async #keep(response: HttpResponse, ctx: OpContext): Promise<Resolved & { readonly refId: string }> {
    checkStatus(response);
    const { ref, found } = await this.#save(response, ctx);
    ctx.cleanup(() => ref.release());
    return found;
  }

  async #get(ctx: OpContext, headers: Readonly<Record<string, string>>): Promise<HttpResponse> {
    return this.#send("GET", ctx, { "accept-encoding": "gzip", ...headers });
  }

  async #send(
    method: string,
    ctx: OpContext,
    headers: Readonly<Record<string, string>>,
  ): Promise<HttpResponse> {
    const { url } = this.#request;
    if (url.host === SESSION_HOST) return this.#upload(ctx);
    const own = this.#request.headers.map(({ name, value }): [string, string] => [name.toLowerCase(), value]);
    const authorization = await this.#authorization(ctx);
    const send = (): Promise<HttpResponse> =>
      this.#transport.request({
        method,
        url,
        headers: {
          "user-agent": this.#services.userAgent,
          ...headers,
          ...Object.fromEntries(own),
          ...(authorization === undefined ? {} : { authorization }),
        },
        signal: ctx.signal,
      });
    // What HEAD doesn't answer, GET is asked for.
    return method === "HEAD" ? await send() : await sendPatiently(send, this.#patience, ctx.signal);
  }

  /** What the client uploads looks like an answer without headers. */
  async #upload(ctx: OpContext): Promise<HttpResponse> {
    const { url } = this.#request;
    const source = await this.#services.sessions.upload(ctx.sessions.ids(), url, ctx.signal);
    const { Readable } = await import("node:stream");
    return { status: 200, headers: {}, url, body: Readable.from(source) as HttpResponse["body"] };
  }

  async #authorization(ctx: OpContext): Promise<string | undefined> {
    const { authHeaderSecret, url } = this.#request;
    const { sessions } = this.#services;
    const ids = ctx.sessions.ids();
    const read = async (name: string): Promise<string | undefined> => {
      const data = await sessions.secret(ids, name, ctx.signal);
      if (data === undefined) return undefined;
      const text = Buffer.from(data).toString().trim();
      if (/[\r\n\0]/.test(text)) throw invalid(`invalid HTTP auth secret ${name}`);
      return text;
    };
    if (authHeaderSecret !== "") {
      const header = await read(authHeaderSecret);
      if (header === undefined) {
        throw new BuildError(
          "not_found",
          `failed to retrieve HTTP auth secret ${authHeaderSecret}: secret ${authHeaderSecret}: not found`,
        );
      }
      return header;
    }
    const token = await read(`HTTP_AUTH_TOKEN_${url.hostname}`);
    return token === undefined ? read(`HTTP_AUTH_HEADER_${url.hostname}`) : `Bearer ${token}`;
  }

  async #save(
    response: HttpResponse,
    ctx: OpContext,
  ): Promise<{ readonly ref: ImmutableRef; readonly found: Resolved & { readonly refId: string } }> {
    const { url, urlText, file } = this.#request;
    const { headers } = response;
    const lastModified = parseHttpDate(headers["last-modified"]);
    const filename = downloadName(url, file.filename, headers["content-disposition"]);
    const opts = { description: `http url ${redactCredentials(urlText)}`, cachePolicy: "retain" } as const;
    const { ref, value } = await createTree(this.#services.refs, opts, ctx, (dir) =>
      writeFileInto(
        dir,
        { ...file, name: filename, mtimeMs: lastModified ?? 0 },
        this.#bodyOf(response, ctx),
      ),
    );
    const etag = etagValue(headers.etag ?? "");
    if (etag !== "") {
      ref.metadata.setString(KEY_ETAG, etag);
      ref.metadata.setString(KEY_CHECKSUM, value.digest, urlDigest(this.#request));
    }
    if (headers["last-modified"] !== undefined) ref.metadata.setString(KEY_MODTIME, headers["last-modified"]);
    return { ref, found: { digest: value.digest, filename, lastModified, refId: ref.id } };
  }

  /** Go's client unpacks what it asked to be packed; so do we. */
  #bodyOf(response: HttpResponse, ctx: OpContext): AsyncIterable<Uint8Array> {
    const plain = patientBody({
      first: response,
      again: (headers) => this.#get(ctx, headers),
      // What the client uploads comes once.
      limits: response.url.host === SESSION_HOST ? { ...this.#patience, maxAttempts: 1 } : this.#patience,
      signal: ctx.signal,
    });
    if (response.headers["content-encoding"]?.toLowerCase() !== "gzip") return plain;
    return pipeline(plain, createGunzip(), () => undefined);
  }

  async #knownRef(ctx: OpContext): Promise<ImmutableRef | undefined> {
    let refId = this.#resolved?.refId;
    if (refId === undefined) {
      const lock = await ctx.resolverCache.lock(urlDigest(this.#request), ctx.signal);
      const { checksum } = this.#request;
      refId = lock.values
        .filter(isResolved)
        .find((v) => checksum === undefined || v.digest === checksum)?.refId;
      lock.release();
    }
    if (refId === undefined) return undefined;
    try {
      return this.#services.refs.get(refId);
    } catch (error) {
      if (isBuildError(error, "not_found")) return undefined;
      throw error;
    }
  }

  async #verify(
    loaded: Resolved & { readonly refId: string },
    signature: { readonly publicKey: string; readonly signature: string },
    ctx: OpContext,
  ): Promise<void> {
    try {
      await this.#withFile(loaded, ctx, (path) =>
        verifyPgpSignature(path, { ...signature, rejectExpired: false, signal: ctx.signal }),
      );
    } catch (error) {
      throw wrapError(error, "failed to verify pgp signature");
    }
  }

  /** The file is the only one of a tree that we made ourselves, so its path is safe to use. */
  async #withFile<T>(
    loaded: Resolved & { readonly refId: string },
    ctx: OpContext,
    work: (path: string) => Promise<T>,
  ): Promise<T> {
    const ref = this.#services.refs.get(loaded.refId);
    try {
      return await inTree(ref, refContext(ctx), async (dir) => {
        const [name = loaded.filename] = await readdir(dir);
        return work(join(dir, name));
      });
    } finally {
      await ref.release();
    }
  }

  #mismatch(got: Digest): BuildError {
    const { urlText, checksum } = this.#request;
    return new BuildError(
      "failed_precondition",
      `digest mismatch for ${redactCredentials(urlText)}: ${got} (expected: ${checksum})`,
    );
  }
}

function isResolved(value: unknown): value is Resolved & { readonly refId: string } {
  return typeof value === "object" && value !== null && "refId" in value && typeof value.refId === "string";
}

function checkStatus(response: HttpResponse): void {
  if (response.status >= 200 && response.status < 400 && response.status !== 304) return;
  response.body.destroy();
  throw new BuildError("failed_precondition", `invalid response status ${response.status}`);
}

function etagValue(etag: string): string {
  return etag.startsWith("W/") ? etag.slice(2) : etag;
}

function parseHttpDate(text: string | undefined): number | undefined {
  const ms = text === undefined ? Number.NaN : Date.parse(text);
  return Number.isNaN(ms) ? undefined : Math.trunc(ms / 1000) * 1000;
}
