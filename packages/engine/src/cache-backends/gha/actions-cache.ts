import { BuildError, mapLimited, sleep } from "@kiln/base";
import type { HttpTransport } from "@kiln/registry";
import { AzureBlobHttp, presigned } from "../azure/blob-http.ts";
import type { ObjectBody } from "../object/object-cache.ts";
import { ObjectHttp, objectStatusOf, type SmallAnswer } from "../object/object-http.ts";

/** A cache entry that was found. */
export interface ActionsEntry {
  readonly key: string;
  readonly url: URL;
}

/** Where the cache service is, and what lets us in. */
export interface ActionsService {
  readonly url: string;
  readonly token: string;
  readonly version: 1 | 2;
  /** Longest that one call may take, waiting for the service's rate limit included. */
  readonly timeoutMs: number;
}

/** sha256 of `|go-actionscache-1.0`: the same for all entries, and the same as BuildKit's. */
const ENTRY_VERSION = "693bb7016429d80366022f036f84856888c9f13e00145f5f6f4dce303a38d6f2";
const CHUNK_BYTES = 32 << 20;
const CHUNKS_AT_ONCE = 4;
const TWIRP = "twirp/github.actions.results.api.v1.CacheService";
const LOCKED_PAUSE_MS = 2_000;
const USER_AGENT = "buildkit/v0.34";

/** The cache service of GitHub Actions: entries by key that can't be changed once written. */
export class ActionsCache {
  readonly #service: ActionsService;
  readonly #http: ObjectHttp;
  readonly #blobs: AzureBlobHttp;

  constructor(service: ActionsService, transport: HttpTransport) {
    this.#service = service;
    const attempts = Math.max(2, Math.ceil(service.timeoutMs / 60_000) + 5);
    const limits = { maxAttempts: attempts, delayMs: 2_000, maxDelayMs: 90_000 };
    this.#http = new ObjectHttp(transport, limits);
    this.#blobs = new AzureBlobHttp(this.#http, presigned);
  }

  /** The newest entry whose key is or begins with `key`. */
  async find(key: string, signal: AbortSignal): Promise<ActionsEntry | undefined> {
    if (this.#service.version === 1) {
      const query = new URLSearchParams({ keys: key, version: ENTRY_VERSION });
      const answer = await this.#v1("GET", `cache?${query}`, { signal });
      const found = fields(answer);
      return entryOf(found.cacheKey, found.archiveLocation);
    }
    const request = { key, restore_keys: [key], version: ENTRY_VERSION };
    const found = fields(await this.#v2("GetCacheEntryDownloadURL", request, signal));
    return found.ok === true ? entryOf(found.matched_key, found.signed_download_url) : undefined;
  }

  /** The bytes of an entry. Its URL may expire on the way: it is asked for again then. */
  read(entry: ActionsEntry, signal: AbortSignal): AsyncIterable<Uint8Array> {
    return this.#blobs.get(async () => entry.url, signal);
  }

  /** Writes an entry. False when there is one already, or somebody is writing it. */
  async save(key: string, body: ObjectBody, signal: AbortSignal): Promise<boolean> {
    const place = await this.#reserve(key, signal);
    if (place === undefined) return false;
    await this.#upload(key, place, body, signal);
    return true;
  }

  /**
   * Writes the next edition of `key`: entries `key#1`, `key#2` … of which the newest counts. An edition that
   * somebody else has reserved is waited for, and passed over when it doesn't come for `patienceMs`.
   */
  async saveNext(
    key: string,
    body: ObjectBody,
    at: { readonly patienceMs: number; readonly signal: AbortSignal },
  ): Promise<void> {
    const { signal } = at;
    for (let waitedMs = 0; ; ) {
      const newest = await this.find(`${key}#`, signal);
      let edition = newest === undefined ? 0 : editionOf(newest.key, key);
      for (let locked = false; !locked; ) {
        edition++;
        const name = `${key}#${edition}`;
        const place = await this.#reserve(name, signal);
        if (place !== undefined) {
          await this.#upload(name, place, body, signal);
          return;
        }
        locked = waitedMs <= at.patienceMs;
      }
      waitedMs += LOCKED_PAUSE_MS;
      await sleep(LOCKED_PAUSE_MS, signal);
    }
  }

  /** Where to upload to; undefined when the key is taken. */
  async #reserve(key: string, signal: AbortSignal): Promise<string | undefined> {
    const request = { key, version: ENTRY_VERSION };
    try {
      if (this.#service.version === 1) {
        const { cacheID, cacheId } = fields(await this.#v1("POST", "caches", { json: request, signal }));
        const id = cacheID ?? cacheId;
        if (typeof id !== "number" || id === 0) throw unusable("reserve");
        return String(id);
      }
      const answer = fields(await this.#v2("CreateCacheEntry", request, signal));
      if (answer.ok !== true || typeof answer.signed_upload_url !== "string")
        throw new BuildError("unavailable", "failed to reserve cache");
      return answer.signed_upload_url;
    } catch (error) {
      if (objectStatusOf(error) === 409) return undefined;
      throw error;
    }
  }

  async #upload(key: string, place: string, body: ObjectBody, signal: AbortSignal): Promise<void> {
    if (this.#service.version === 1) {
      await this.#uploadChunks(`caches/${place}`, body, signal);
      await this.#v1("POST", `caches/${place}`, { json: { size: body.sizeBytes }, signal });
      return;
    }
    await this.#blobs.put(foreignUrl(place), body, { signal, ifAbsent: false });
    const request = { key, size_bytes: body.sizeBytes, version: ENTRY_VERSION };
    const answer = fields(await this.#v2("FinalizeCacheEntryUpload", request, signal));
    if (answer.ok !== true) throw new BuildError("unavailable", "failed to commit cache");
  }

  async #uploadChunks(path: string, body: ObjectBody, signal: AbortSignal): Promise<void> {
    const count = Math.ceil(body.sizeBytes / CHUNK_BYTES);
    const offsets = Array.from({ length: count }, (_, i) => i * CHUNK_BYTES);
    await mapLimited(offsets, CHUNKS_AT_ONCE, async (offset) => {
      const length = Math.min(CHUNK_BYTES, body.sizeBytes - offset);
      await this.#v1("PATCH", path, {
        headers: {
          "content-type": "application/octet-stream",
          "content-range": `bytes ${offset}-${offset + length - 1}/*`,
        },
        body: { sizeBytes: length, open: () => body.read({ offset, length }) },
        signal,
      });
    });
  }

  async #v1(
    method: string,
    path: string,
    at: {
      readonly signal: AbortSignal;
      readonly json?: unknown;
      readonly headers?: Readonly<Record<string, string>>;
      readonly body?: { readonly sizeBytes: number; open(): AsyncIterable<Uint8Array> };
    },
  ): Promise<SmallAnswer> {
    const bytes = at.json === undefined ? undefined : new TextEncoder().encode(JSON.stringify(at.json));
    const body = bytes === undefined ? at.body : { sizeBytes: bytes.length, open: () => [bytes] };
    return await this.#http.small(() => ({
      method,
      url: new URL(`${this.#base()}/_apis/artifactcache/${path}`),
      headers: {
        authorization: `Bearer ${this.#service.token}`,
        accept: "application/json;api-version=6.0-preview.1",
        "user-agent": USER_AGENT,
        ...(bytes === undefined ? {} : { "content-type": "application/json" }),
        ...at.headers,
      },
      ...(body === undefined ? {} : { body }),
      signal: this.#bounded(at.signal),
    }));
  }

  #v2(method: string, request: unknown, signal: AbortSignal): Promise<SmallAnswer> {
    const bytes = new TextEncoder().encode(JSON.stringify(request));
    return this.#http.small(() => ({
      method: "POST",
      url: new URL(`${this.#base()}/${TWIRP}/${method}`),
      headers: {
        authorization: `Bearer ${this.#service.token}`,
        "content-type": "application/json",
        "user-agent": USER_AGENT,
      },
      body: { sizeBytes: bytes.length, open: () => [bytes] },
      signal: this.#bounded(signal),
    }));
  }

  #bounded(signal: AbortSignal): AbortSignal {
    return AbortSignal.any([signal, AbortSignal.timeout(this.#service.timeoutMs)]);
  }

  #base(): string {
    return this.#service.url.replace(/\/+$/, "");
  }
}

function fields(answer: SmallAnswer): Readonly<Record<string, unknown>> {
  if (answer.body.length === 0) return {};
  try {
    const doc: unknown = JSON.parse(new TextDecoder().decode(answer.body));
    if (typeof doc === "object" && doc !== null) return doc as Record<string, unknown>;
  } catch {
    // said below
  }
  throw unusable("answer");
}

function entryOf(key: unknown, url: unknown): ActionsEntry | undefined {
  if (typeof key !== "string" || key === "" || typeof url !== "string") return undefined;
  return { key, url: foreignUrl(url) };
}

/** A URL that the service gives us: our token never goes there. */
function foreignUrl(text: string): URL {
  if (!URL.canParse(text) || !/^https?:/i.test(text)) throw unusable("URL");
  return new URL(text);
}

function editionOf(found: string, key: string): number {
  const text = found.startsWith(`${key}#`) ? found.slice(key.length + 1) : "";
  if (!/^\d{1,9}$/.test(text))
    throw new BuildError("data_loss", `failed to parse index of cache entry ${JSON.stringify(key)}`);
  return Number(text);
}

function unusable(what: string): BuildError {
  return new BuildError("unavailable", `GitHub Actions cache: unusable ${what}`);
}
