import { createHash } from "node:crypto";
import { mapLimited } from "@kiln/base";
import { parseDurationMs } from "@kiln/formats";
import type { Descriptor } from "@kiln/oci";
import { type HttpTransport, readBody } from "@kiln/registry";
import type { OpContext } from "../../op-context.ts";
import { missingBlob } from "../azure/blob-http.ts";
import {
  type AttrSpec,
  type AttrValues,
  type CacheAttrs,
  HIDDEN,
  invalid,
  optionalAttr,
  readAttrs,
  secretAttr,
  textAttr,
} from "../cache-attrs.ts";
import type { CacheBackend, CacheBackendHost } from "../cache-backend.ts";
import {
  bytesBody,
  type ObjectBody,
  type ObjectStore,
  objectReader,
  objectSender,
} from "../object/object-cache.ts";
import { ActionsCache, type ActionsEntry, type ActionsService } from "./actions-cache.ts";
import { type ActionsScope, actionsScopes } from "./actions-token.ts";

const durationAttr: AttrSpec<number> = {
  otherwise: 10 * 60_000,
  parse: (value) => {
    try {
      return parseDurationMs(value);
    } catch {
      throw invalid("failed to parse timeout for github actions cache");
    }
  },
};

const versionAttr: AttrSpec<number> = {
  otherwise: 0,
  parse: (value) => {
    if (value !== "0" && value !== "1" && value !== "2")
      throw invalid(`failed to parse api version ${JSON.stringify(value)}, expected 1 or 2`);
    return Number(value);
  },
};

/** What `type=gha` takes. */
export const GHA_ATTRS = {
  scope: textAttr("buildkit"),
  token: { ...optionalAttr(), shown: () => HIDDEN },
  url: textAttr(""),
  url_v2: textAttr(""),
  version: versionAttr,
  timeout: durationAttr,
  repository: textAttr(""),
  ghtoken: secretAttr(),
};

type GhaValues = AttrValues<typeof GHA_ATTRS>;

const INDEX_PATIENCE_MS = 15_000;
const UPLOADS_AT_ONCE = 4;
const LOOKUPS_AT_ONCE = 4;
const MAX_INDEX_BYTES = 32 << 20;
const MAX_LISTED_PAGES = 100;
const KEYS_PER_PAGE = 100;

/** Caches in the cache service of GitHub Actions (`type=gha`), both versions of it. */
export function ghaCache(host: CacheBackendHost): CacheBackend {
  const open = (attrs: CacheAttrs): GhaStore => {
    const values = readAttrs(attrs, GHA_ATTRS);
    const service = serviceOf(values);
    const scopes = actionsScopes(service.token, Date.now());
    return new GhaStore({
      values,
      scopes,
      cache: new ActionsCache(service, host.transport),
      transport: host.transport,
    });
  };
  return {
    exportName: "exporting to GitHub Actions Cache",
    exporter: (attrs) => {
      const store = open(attrs);
      return objectSender(async () => store, { blobs: host.blobs, parallelism: UPLOADS_AT_ONCE });
    },
    importer: (attrs) => {
      const store = open(attrs);
      return objectReader(async () => store);
    },
  };
}

function serviceOf(values: GhaValues): ActionsService {
  if (values.token === undefined) throw invalid("token not set for github actions cache");
  const url = values.version !== 1 && values.url_v2 !== "" ? values.url_v2 : values.url;
  if (url === "") throw invalid("url not set for github actions cache");
  if (!URL.canParse(url) || !/^https?:/i.test(url)) throw invalid("invalid url for github actions cache");
  const isNew =
    values.version === 0
      ? values.url_v2 !== "" || url.includes("results-receiver.actions.githubusercontent.com")
      : values.version === 2;
  return { url, token: values.token, version: isNew ? 2 : 1, timeoutMs: values.timeout };
}

class GhaStore implements ObjectStore {
  readonly #values: GhaValues;
  readonly #scopes: readonly ActionsScope[];
  readonly #cache: ActionsCache;
  readonly #transport: HttpTransport;
  readonly #entries = new Map<string, ActionsEntry>();
  #listed: Promise<ReadonlySet<string> | undefined> | undefined;

  constructor(at: {
    readonly values: GhaValues;
    readonly scopes: readonly ActionsScope[];
    readonly cache: ActionsCache;
    readonly transport: HttpTransport;
  }) {
    this.#values = at.values;
    this.#scopes = at.scopes;
    this.#cache = at.cache;
    this.#transport = at.transport;
  }

  /** With a token for GitHub's API one list answers for all layers, which spares the rate limit. */
  async has(desc: Descriptor, { signal }: OpContext): Promise<boolean> {
    this.#listed ??= this.#listKeys(signal);
    const listed = await this.#listed;
    if (listed !== undefined) return listed.has(blobKey(desc));
    return (await this.#find(desc, signal)) !== undefined;
  }

  async put(desc: Descriptor, body: ObjectBody, { signal }: OpContext): Promise<void> {
    await this.#cache.save(blobKey(desc), body, signal);
  }

  async *get(desc: Descriptor, signal: AbortSignal): AsyncGenerator<Uint8Array> {
    // URLs expire: one that was found long ago is asked for again
    const found = await this.#cache.find(blobKey(desc), signal);
    if (found === undefined || found.key !== blobKey(desc)) throw missingBlob(desc.digest);
    yield* this.#cache.read(found, signal);
  }

  async check(desc: Descriptor, signal: AbortSignal): Promise<void> {
    if ((await this.#find(desc, signal)) === undefined) throw missingBlob(desc.digest);
  }

  async putConfig(bytes: Uint8Array, { signal }: OpContext): Promise<void> {
    const writable = this.#scopes.filter((scope) => scope.canWrite).at(-1)?.scope ?? "";
    const key = indexKey(writable, this.#values.scope);
    await this.#cache.saveNext(key, bytesBody(bytes), { patienceMs: INDEX_PATIENCE_MS, signal });
  }

  async configs({ signal }: OpContext): Promise<readonly Uint8Array[]> {
    const found = await mapLimited(this.#scopes, LOOKUPS_AT_ONCE, async ({ scope }) => {
      const entry = await this.#cache.find(indexKey(scope, this.#values.scope), signal);
      return entry && (await collect(this.#cache.read(entry, signal)));
    });
    return found.filter((bytes) => bytes !== undefined);
  }

  async #find(desc: Descriptor, signal: AbortSignal): Promise<ActionsEntry | undefined> {
    const key = blobKey(desc);
    const known = this.#entries.get(key);
    if (known !== undefined) return known;
    const found = await this.#cache.find(key, signal);
    // the service also answers with keys that only begin so
    if (found?.key !== key) return undefined;
    this.#entries.set(key, found);
    return found;
  }

  /** Keys of all blobs, by GitHub's own API; undefined when it can't be asked. */
  async #listKeys(signal: AbortSignal): Promise<ReadonlySet<string> | undefined> {
    const { repository, ghtoken } = this.#values;
    if (repository === "" || ghtoken === "") return undefined;
    try {
      const keys = new Set<string>();
      for (const { scope } of this.#scopes) {
        for (let page = 1; page <= MAX_LISTED_PAGES; page++) {
          const { total, found } = await this.#listPage({ scope, page }, signal);
          for (const key of found) keys.add(key);
          if (total <= page * KEYS_PER_PAGE) break;
        }
      }
      return keys;
    } catch {
      signal.throwIfAborted();
      return undefined; // each layer is asked for then
    }
  }

  async #listPage(
    at: { readonly scope: string; readonly page: number },
    signal: AbortSignal,
  ): Promise<{ readonly total: number; readonly found: readonly string[] }> {
    const path = this.#values.repository.split("/").map(encodeURIComponent).join("/");
    const url = new URL(`https://api.github.com/repos/${path}/actions/caches`);
    url.search = new URLSearchParams({
      per_page: String(KEYS_PER_PAGE),
      page: String(at.page),
      key: "buildkit-blob-1-",
      ref: at.scope,
    }).toString();
    const response = await this.#transport.request({
      method: "GET",
      url,
      headers: {
        accept: "application/vnd.github+json",
        authorization: `Bearer ${this.#values.ghtoken}`,
        "user-agent": "buildkit/v0.34",
        "x-github-api-version": "2022-11-28",
      },
      maxRedirects: 0,
      signal,
    });
    const body = await readBody(response.body, MAX_INDEX_BYTES);
    if (response.status !== 200) throw new Error(`status ${response.status}`);
    const doc = JSON.parse(new TextDecoder().decode(body)) as {
      readonly total_count?: number;
      readonly actions_caches?: readonly { readonly key?: string }[];
    };
    return { total: doc.total_count ?? 0, found: (doc.actions_caches ?? []).map(({ key }) => key ?? "") };
  }
}

function blobKey(desc: Descriptor): string {
  return `buildkit-blob-1-${desc.digest}`;
}

/** Key of the config of a scope; the newest of its editions is found by it. */
export function indexKey(scope: string, name: string): string {
  return `index-${name}-1-${createHash("sha256").update(scope).digest("hex").slice(0, 8)}`;
}

async function collect(source: AsyncIterable<Uint8Array>): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of source) {
    size += chunk.length;
    if (size > MAX_INDEX_BYTES) throw invalid(`index of a cache has more than ${MAX_INDEX_BYTES} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}
