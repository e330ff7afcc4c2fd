import { BuildError, mapLimited } from "@kiln/base";
import type { HttpRequest } from "@kiln/registry";
import type { ObjectBody } from "../object/object-cache.ts";
import { type ObjectHttp, objectStatusOf, type SmallAnswer } from "../object/object-http.ts";
import { AZURE_VERSION } from "./shared-key.ts";

/** One request, ready to be authorized. */
export interface AzureRequest {
  readonly method: string;
  readonly url: URL;
  readonly headers: Readonly<Record<string, string>>;
  readonly sizeBytes: number;
}

/** Gives the headers that let a request pass, or changes its URL. */
export type Authorize = (request: AzureRequest, signal: AbortSignal) => Promise<AzureRequest>;

/** Nothing is added: for URLs that carry a signature themselves. */
export const presigned: Authorize = async (request) => request;

const MAX_SINGLE_BYTES = 64 << 20;
const BLOCK_BYTES = 32 << 20;
const MAX_BLOCKS = 50_000;
const BLOCKS_AT_ONCE = 4;

/** Block blobs of Azure Storage. */
export class AzureBlobHttp {
  readonly #http: ObjectHttp;
  readonly #authorize: Authorize;

  constructor(http: ObjectHttp, authorize: Authorize) {
    this.#http = http;
    this.#authorize = authorize;
  }

  send(
    request: {
      readonly method: string;
      readonly url: URL;
      readonly headers?: Readonly<Record<string, string>>;
      readonly body?: ObjectBody;
      readonly range?: { readonly offset: number; readonly length: number };
    },
    signal: AbortSignal,
    expected: readonly number[] = [],
  ): Promise<SmallAnswer> {
    const { body } = request;
    const range = request.range ?? { offset: 0, length: body?.sizeBytes ?? 0 };
    return this.#http.small(async (): Promise<HttpRequest> => {
      const signed = await this.#signed(request, range.length, signal);
      const { method, url, headers } = signed;
      if (body === undefined && method !== "PUT") return { method, url, headers, signal };
      return {
        method,
        url,
        headers,
        body: { sizeBytes: range.length, open: () => body?.read(range) ?? [] },
        signal,
      };
    }, expected);
  }

  get(url: () => Promise<URL>, signal: AbortSignal): AsyncIterable<Uint8Array> {
    return this.#http.stream(async (offset) => {
      const headers = offset > 0 ? { range: `bytes=${offset}-` } : {};
      const signed = await this.#signed({ method: "GET", url: await url(), headers }, 0, signal);
      return { method: "GET", url: signed.url, headers: signed.headers, signal };
    }, signal);
  }

  /** Writes a block blob; with `ifAbsent` one that is there already stays as it is. */
  async put(
    url: URL,
    body: ObjectBody,
    opts: { readonly signal: AbortSignal; readonly ifAbsent: boolean },
  ): Promise<void> {
    const { signal } = opts;
    const headers: Record<string, string> = opts.ifAbsent ? { "if-none-match": "*" } : {};
    try {
      if (body.sizeBytes <= MAX_SINGLE_BYTES) {
        const whole = { ...headers, "x-ms-blob-type": "BlockBlob" };
        await this.send({ method: "PUT", url, headers: whole, body }, signal);
        return;
      }
      await this.#putBlocks(url, body, { headers, signal });
    } catch (error) {
      const status = objectStatusOf(error);
      if (!opts.ifAbsent || (status !== 409 && status !== 412)) throw error;
    }
  }

  async #putBlocks(
    url: URL,
    body: ObjectBody,
    at: { readonly headers: Record<string, string>; readonly signal: AbortSignal },
  ): Promise<void> {
    const length = Math.max(BLOCK_BYTES, Math.ceil(body.sizeBytes / MAX_BLOCKS));
    const offsets = Array.from({ length: Math.ceil(body.sizeBytes / length) }, (_, i) => i * length);
    const ids = await mapLimited(offsets, BLOCKS_AT_ONCE, async (offset) => {
      const id = Buffer.from(String(offset).padStart(20, "0")).toString("base64");
      const range = { offset, length: Math.min(length, body.sizeBytes - offset) };
      await this.send(
        { method: "PUT", url: withQuery(url, { comp: "block", blockid: id }), body, range },
        at.signal,
      );
      return id;
    });
    const list = ids.map((id) => `<Latest>${id}</Latest>`).join("");
    const bytes = new TextEncoder().encode(
      `<?xml version="1.0" encoding="utf-8"?><BlockList>${list}</BlockList>`,
    );
    await this.send(
      {
        method: "PUT",
        url: withQuery(url, { comp: "blocklist" }),
        headers: at.headers,
        body: {
          sizeBytes: bytes.length,
          read: async function* () {
            yield bytes;
          },
        },
      },
      at.signal,
    );
  }

  #signed(
    request: {
      readonly method: string;
      readonly url: URL;
      readonly headers?: Readonly<Record<string, string>>;
    },
    sizeBytes: number,
    signal: AbortSignal,
  ): Promise<AzureRequest> {
    const headers = { ...request.headers, ...AZURE_VERSION, "x-ms-date": new Date().toUTCString() };
    return this.#authorize({ method: request.method, url: request.url, headers, sizeBytes }, signal);
  }
}

/** The URL with more parameters. */
export function withQuery(url: URL, query: Readonly<Record<string, string>>): URL {
  const out = new URL(url);
  for (const [name, value] of Object.entries(query)) out.searchParams.set(name, value);
  return out;
}

/** The error of a blob that isn't there. */
export function missingBlob(name: string): BuildError {
  return new BuildError("not_found", `blob ${name}: not found`);
}
