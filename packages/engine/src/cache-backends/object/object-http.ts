import { STATUS_CODES } from "node:http";
import { BuildError, type ErrorCode, isCanceled, sleep } from "@kiln/base";
import {
  type HttpRequest,
  type HttpResponse,
  type HttpTransport,
  httpStatusOf,
  isTransient,
  readBody,
} from "@kiln/registry";

/** An answer that was read whole. */
export interface SmallAnswer {
  readonly status: number;
  readonly headers: HttpResponse["headers"];
  readonly body: Uint8Array;
}

/** Makes a request; called for every try, so that dates and signatures are fresh. */
export type MakeRequest = () => Promise<HttpRequest> | HttpRequest;

/** Bounds on trying again. */
export interface RetryLimits {
  readonly maxAttempts: number;
  readonly delayMs: number;
  /** Longest pause, whatever a server's Retry-After says. */
  readonly maxDelayMs: number;
}

const MAX_SMALL_BYTES = 32 << 20;
/** Longest pause in a download. */
const IDLE_TIMEOUT_MS = 60_000;
const MAX_ERROR_CHARS = 512;
const TRANSIENT_STATUSES: ReadonlySet<number> = new Set([408, 429, 500, 502, 503, 504]);

/** Requests to object stores: tried again when that may help, never redirected. */
export class ObjectHttp {
  readonly #transport: HttpTransport;
  readonly #limits: RetryLimits;

  constructor(transport: HttpTransport, limits: RetryLimits) {
    this.#transport = transport;
    this.#limits = limits;
  }

  /**
   * The answer, read whole. Statuses of 300 and above are errors, unless `expected` names them.
   *
   * @throws BuildError with the service's own code and text.
   */
  async small(make: MakeRequest, expected: readonly number[] = []): Promise<SmallAnswer> {
    const { response, request } = await this.#send(make);
    const body = await readBody(response.body, MAX_SMALL_BYTES);
    const { status, headers } = response;
    if (status >= 300 && !expected.includes(status)) throw statusError(request, response, body);
    return { status, headers, body };
  }

  /**
   * The bytes of a body. `make` gets the offset to go on from after the connection broke; a server that
   * answers with the whole object then is read from there.
   */
  async *stream(
    make: (offset: number) => Promise<HttpRequest> | HttpRequest,
    signal: AbortSignal,
  ): AsyncGenerator<Uint8Array> {
    let offset = 0;
    for (let failures = 0; ; ) {
      const from = offset;
      const { response, request } = await this.#send(() => make(from));
      if (response.status >= 300)
        throw statusError(request, response, await readBody(response.body, MAX_SMALL_BYTES));
      let skip = response.status === 206 ? 0 : from;
      try {
        for await (const chunk of idleLimited(response.body)) {
          const rest = chunk.subarray(Math.min(skip, chunk.length));
          skip -= chunk.length - rest.length;
          offset += rest.length;
          if (rest.length > 0) yield rest;
        }
        return;
      } catch (error) {
        if (isCanceled(error) || signal.aborted) throw error;
        failures = offset > from ? 1 : failures + 1;
        if (failures >= this.#limits.maxAttempts) throw error;
        await sleep(this.#delay(failures, undefined), signal);
      } finally {
        response.body.destroy();
      }
    }
  }

  async #send(
    make: MakeRequest,
  ): Promise<{ readonly response: HttpResponse; readonly request: HttpRequest }> {
    for (let attempt = 1; ; attempt++) {
      const request = { ...(await make()), maxRedirects: 0 };
      try {
        const response = await this.#transport.request(request);
        if (!TRANSIENT_STATUSES.has(response.status) || attempt >= this.#limits.maxAttempts)
          return { response, request };
        response.body.destroy();
        await sleep(this.#delay(attempt, response.headers["retry-after"]), request.signal);
      } catch (error) {
        if (isCanceled(error) || !isTransient(error) || attempt >= this.#limits.maxAttempts) throw error;
        await sleep(this.#delay(attempt, undefined), request.signal);
      }
    }
  }

  #delay(attempt: number, retryAfter: string | undefined): number {
    const asked =
      retryAfter !== undefined && /^\d{1,6}$/.test(retryAfter) ? Number(retryAfter) * 1000 : undefined;
    return Math.min(asked ?? this.#limits.delayMs * 2 ** (attempt - 1), this.#limits.maxDelayMs);
  }
}

/** The bytes of a body; it breaks off when nothing comes for a while. Whoever reads may take their time. */
async function* idleLimited(body: HttpResponse["body"]): AsyncGenerator<Uint8Array> {
  const wait = (): NodeJS.Timeout =>
    setTimeout(
      () => body.destroy(new BuildError("deadline_exceeded", "timeout reading response body")),
      IDLE_TIMEOUT_MS,
    );
  let timer = wait();
  try {
    for await (const chunk of body) {
      clearTimeout(timer);
      yield chunk;
      timer = wait();
    }
  } finally {
    clearTimeout(timer);
  }
}

/** Status behind an error of {@link ObjectHttp}. */
export function objectStatusOf(error: unknown): number | undefined {
  return error instanceof ObjectError ? error.status : httpStatusOf(error);
}

class ObjectError extends BuildError {
  readonly status: number;

  constructor(code: ErrorCode, message: string, status: number) {
    super(code, message);
    this.status = status;
  }
}

/** Queries may hold signatures: they are never shown. Bodies only by the fields that are meant for people. */
function statusError(request: HttpRequest, response: HttpResponse, body: Uint8Array): BuildError {
  const { status } = response;
  const { url } = request;
  const said = serviceText(new TextDecoder().decode(body)) ?? headerText(response);
  const line = `${request.method} ${url.origin}${url.pathname}: ${status} ${STATUS_CODES[status] ?? ""}`;
  const text = said === undefined ? line.trimEnd() : `${line.trimEnd()}: ${said}`;
  return new ObjectError(codeOf(status), text, status);
}

function headerText(response: HttpResponse): string | undefined {
  const code = response.headers["x-ms-error-code"];
  return typeof code === "string" ? shorten(code) : undefined;
}

/** `Code: Message` of S3's and Azure's XML, `message` of GitHub's JSON. */
function serviceText(body: string): string | undefined {
  const code = /<Code>([^<]{1,200})<\/Code>/.exec(body)?.[1];
  const message = /<Message>([^<]{1,2000})<\/Message>/.exec(body)?.[1];
  if (code !== undefined) return shorten(message === undefined ? code : `${code}: ${message}`);
  if (!body.startsWith("{")) return undefined;
  try {
    const doc = JSON.parse(body) as {
      readonly message?: unknown;
      readonly msg?: unknown;
      readonly error?: unknown;
    };
    const text = [doc.message, doc.msg, doc.error].find((value) => typeof value === "string");
    return text === undefined ? undefined : shorten(text as string);
  } catch {
    return undefined;
  }
}

function shorten(text: string): string {
  const printable = text.replace(/[\u0000-\u001f\u007f-\u009f]+/g, " ").trim();
  return printable.length <= MAX_ERROR_CHARS ? printable : `${printable.slice(0, MAX_ERROR_CHARS)}…`;
}

function codeOf(status: number): ErrorCode {
  switch (status) {
    case 400:
      return "invalid_argument";
    case 401:
      return "unauthenticated";
    case 403:
      return "permission_denied";
    case 404:
      return "not_found";
    case 409:
      return "already_exists";
    case 429:
      return "resource_exhausted";
    default:
      return status >= 500 ? "unavailable" : "unknown";
  }
}
