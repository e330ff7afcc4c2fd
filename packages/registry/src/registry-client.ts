import { createHash } from "node:crypto";
import { BuildError, isCanceled, wrapError } from "@kiln/base";
import {
  type Descriptor,
  type Digest,
  digestAlgorithm,
  digestProblem,
  formatReference,
  isIndexType,
  isManifestType,
  isNondistributableType,
  MAX_MANIFEST_BYTES,
  mediaTypes,
  parseIndex,
  parseManifestDocument,
  type Reference,
} from "@kiln/oci";
import type { Authenticator } from "./authenticator.ts";
import { downloadBlob } from "./blob-download.ts";
import {
  type BlobSource,
  type PushOptions,
  type PushOutcome,
  pushBlob,
  pushManifest,
} from "./blob-upload.ts";
import {
  errorFromResponse,
  type HostRequest,
  hostRequest,
  isMissing,
  type RequestEnv,
} from "./host-request.ts";
import type { RegistryHost } from "./hosts.ts";
import { httpStatusOf } from "./http-error.ts";
import type { HttpResponse } from "./http-transport.ts";
import { readBody } from "./read-body.ts";
import type { Registries } from "./registry.ts";

const ACCEPT = [
  mediaTypes.dockerManifest,
  mediaTypes.dockerManifestList,
  mediaTypes.ociManifest,
  mediaTypes.ociIndex,
  "*/*",
].join(", ");

/** Options of every call. */
export interface CallOptions {
  readonly signal?: AbortSignal | undefined;
}

/** Options of {@link RegistryClient.fetchBlob}. */
export interface FetchOptions extends CallOptions {
  readonly offset?: number;
  readonly length?: number;
  /** Bytes so far, of the range asked for. */
  readonly onProgress?: (doneBytes: number) => void;
}

/** What a content store's writing end looks like to a download. */
export interface BlobSink {
  write(
    source: AsyncIterable<Uint8Array>,
    expected: { readonly digest: Digest; readonly sizeBytes: number; readonly signal?: AbortSignal },
  ): Promise<unknown>;
}

/** Reads and writes images in registries, as one authenticator. Get it from `Registries.client`. */
export class RegistryClient {
  readonly #registries: Registries;
  readonly #authenticator: Authenticator;
  readonly #insecure: boolean;

  constructor(registries: Registries, authenticator: Authenticator, insecure: boolean) {
    this.#registries = registries;
    this.#authenticator = authenticator;
    this.#insecure = insecure;
  }

  #env(push: boolean): RequestEnv {
    return {
      auth: this.#registries.auth(this.#authenticator, push),
      limits: this.#registries.limits,
      userAgent: this.#registries.userAgent,
    };
  }

  /**
   * What a name points to now. With a digest in the name, that manifest's type and size. The mirrors are
   * asked before the registry.
   *
   * @throws `not_found` (`<name>: not found`), `unauthenticated` (`pull access denied, …`), or what the
   *   registry said; `not_found` too for documents over 4 MiB.
   */
  async resolve(ref: Reference, opts: CallOptions = {}): Promise<Descriptor> {
    const hosts = await this.#registries.hosts(ref.domain, this.#insecure);
    const name = formatReference(ref);
    const targets = ref.digest
      ? [`manifests/${ref.digest}`, `blobs/${ref.digest}`]
      : [`manifests/${ref.tag ?? "latest"}`];
    let worst: { readonly rank: number; readonly error: unknown } | undefined;
    using _slot = await this.#registries.acquire(ref.domain, true, opts.signal);
    for (const target of targets) {
      if (worst !== undefined && worst.rank > 2) break;
      for (const host of hosts) {
        try {
          return await this.#head(host, ref, target, opts);
        } catch (error) {
          if (isCanceled(error)) throw error;
          const rank = rankOf(error);
          if (worst === undefined || rank > worst.rank) worst = { rank, error };
        }
      }
    }
    const error = worst?.error;
    if (error !== undefined && !isMissing(error)) throw error;
    throw new BuildError("not_found", `${name}: not found`, { cause: error });
  }

  async #head(host: RegistryHost, ref: Reference, target: string, opts: CallOptions): Promise<Descriptor> {
    const request = { ...this.#request(host, ref, { target, signal: opts.signal }), retry: "quick" } as const;
    let response = await accessChecked("pull", hostRequest({ ...request, method: "HEAD" }, this.#env(false)));
    if (response.status === 403) {
      // The answer to a HEAD has no text; the same GET says why.
      response.body.destroy();
      response = await hostRequest({ ...request, method: "GET" }, this.#env(false));
    }
    if (response.status > 299) throw await errorFromResponse(response, "HEAD");
    const length = response.headers["content-length"];
    const header = response.headers["docker-content-digest"];
    const digest = ref.digest ?? (typeof header === "string" && header !== "" ? header : undefined);
    if (digest !== undefined && length !== undefined) {
      response.body.destroy();
      const problem = digestProblem(digest);
      if (problem) throw new BuildError("data_loss", `"${digest}" in header not a valid digest: ${problem}`);
      return checkSize(
        { mediaType: contentType(response), digest: digest as Digest, size: Number(length) },
        ref,
      );
    }
    response.body.destroy();
    return this.#resolveByGet({ ...request, method: "GET" }, ref);
  }

  async #resolveByGet(request: HostRequest, ref: Reference): Promise<Descriptor> {
    const response = await hostRequest(request, this.#env(false));
    if (response.status > 299) throw await errorFromResponse(response, "GET");
    const body = await readBody(response.body, MAX_MANIFEST_BYTES);
    const digest = `sha256:${createHash("sha256").update(body).digest("hex")}` as const;
    if (ref.digest && digestAlgorithm(ref.digest) === "sha256" && ref.digest !== digest) {
      throw new BuildError("data_loss", `unexpected digest ${digest}, expected ${ref.digest}`);
    }
    return { mediaType: contentType(response), digest: ref.digest ?? digest, size: body.length };
  }

  /**
   * The bytes of a manifest or index (at most 4 MiB), verified. Their kind must be the descriptor's
   * (CVE-2021-41190).
   */
  async fetchManifest(ref: Reference, desc: Descriptor, opts: CallOptions = {}): Promise<Uint8Array> {
    checkSize(desc, ref);
    const body = await this.fetchBytes(ref, desc, { ...opts, maxBytes: MAX_MANIFEST_BYTES });
    if (isManifestType(desc.mediaType) || isIndexType(desc.mediaType))
      parseManifestDocument(body, desc.mediaType);
    return body;
  }

  /** A small blob as a whole, verified. */
  async fetchBytes(
    ref: Reference,
    desc: Descriptor,
    opts: CallOptions & { readonly maxBytes: number },
  ): Promise<Uint8Array> {
    if (desc.size > opts.maxBytes) {
      throw new BuildError(
        "resource_exhausted",
        `${desc.digest} has ${desc.size} bytes, more than ${opts.maxBytes}`,
      );
    }
    const chunks: Uint8Array[] = [];
    for await (const chunk of this.fetchBlob(ref, desc, { signal: opts.signal })) chunks.push(chunk);
    return Buffer.concat(chunks);
  }

  /**
   * The bytes of a blob or manifest. Whole ones are verified by size and digest; the error comes at the end,
   * so nothing may be trusted before. Interrupted downloads go on where they were.
   */
  async *fetchBlob(ref: Reference, desc: Descriptor, opts: FetchOptions = {}): AsyncGenerator<Uint8Array> {
    using _slot = await this.#registries.acquire(ref.domain, desc.mediaType.endsWith("+json"), opts.signal);
    yield* downloadBlob({
      desc,
      offset: opts.offset ?? 0,
      length: opts.length,
      open: (offset, length) => this.#openBlob(ref, desc, { offset, length, signal: opts.signal }),
      limits: this.#registries.limits,
      signal: opts.signal,
      onProgress: opts.onProgress,
    });
  }

  /** {@link fetchBlob} into a content store. */
  async fetchTo(sink: BlobSink, ref: Reference, desc: Descriptor, opts: FetchOptions = {}): Promise<void> {
    await sink.write(this.fetchBlob(ref, desc, opts), {
      digest: desc.digest,
      sizeBytes: desc.size,
      ...(opts.signal === undefined ? {} : { signal: opts.signal }),
    });
  }

  async #openBlob(
    ref: Reference,
    desc: Descriptor,
    part: {
      readonly offset: number;
      readonly length: number | undefined;
      readonly signal?: AbortSignal | undefined;
    },
  ): Promise<HttpResponse> {
    const headers: Record<string, string> = {};
    if (part.length !== undefined && part.length > 0) {
      headers.range = `bytes=${part.offset}-${part.offset + part.length - 1}`;
    }
    const isDocument = isManifestType(desc.mediaType) || isIndexType(desc.mediaType);
    if (isDocument) headers.accept = `${desc.mediaType}, */*`;
    const targets = isDocument
      ? [`manifests/${desc.digest}`, `blobs/${desc.digest}`]
      : [`blobs/${desc.digest}`];
    const foreign = isNondistributableType(desc.mediaType) ? (desc.urls ?? []).filter(isHttpUrl) : [];
    let failure: unknown;
    for (const target of [...targets, ...foreign.map((url) => new URL(url))]) {
      for (const host of await this.#registries.hosts(ref.domain, this.#insecure)) {
        const request = this.#request(host, ref, { target, headers, signal: part.signal });
        try {
          const response = await accessChecked(
            "pull",
            hostRequest({ ...request, method: "GET" }, this.#env(false)),
          );
          if (response.status === 200 || response.status === 206) return response;
          const error = await errorFromResponse(response, "GET");
          if (failure === undefined || isMissing(failure)) failure = error;
        } catch (error) {
          if (isCanceled(error)) throw error;
          if (failure === undefined || isMissing(failure)) failure = error;
        }
        if (target instanceof URL) break;
      }
    }
    if (!isMissing(failure)) throw failure;
    const where = `${ref.domain}/${ref.path}@${desc.digest}`;
    throw new BuildError("not_found", `content at ${where} not found: not found`, { cause: failure });
  }

  /** Bytes of a blob of which only the digest is known. @throws `not_found` */
  async blobSize(ref: Reference, digest: Digest, opts: CallOptions = {}): Promise<number> {
    let failure: unknown;
    for (const host of await this.#registries.hosts(ref.domain, this.#insecure)) {
      const request = this.#request(host, ref, { target: `blobs/${digest}`, signal: opts.signal });
      try {
        const response = await accessChecked(
          "pull",
          hostRequest({ ...request, method: "HEAD" }, this.#env(false)),
        );
        response.body.destroy();
        const size = Number(response.headers["content-length"] ?? Number.NaN);
        if (response.status === 200 && Number.isSafeInteger(size)) return size;
        if (response.status === 200)
          throw new BuildError("data_loss", `registry gives no size for blob ${digest}`);
        const error = await errorFromResponse(response, "HEAD");
        if (failure === undefined || isMissing(failure)) failure = error;
      } catch (error) {
        if (isCanceled(error)) throw error;
        if (failure === undefined || isMissing(failure)) failure = error;
      }
    }
    if (!isMissing(failure)) throw failure;
    const where = `${ref.domain}/${ref.path}@${digest}`;
    throw new BuildError("not_found", `content at ${where} not found: not found`, { cause: failure });
  }

  /** True when the registry has the blob or manifest. */
  async has(ref: Reference, desc: Descriptor, opts: CallOptions = {}): Promise<boolean> {
    const kind = isManifestType(desc.mediaType) || isIndexType(desc.mediaType) ? "manifests" : "blobs";
    const [host] = (await this.#registries.hosts(ref.domain, this.#insecure)).filter((h) => h.canPush);
    const request = this.#request(host!, ref, { target: `${kind}/${desc.digest}`, signal: opts.signal });
    const response = await hostRequest({ ...request, method: "HEAD" }, this.#env(false));
    response.body.destroy();
    if (response.status === 200) return true;
    if (response.status === 404) return false;
    throw await errorFromResponse(response, "HEAD");
  }

  /** Writes a blob unless it's there: by mounting it from another repository when one is named, else by upload. */
  pushBlob(
    ref: Reference,
    desc: Descriptor,
    source: BlobSource,
    opts: PushOptions = {},
  ): Promise<PushOutcome> {
    return this.#push(ref, desc, opts, (env) => pushBlob(env, desc, source, opts));
  }

  /**
   * Writes a manifest or index: under the tag of `ref` when it has one (and no digest, or this one), else by
   * digest. Children must be there already.
   */
  pushManifest(
    ref: Reference,
    desc: Descriptor,
    body: Uint8Array,
    opts: CallOptions = {},
  ): Promise<PushOutcome> {
    return this.#push(ref, desc, opts, (env) => pushManifest(env, desc, body, opts.signal));
  }

  async #push(
    ref: Reference,
    desc: Descriptor,
    opts: CallOptions,
    work: (env: Parameters<typeof pushBlob>[0]) => Promise<PushOutcome>,
  ): Promise<PushOutcome> {
    const hosts = await this.#registries.hosts(ref.domain, this.#insecure);
    const host = hosts.find((candidate) => candidate.canPush);
    if (!host) throw new BuildError("not_found", "no push hosts: not found");
    const slot = { priority: desc.mediaType.endsWith("+json"), signal: opts.signal };
    return this.#registries.withSlot(ref.domain, slot, () =>
      accessChecked("push", work({ ...this.#env(true), host, ref })),
    );
  }

  /** Manifests that refer to `digest` (OCI 1.1); those of the fallback tag when the API is missing. */
  async referrers(ref: Reference, digest: Digest, opts: CallOptions = {}): Promise<readonly Descriptor[]> {
    const hosts = await this.#registries.hosts(ref.domain, this.#insecure);
    for (const target of [`referrers/${digest}`, `manifests/${digest.replace(":", "-")}`]) {
      for (const host of hosts) {
        const request = this.#request(host, ref, {
          target,
          headers: { accept: mediaTypes.ociIndex },
          signal: opts.signal,
        });
        const response = await hostRequest({ ...request, method: "GET" }, this.#env(false));
        if (response.status === 200)
          return parseIndex(await readBody(response.body, MAX_MANIFEST_BYTES)).manifests;
        if (response.status !== 404) throw await errorFromResponse(response, "GET");
        response.body.destroy();
      }
    }
    return [];
  }

  #request(
    host: RegistryHost,
    ref: Reference,
    rest: Pick<HostRequest, "target" | "headers" | "signal">,
  ): Omit<HostRequest, "method"> {
    const { target } = rest;
    return {
      host,
      target: typeof target === "string" ? `${ref.path}/${target}` : target,
      headers: { accept: ACCEPT, ...rest.headers },
      scopes: [`repository:${ref.path}:pull`],
      namespace: ref.domain,
      signal: rest.signal,
    };
  }
}

/** How far a failed resolve got; the furthest one is reported. */
function rankOf(error: unknown): number {
  const status = httpStatusOf(error);
  if (status === undefined) return 1;
  return status === 404 ? 2 : 3;
}

async function accessChecked<T>(what: "pull" | "push", work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (error) {
    const text = error instanceof Error ? error.message : "";
    if (!text.endsWith("authorization failed") || text.includes("access denied")) throw error;
    throw wrapError(error, `${what} access denied, repository does not exist or may require authorization`);
  }
}

function checkSize(desc: Descriptor, ref: Reference): Descriptor {
  if (!Number.isSafeInteger(desc.size) || desc.size < 0) {
    throw new BuildError("data_loss", `invalid size of manifest for ${formatReference(ref)}`);
  }
  if (desc.size > MAX_MANIFEST_BYTES) {
    throw new BuildError(
      "not_found",
      `rejecting ${desc.size} byte manifest for ${formatReference(ref)}: not found`,
    );
  }
  return desc;
}

function contentType(response: HttpResponse): string {
  return (response.headers["content-type"] ?? "").split(";")[0]!.trim();
}

function isHttpUrl(text: string): boolean {
  return URL.canParse(text) && /^https?:/.test(text);
}
