import { createHash } from "node:crypto";
import { BuildError, isCanceled, mapLimited } from "@kiln/base";
import type { HttpRequest } from "@kiln/registry";
import type { ObjectBody } from "../object/object-cache.ts";
import { type ObjectHttp, objectStatusOf, type SmallAnswer } from "../object/object-http.ts";
import { type AwsKeys, EMPTY_HASH, encodePath, signV4 } from "./sigv4.ts";

/** Where a bucket is. */
export interface S3Place {
  readonly bucket: string;
  readonly region: string;
  /** `""` for AWS itself. */
  readonly endpoint: string;
  readonly pathStyle: boolean;
}

/** What is known of an object. */
export interface S3Object {
  readonly sizeBytes: number;
  readonly modifiedAtMs: number;
}

/** Larger bodies are sent in parts. */
const MAX_SINGLE_BYTES = 128 << 20;
const PART_BYTES = 64 << 20;
const MAX_PARTS = 10_000;
/** Most that one copy may have. */
const MAX_COPY_BYTES = 5 * 1024 ** 3;
const PARTS_AT_ONCE = 4;
const UNSIGNED = "UNSIGNED-PAYLOAD";

interface S3Request {
  readonly method: string;
  readonly key: string;
  readonly query?: Readonly<Record<string, string>>;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: ObjectBody;
  /** Hex sha256 of the body, where it's known. */
  readonly bodyHash?: string;
  readonly range?: { readonly offset: number; readonly length: number };
}

/** The objects of one bucket. */
export class S3Client {
  readonly #http: ObjectHttp;
  readonly #place: S3Place;
  readonly #keys: (signal: AbortSignal) => Promise<AwsKeys>;

  constructor(http: ObjectHttp, place: S3Place, keys: (signal: AbortSignal) => Promise<AwsKeys>) {
    this.#http = http;
    this.#place = place;
    this.#keys = keys;
  }

  /** Undefined for an object that isn't there. */
  async head(key: string, signal: AbortSignal): Promise<S3Object | undefined> {
    const answer = await this.#send({ method: "HEAD", key }, signal, [404]);
    if (answer.status === 404) return undefined;
    return {
      sizeBytes: Number(answer.headers["content-length"] ?? 0),
      modifiedAtMs: Date.parse(answer.headers["last-modified"] ?? ""),
    };
  }

  /** Undefined for an object that isn't there. */
  async getSmall(key: string, signal: AbortSignal): Promise<Uint8Array | undefined> {
    const answer = await this.#send({ method: "GET", key }, signal, [404]);
    return answer.status === 404 ? undefined : answer.body;
  }

  get(key: string, signal: AbortSignal): AsyncIterable<Uint8Array> {
    return this.#http.stream(
      (offset) =>
        this.#request(
          { method: "GET", key, ...(offset > 0 ? { headers: { range: `bytes=${offset}-` } } : {}) },
          signal,
        ),
      signal,
    );
  }

  /** Writes an object; `sha256` is that of the body in hex. */
  async put(key: string, body: ObjectBody, sha256: string, signal: AbortSignal): Promise<void> {
    if (body.sizeBytes <= MAX_SINGLE_BYTES) {
      await this.#send({ method: "PUT", key, body, bodyHash: sha256 }, signal);
      return;
    }
    await this.#inParts(key, partsOf(body.sizeBytes, PART_BYTES), signal, async (part, range) => {
      const answer = await this.#send({ method: "PUT", key, query: part, body, range }, signal);
      return answer.headers.etag ?? "";
    });
  }

  /** Makes an object new, so that rules that delete old ones spare it. */
  async touch(key: string, sizeBytes: number, signal: AbortSignal): Promise<void> {
    // a colon may stand in it as it is, which is all that not every server decodes
    const path = encodePath(`${this.#place.bucket}/${key}`).replaceAll("%3A", ":");
    const source = { "x-amz-copy-source": `/${path}` };
    if (sizeBytes < MAX_COPY_BYTES) {
      const headers = {
        ...source,
        "x-amz-metadata-directive": "REPLACE",
        "x-amz-meta-updated-at": new Date().toISOString(),
      };
      checkCopied(await this.#send({ method: "PUT", key, headers }, signal));
      return;
    }
    await this.#inParts(key, partsOf(sizeBytes, MAX_COPY_BYTES), signal, async (part, { offset, length }) => {
      const headers = { ...source, "x-amz-copy-source-range": `bytes=${offset}-${offset + length - 1}` };
      return checkCopied(await this.#send({ method: "PUT", key, query: part, headers }, signal));
    });
  }

  async #inParts(
    key: string,
    ranges: readonly { readonly offset: number; readonly length: number }[],
    signal: AbortSignal,
    send: (
      part: { readonly partNumber: string; readonly uploadId: string },
      range: { readonly offset: number; readonly length: number },
    ) => Promise<string>,
  ): Promise<void> {
    const started = await this.#send({ method: "POST", key, query: { uploads: "" } }, signal);
    const uploadId = element(started, "UploadId");
    try {
      const numbered = ranges.map((range, i) => ({ range, partNumber: String(i + 1) }));
      const etags = await mapLimited(numbered, PARTS_AT_ONCE, ({ range, partNumber }) =>
        send({ partNumber, uploadId }, range),
      );
      const parts = etags.map(
        (etag, i) => `<Part><PartNumber>${i + 1}</PartNumber><ETag>${escapeXml(etag)}</ETag></Part>`,
      );
      const bytes = new TextEncoder().encode(
        `<CompleteMultipartUpload xmlns="http://s3.amazonaws.com/doc/2006-03-01/">${parts.join("")}</CompleteMultipartUpload>`,
      );
      const body = {
        sizeBytes: bytes.length,
        read: async function* () {
          yield bytes;
        },
      };
      const bodyHash = createHash("sha256").update(bytes).digest("hex");
      const answer = await this.#send({ method: "POST", key, query: { uploadId }, body, bodyHash }, signal);
      refuseError(answer);
    } catch (error) {
      const late = AbortSignal.timeout(10_000);
      // what is left over is removed by the bucket's own rules if this fails too
      await this.#send({ method: "DELETE", key, query: { uploadId } }, late).catch(() => undefined);
      throw error;
    }
  }

  async #send(
    request: S3Request,
    signal: AbortSignal,
    expected: readonly number[] = [],
  ): Promise<SmallAnswer> {
    try {
      return await this.#http.small(() => this.#request(request, signal), expected);
    } catch (error) {
      if (isCanceled(error)) throw error;
      const status = objectStatusOf(error);
      if (status === 301 || status === 307) {
        const { bucket, region } = this.#place;
        throw new BuildError("failed_precondition", `bucket ${bucket} is not in region ${region}`, {
          cause: error,
        });
      }
      throw error;
    }
  }

  async #request(request: S3Request, signal: AbortSignal): Promise<HttpRequest> {
    const { method, body, range } = request;
    const url = this.#url(request.key);
    for (const [name, value] of Object.entries(request.query ?? {})) url.searchParams.set(name, value);
    const bodyHash = request.bodyHash ?? (body === undefined ? EMPTY_HASH : UNSIGNED);
    const headers = signV4(
      { method, url, headers: request.headers ?? {}, bodyHash },
      await this.#keys(signal),
      { region: this.#place.region, service: "s3", date: new Date() },
    );
    const sent = range ?? { offset: 0, length: body?.sizeBytes ?? 0 };
    if (body !== undefined)
      return { method, url, headers, body: { sizeBytes: sent.length, open: () => body.read(sent) }, signal };
    if (method === "PUT" || method === "POST")
      return { method, url, headers, body: { sizeBytes: 0, open: () => [] }, signal };
    return { method, url, headers, signal };
  }

  #url(key: string): URL {
    const { bucket, region, endpoint, pathStyle } = this.#place;
    const suffix = region.startsWith("cn-") ? ".cn" : "";
    const base = new URL(endpoint === "" ? `https://s3.${region}.amazonaws.com${suffix}` : endpoint);
    const own = base.pathname.replace(/\/+$/, "");
    // certificates for *.s3… don't cover names with dots
    if (pathStyle || bucket.includes(".")) base.pathname = `${own}/${encodePath(`${bucket}/${key}`)}`;
    else {
      base.hostname = `${bucket}.${base.hostname}`;
      base.pathname = `${own}/${encodePath(key)}`;
    }
    return base;
  }
}

function partsOf(sizeBytes: number, atLeast: number): { readonly offset: number; readonly length: number }[] {
  const partBytes = Math.max(atLeast, Math.ceil(sizeBytes / MAX_PARTS));
  const count = Math.ceil(sizeBytes / partBytes);
  return Array.from({ length: count }, (_, i) => ({
    offset: i * partBytes,
    length: Math.min(partBytes, sizeBytes - i * partBytes),
  }));
}

/** S3 answers 200 before a copy is done, and may say in the body that it failed. */
function checkCopied(answer: SmallAnswer): string {
  refuseError(answer);
  return element(answer, "ETag").replaceAll("&quot;", '"');
}

function refuseError(answer: SmallAnswer): void {
  const text = new TextDecoder().decode(answer.body);
  if (!text.includes("<Error>")) return;
  const code = /<Code>([^<]{1,200})<\/Code>/.exec(text)?.[1] ?? "unknown error";
  throw new BuildError("unavailable", `S3: ${code}`);
}

function element(answer: SmallAnswer, name: string): string {
  const found = new RegExp(`<${name}>([^<]{1,4096})</${name}>`).exec(new TextDecoder().decode(answer.body));
  if (found === null) throw new BuildError("unavailable", `S3 answered without ${name}`);
  return found[1]!;
}

function escapeXml(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}
