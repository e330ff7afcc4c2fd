import { BuildError, isBuildError, isCanceled, sleep, wrapError } from "@kiln/base";
import { annotationKeys, type Descriptor, type Reference } from "@kiln/oci";
import { errorFromResponse, type HostRequest, hostRequest, type RequestEnv } from "./host-request.ts";
import type { RegistryHost } from "./hosts.ts";
import { isTransient } from "./http-error.ts";
import type { HttpResponse } from "./http-transport.ts";

/** Bytes to upload, from any offset; asked again when an upload has to be repeated. */
export interface BlobSource {
  read(range: { readonly offset: number; readonly length?: number }): AsyncIterable<Uint8Array>;
}

/** Options of `pushBlob`. */
export interface PushOptions {
  readonly signal?: AbortSignal | undefined;
  /** Repositories of the same registry that may have the blob; see {@link mountCandidates}. */
  readonly mountFrom?: readonly string[];
  /** Upload in pieces of this size, each resumable; in one request by default. */
  readonly chunkBytes?: number;
  /** Bytes sent so far. */
  readonly onProgress?: (doneBytes: number) => void;
}

/** How the content came to be in the registry. */
export type PushOutcome = "pushed" | "exists" | "mounted";

/** Target of a push. */
export interface PushEnv extends RequestEnv {
  readonly host: RegistryHost;
  readonly ref: Reference;
}

/**
 * Repositories of `ref`'s registry that are known to have a blob, from the
 * `containerd.io/distribution.source.<host>` labels or annotations; the one nearest in name first. None when
 * `ref`'s own repository is among them.
 */
export function mountCandidates(ref: Reference, labels: Iterable<readonly [string, string]>): string[] {
  const key = annotationKeys.distributionSourcePrefix + ref.domain;
  for (const [name, value] of labels) {
    if (name !== key) continue;
    const repositories = value.split(",").filter((path) => /^[a-z0-9._/-]{1,255}$/.test(path));
    if (repositories.includes(ref.path)) return [];
    return repositories.sort((a, b) => sharedParts(b, ref.path) - sharedParts(a, ref.path));
  }
  return [];
}

function sharedParts(a: string, b: string): number {
  const x = a.split("/");
  const y = b.split("/");
  let i = 0;
  while (i < x.length && x[i] === y[i]) i++;
  return i;
}

/** See `RegistryClient.pushManifest`. */
export async function pushManifest(
  env: PushEnv,
  desc: Descriptor,
  body: Uint8Array,
  signal?: AbortSignal,
): Promise<PushOutcome> {
  const { ref } = env;
  const byTag = ref.tag !== undefined && (ref.digest === undefined || ref.digest === desc.digest);
  const target = `manifests/${byTag ? ref.tag : desc.digest}`;
  const accept = { accept: `${desc.mediaType}, */*` };
  const head = await request(env, "HEAD", target, { headers: accept, signal });
  head.body.destroy();
  if (head.status === 200) {
    if (!byTag || head.headers["docker-content-digest"] === desc.digest) return "exists";
  } else if (head.status !== 404 && head.status !== 401) {
    throw await headError(env, target, head, signal);
  }
  const response = await request(env, "PUT", target, {
    headers: { "content-type": desc.mediaType },
    body: { sizeBytes: body.length, open: () => [body] },
    signal,
  });
  if (response.status !== 200 && response.status !== 201 && response.status !== 204) {
    throw await errorFromResponse(response, "PUT");
  }
  response.body.destroy();
  return "pushed";
}

/** See `RegistryClient.pushBlob`. */
export async function pushBlob(
  env: PushEnv,
  desc: Descriptor,
  source: BlobSource,
  opts: PushOptions,
): Promise<PushOutcome> {
  const { signal } = opts;
  const head = await request(env, "HEAD", `blobs/${desc.digest}`, { signal });
  head.body.destroy();
  if (head.status === 200) return "exists";
  if (head.status !== 404 && head.status !== 401) {
    throw await headError(env, `blobs/${desc.digest}`, head, signal);
  }
  for (let attempt = 1; ; attempt++) {
    try {
      const start = await startUpload(env, desc, opts);
      if (start === "mounted") return start;
      if (opts.chunkBytes === undefined) await uploadWhole(env, start, { desc, source, opts });
      else await uploadChunks(env, start, { desc, source, opts });
      return "pushed";
    } catch (error) {
      if (isCanceled(error) || !isTransient(error) || attempt >= env.limits.maxAttempts) throw error;
      await sleep(Math.min(env.limits.retryDelayMs * 2 ** (attempt - 1), env.limits.maxRetryDelayMs), signal);
    }
  }
}

/** POST, with a mount first where one may work; gives the upload's URL. */
async function startUpload(env: PushEnv, desc: Descriptor, opts: PushOptions): Promise<URL | "mounted"> {
  const { signal } = opts;
  const [from] = opts.mountFrom ?? [];
  if (from !== undefined) {
    const query = new URLSearchParams({ mount: desc.digest, from });
    try {
      const response = await request(env, "POST", `blobs/uploads/?${query}`, {
        headers: { "content-length": "0" },
        scopes: [`repository:${from}:pull`],
        signal,
      });
      response.body.destroy();
      if (response.status === 201) return "mounted";
      if (response.status === 202) return uploadUrl(env, response);
    } catch (error) {
      // A private repository: the upload itself may still be allowed.
      if (!isBuildError(error, "unauthenticated")) throw wrapError(error, `pushing with mount from ${from}`);
    }
  }
  const response = await request(env, "POST", "blobs/uploads/", {
    headers: { "content-length": "0" },
    signal,
  });
  if (response.status === 201) return "mounted";
  if (response.status !== 200 && response.status !== 202 && response.status !== 204) {
    throw await errorFromResponse(response, "POST");
  }
  response.body.destroy();
  return uploadUrl(env, response);
}

function uploadUrl(env: PushEnv, response: HttpResponse): URL {
  const location = response.headers.location ?? "";
  if (location === "" || !URL.canParse(location, response.url)) {
    throw new BuildError(
      "failed_precondition",
      `unable to parse location ${JSON.stringify(location.slice(0, 256))}`,
    );
  }
  const url = new URL(location, response.url);
  if (url.protocol !== "https:" && (url.protocol !== "http:" || response.url.protocol === "https:")) {
    throw new BuildError(
      "permission_denied",
      `refusing to upload to ${url.protocol}//${url.host} for ${env.host.host}`,
    );
  }
  return url;
}

interface Upload {
  readonly desc: Descriptor;
  readonly source: BlobSource;
  readonly opts: PushOptions;
}

function withDigestQuery(url: URL, desc: Descriptor): URL {
  const target = new URL(url);
  target.searchParams.append("digest", desc.digest);
  return target;
}

async function uploadWhole(env: PushEnv, url: URL, upload: Upload): Promise<void> {
  const { desc, source, opts } = upload;
  const response = await request(env, "PUT", withDigestQuery(url, desc), {
    headers: { "content-type": "application/octet-stream" },
    body: { sizeBytes: desc.size, open: () => counted(source.read({ offset: 0 }), 0, opts.onProgress) },
    signal: opts.signal,
    retry: false,
  });
  if (response.status !== 200 && response.status !== 201 && response.status !== 204) {
    throw await errorFromResponse(response, "PUT");
  }
  response.body.destroy();
}

/** PATCH piece by piece; after a failure the registry says how far it got. */
async function uploadChunks(env: PushEnv, start: URL, upload: Upload): Promise<void> {
  const { desc, source, opts } = upload;
  let url = start;
  let at = 0;
  let failures = 0;
  while (at < desc.size) {
    const length = Math.min(Math.max(1, opts.chunkBytes ?? desc.size), desc.size - at);
    const offset = at;
    try {
      const response = await request(env, "PATCH", url, {
        headers: { "content-type": "application/octet-stream", "content-range": `${at}-${at + length - 1}` },
        body: {
          sizeBytes: length,
          open: () => counted(source.read({ offset, length }), offset, opts.onProgress),
        },
        signal: opts.signal,
        retry: false,
      });
      if (response.status !== 202 && response.status !== 204)
        throw await errorFromResponse(response, "PATCH");
      response.body.destroy();
      url = uploadUrl(env, response);
      at += length;
      failures = 0;
    } catch (error) {
      if (isCanceled(error) || !isTransient(error) || ++failures >= env.limits.maxAttempts) throw error;
      await sleep(
        Math.min(env.limits.retryDelayMs * 2 ** (failures - 1), env.limits.maxRetryDelayMs),
        opts.signal,
      );
      ({ url, at } = await uploadStatus(env, url, opts.signal));
    }
  }
  const response = await request(env, "PUT", withDigestQuery(url, desc), {
    headers: { "content-length": "0" },
    signal: opts.signal,
  });
  if (response.status !== 201 && response.status !== 204) throw await errorFromResponse(response, "PUT");
  response.body.destroy();
}

async function uploadStatus(env: PushEnv, url: URL, signal?: AbortSignal): Promise<{ url: URL; at: number }> {
  const response = await request(env, "GET", url, { signal });
  if (response.status !== 204 && response.status !== 202) throw await errorFromResponse(response, "GET");
  response.body.destroy();
  const last = /^(?:bytes=)?0-(\d{1,15})$/.exec(String(response.headers.range ?? ""))?.[1];
  return {
    url: response.headers.location === undefined ? url : uploadUrl(env, response),
    at: last === undefined || (last === "0" && response.headers.range === "0-0") ? 0 : Number(last) + 1,
  };
}

async function* counted(
  source: AsyncIterable<Uint8Array>,
  from: number,
  onProgress: ((doneBytes: number) => void) | undefined,
): AsyncGenerator<Uint8Array> {
  let done = from;
  for await (const chunk of source) {
    yield chunk;
    done += chunk.length;
    onProgress?.(done);
  }
}

async function headError(
  env: PushEnv,
  target: string,
  head: HttpResponse,
  signal?: AbortSignal,
): Promise<BuildError> {
  if (head.status !== 403) return errorFromResponse(head, "HEAD");
  const response = await request(env, "GET", target, { signal });
  if (response.status > 299) return errorFromResponse(response, "HEAD");
  response.body.destroy();
  return errorFromResponse(head, "HEAD");
}

function request(
  env: PushEnv,
  method: string,
  target: string | URL,
  rest: Partial<Pick<HostRequest, "headers" | "body" | "signal" | "retry" | "scopes">>,
): Promise<HttpResponse> {
  return hostRequest(
    {
      host: env.host,
      method,
      target: typeof target === "string" ? `${env.ref.path}/${target}` : target,
      namespace: env.ref.domain,
      ...rest,
      scopes: [`repository:${env.ref.path}:pull,push`, ...(rest.scopes ?? [])],
    },
    env,
  );
}
