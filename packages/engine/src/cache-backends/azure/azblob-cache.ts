import { posix } from "node:path";
import { isBuildError, wrapError } from "@kiln/base";
import type { Descriptor } from "@kiln/oci";
import type { OpContext } from "../../op-context.ts";
import {
  type AttrValues,
  type CacheAttrs,
  HIDDEN,
  invalid,
  namesAttr,
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
import { ObjectHttp } from "../object/object-http.ts";
import { AzureCredentials } from "./azure-credentials.ts";
import { type Authorize, AzureBlobHttp, missingBlob, presigned, withQuery } from "./blob-http.ts";
import { sharedKey } from "./shared-key.ts";

/** What `type=azblob` takes. */
export const AZBLOB_ATTRS = {
  account_url: { ...optionalAttr("BUILDKIT_AZURE_STORAGE_ACCOUNT_URL"), shown: withoutSignature },
  account_name: optionalAttr("BUILDKIT_AZURE_STORAGE_ACCOUNT_NAME"),
  container: textAttr("buildkit-cache", "BUILDKIT_AZURE_STORAGE_CONTAINER"),
  prefix: textAttr("", "BUILDKIT_AZURE_STORAGE_PREFIX"),
  manifests_prefix: textAttr("manifests"),
  blobs_prefix: textAttr("blobs"),
  name: namesAttr("buildkit"),
  secret_access_key: secretAttr(),
};

const LIMITS = { maxAttempts: 4, delayMs: 1_000, maxDelayMs: 60_000 };
const UPLOADS_AT_ONCE = 4;

type AzureValues = Omit<AttrValues<typeof AZBLOB_ATTRS>, "account_url" | "account_name"> & {
  readonly account: URL;
  readonly accountName: string;
};

/** The query of an account's URL is a signature that lets anybody in. */
function withoutSignature(url: string): string {
  const at = url.indexOf("?");
  return at < 0 ? url : `${url.slice(0, at)}?${HIDDEN}`;
}

/** Caches in Azure Blob Storage (`type=azblob`). */
export function azblobCache(host: CacheBackendHost): CacheBackend {
  return {
    exportName: "exporting cache to Azure Blob Storage",
    exporter: (attrs) => {
      const store = storeOf(valuesOf(attrs, host), host);
      return objectSender((ctx) => store.open(ctx), { blobs: host.blobs, parallelism: UPLOADS_AT_ONCE });
    },
    importer: (attrs) => {
      const store = storeOf(valuesOf(attrs, host), host);
      return objectReader((ctx) => store.open(ctx));
    },
  };
}

function valuesOf(attrs: CacheAttrs, host: CacheBackendHost): AzureValues {
  try {
    const values = readAttrs(attrs, AZBLOB_ATTRS, host.env);
    const { account_url: text } = values;
    if (text === undefined)
      throw invalid(
        // biome-ignore lint/suspicious/noTemplateCurlyInString: the text is BuildKit's
        "either ${BUILDKIT_AZURE_STORAGE_ACCOUNT_URL} or account_url attribute is required for azblob cache",
      );
    if (!URL.canParse(text) || !/^https?:/i.test(text))
      throw invalid("azure storage account url provided is not a valid url");
    const account = new URL(text);
    const accountName = values.account_name ?? account.hostname.split(".")[0] ?? "";
    if (accountName === "") throw invalid("unable to retrieve account name for azblob cache");
    if (!/^[a-z0-9$](?:[a-z0-9-]{1,62})$/.test(values.container))
      throw invalid("invalid container for azblob cache");
    return { ...values, account, accountName };
  } catch (error) {
    throw wrapError(error, "failed to create azblob config");
  }
}

function storeOf(values: AzureValues, host: CacheBackendHost): AzureStore {
  const http = new ObjectHttp(host.transport, LIMITS);
  return new AzureStore(new AzureBlobHttp(http, authorizer(values, http, host)), values);
}

function authorizer(values: AzureValues, http: ObjectHttp, host: CacheBackendHost): Authorize {
  if (values.secret_access_key !== "") {
    const account = {
      name: values.accountName,
      key: Buffer.from(values.secret_access_key, "base64"),
    };
    return async (request) => ({
      ...request,
      headers: { ...request.headers, authorization: sharedKey(request, account) },
    });
  }
  if (values.account.searchParams.has("sig")) return presigned;
  const credentials = new AzureCredentials(http, host.env);
  return async (request, signal) => ({
    ...request,
    headers: { ...request.headers, authorization: `Bearer ${await credentials.token(signal)}` },
  });
}

class AzureStore implements ObjectStore {
  readonly #blobs: AzureBlobHttp;
  readonly #values: AzureValues;

  constructor(blobs: AzureBlobHttp, values: AzureValues) {
    this.#blobs = blobs;
    this.#values = values;
  }

  /** Makes the container when it isn't there. */
  async open({ signal }: OpContext): Promise<AzureStore> {
    const { container } = this.#values;
    const url = withQuery(this.#url(container), { restype: "container" });
    const found = await this.#blobs.send({ method: "HEAD", url }, signal, [404]);
    if (found.status !== 404) return this;
    try {
      await this.#blobs.send({ method: "PUT", url }, signal);
    } catch (error) {
      // somebody else was faster
      if (!isBuildError(error, "already_exists"))
        throw wrapError(error, `failed to create cache container ${container}`);
    }
    return this;
  }

  has(desc: Descriptor, { signal }: OpContext): Promise<boolean> {
    return this.#exists(this.#blobUrl(desc), signal);
  }

  async put(desc: Descriptor, body: ObjectBody, { signal }: OpContext): Promise<void> {
    await this.#blobs.put(this.#blobUrl(desc), body, { signal, ifAbsent: true });
  }

  get(desc: Descriptor, signal: AbortSignal): AsyncIterable<Uint8Array> {
    return this.#blobs.get(async () => this.#blobUrl(desc), signal);
  }

  async check(desc: Descriptor, signal: AbortSignal): Promise<void> {
    if (!(await this.#exists(this.#blobUrl(desc), signal))) throw missingBlob(desc.digest);
  }

  async putConfig(bytes: Uint8Array, { signal }: OpContext): Promise<void> {
    for (const name of this.#values.name)
      await this.#blobs.put(this.#manifestUrl(name), bytesBody(bytes), { signal, ifAbsent: false });
  }

  /** All names are read; their records come together. */
  async configs({ signal }: OpContext): Promise<readonly Uint8Array[]> {
    const out: Uint8Array[] = [];
    for (const name of this.#values.name) {
      const answer = await this.#blobs.send({ method: "GET", url: this.#manifestUrl(name) }, signal, [404]);
      if (answer.status !== 404) out.push(answer.body);
    }
    return out;
  }

  async #exists(url: URL, signal: AbortSignal): Promise<boolean> {
    const { status } = await this.#blobs.send({ method: "HEAD", url }, signal, [404]);
    return status !== 404;
  }

  #blobUrl(desc: Descriptor): URL {
    const { prefix, blobs_prefix, container } = this.#values;
    return this.#url(container, posix.join(prefix, blobs_prefix, desc.digest));
  }

  #manifestUrl(name: string): URL {
    const { prefix, manifests_prefix, container } = this.#values;
    return this.#url(container, posix.join(prefix, manifests_prefix, name));
  }

  #url(container: string, blob?: string): URL {
    const url = new URL(this.#values.account);
    const parts = [container, ...(blob === undefined ? [] : blob.split("/"))].map(encodeURIComponent);
    url.pathname = `${url.pathname.replace(/\/+$/, "")}/${parts.join("/")}`;
    return url;
  }
}
