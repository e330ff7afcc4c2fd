import { createHash } from "node:crypto";
import { BuildError } from "@kiln/base";
import { parseDurationMs } from "@kiln/formats";
import { type Descriptor, digestHex } from "@kiln/oci";
import type { OpContext } from "../../op-context.ts";
import {
  type AttrSpec,
  type AttrValues,
  type CacheAttrs,
  countAttr,
  invalid,
  lenientFlagAttr,
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
import { AwsCredentials } from "./aws-credentials.ts";
import { S3Client } from "./s3-client.ts";
import type { AwsKeys } from "./sigv4.ts";

const DEFAULT_TOUCH_MS = 24 * 3_600_000;

const touchAttr: AttrSpec<number> = {
  otherwise: DEFAULT_TOUCH_MS,
  parse: (value) => {
    try {
      return parseDurationMs(value);
    } catch {
      return DEFAULT_TOUCH_MS; // as BuildKit does
    }
  },
};

const retryModeAttr: AttrSpec<string> = {
  otherwise: "standard",
  parse: (value) => {
    if (value !== "standard" && value !== "adaptive")
      throw invalid('retry_mode must be "standard" or "adaptive"');
    return value;
  },
};

/** What `type=s3` takes. */
export const S3_ATTRS = {
  bucket: optionalAttr("AWS_BUCKET"),
  region: optionalAttr("AWS_REGION"),
  prefix: textAttr(""),
  manifests_prefix: textAttr("manifests/"),
  blobs_prefix: textAttr("blobs/"),
  name: namesAttr("buildkit"),
  touch_refresh: touchAttr,
  endpoint_url: textAttr(""),
  access_key_id: textAttr(""),
  secret_access_key: secretAttr(),
  session_token: secretAttr(),
  use_path_style: lenientFlagAttr(false),
  upload_parallelism: countAttr(4),
  /** Says not to sign Accept-Encoding, which is never done here. */
  disable_accept_encoding: lenientFlagAttr(false),
  /** Both pause ever longer; a server that asks for a pause gets it. */
  retry_mode: retryModeAttr,
  retry_max_attempts: countAttr(3),
};

type S3Values = AttrValues<typeof S3_ATTRS>;

/** Caches in S3 and whatever speaks its language (`type=s3`). */
export function s3Cache(host: CacheBackendHost): CacheBackend {
  return {
    exportName: "exporting cache to Amazon S3",
    exporter: (attrs) => {
      const values = valuesOf(attrs, host);
      const store = storeOf(values, host);
      return objectSender(async () => store, { blobs: host.blobs, parallelism: values.upload_parallelism });
    },
    importer: (attrs) => {
      const store = storeOf(valuesOf(attrs, host), host);
      return objectReader(async () => store);
    },
  };
}

function valuesOf(attrs: CacheAttrs, host: CacheBackendHost): S3Values {
  const values = readAttrs(attrs, S3_ATTRS, host.env);
  if (values.bucket === undefined) throw invalid("bucket ($AWS_BUCKET) not set for s3 cache");
  if (values.region === undefined) throw invalid("region ($AWS_REGION) not set for s3 cache");
  if (!/^[A-Za-z0-9][A-Za-z0-9._-]{1,254}$/.test(values.bucket)) throw invalid("invalid bucket for s3 cache");
  if (!/^[A-Za-z0-9-]{1,64}$/.test(values.region)) throw invalid("invalid region for s3 cache");
  const endpoint = values.endpoint_url;
  if (endpoint !== "" && !(URL.canParse(endpoint) && /^https?:/i.test(endpoint)))
    throw invalid("endpoint_url of s3 cache is no http(s) URL");
  return values;
}

function storeOf(values: S3Values, host: CacheBackendHost): ObjectStore {
  const limits = { maxAttempts: values.retry_max_attempts, delayMs: 500, maxDelayMs: 20_000 };
  const http = new ObjectHttp(host.transport, limits);
  const region = values.region ?? "";
  const given: AwsKeys | undefined =
    values.access_key_id !== "" && values.secret_access_key !== ""
      ? {
          accessKeyId: values.access_key_id,
          secretAccessKey: values.secret_access_key,
          sessionToken: values.session_token,
        }
      : undefined;
  const own = new AwsCredentials(http, host.env, region);
  const client = new S3Client(
    http,
    {
      bucket: values.bucket ?? "",
      region,
      endpoint: values.endpoint_url,
      pathStyle: values.endpoint_url !== "" && values.use_path_style,
    },
    async (signal) => given ?? (await own.get(signal)),
  );
  return new S3Store(client, values);
}

class S3Store implements ObjectStore {
  readonly #client: S3Client;
  readonly #values: S3Values;

  constructor(client: S3Client, values: S3Values) {
    this.#client = client;
    this.#values = values;
  }

  async has(desc: Descriptor, { signal }: OpContext): Promise<boolean> {
    const key = this.#blobKey(desc);
    const found = await this.#client.head(key, signal);
    if (found === undefined) return false;
    if (Date.now() - found.modifiedAtMs > this.#values.touch_refresh)
      await this.#client.touch(key, found.sizeBytes, signal);
    return true;
  }

  async put(desc: Descriptor, body: ObjectBody, { signal }: OpContext): Promise<void> {
    await this.#client.put(this.#blobKey(desc), body, digestHex(desc.digest), signal);
  }

  get(desc: Descriptor, signal: AbortSignal): AsyncIterable<Uint8Array> {
    return this.#client.get(this.#blobKey(desc), signal);
  }

  async check(desc: Descriptor, signal: AbortSignal): Promise<void> {
    if ((await this.#client.head(this.#blobKey(desc), signal)) === undefined)
      throw new BuildError("not_found", `blob ${desc.digest}: not found`);
  }

  async putConfig(bytes: Uint8Array, { signal }: OpContext): Promise<void> {
    const sha256 = createHash("sha256").update(bytes).digest("hex");
    for (const name of this.#values.name)
      await this.#client.put(this.#manifestKey(name), bytesBody(bytes), sha256, signal);
  }

  /** Only the first name is read, as in BuildKit. */
  async configs({ signal }: OpContext): Promise<readonly Uint8Array[]> {
    const found = await this.#client.getSmall(this.#manifestKey(this.#values.name[0] ?? ""), signal);
    return found === undefined ? [] : [found];
  }

  #blobKey(desc: Descriptor): string {
    return `${this.#values.prefix}${this.#values.blobs_prefix}${desc.digest}`;
  }

  #manifestKey(name: string): string {
    return `${this.#values.prefix}${this.#values.manifests_prefix}${name}`;
  }
}
