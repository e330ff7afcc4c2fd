import { redactUrls } from "@kiln/base";

/** A request that went through a step's proxy. Passwords in URLs are masked. */
export interface ProxyRequest {
  readonly method: string;
  readonly url: string;
  /** Where the answer sent the client; "" for nowhere else. */
  readonly redirectTarget: string;
  readonly statusCode: number;
}

/** What a step got from a URL. */
export interface ProxyMaterial {
  readonly url: string;
  /** `sha256:…` of the body. */
  readonly digest: string;
}

/** A request whose answer can't be named as a material. */
export interface ProxyIncomplete {
  readonly method: string;
  readonly url: string;
  /** `method_not_materializable`, `partial_response`, `body_read_failed`, `unsuccessful_response`, `upstream_error`. */
  readonly reason: string;
}

/** Notes what a step fetched. */
export class ProxyCapture {
  readonly requests: ProxyRequest[] = [];
  readonly incomplete: ProxyIncomplete[] = [];
  readonly #materials: ProxyMaterial[] = [];

  addMaterial(url: string, digest: string): void {
    this.#materials.push({ url: captureUrl(url), digest });
  }

  addRequest(request: ProxyRequest): void {
    const { url, redirectTarget } = request;
    this.requests.push({ ...request, url: captureUrl(url), redirectTarget: captureUrl(redirectTarget) });
  }

  addIncomplete(incomplete: ProxyIncomplete): void {
    this.incomplete.push({ ...incomplete, url: captureUrl(incomplete.url) });
  }

  /** What was fetched; a URL that led to another by redirection stands for what that gave. */
  materials(): ProxyMaterial[] {
    const all = [...this.#materials];
    const digests = new Map(all.map(({ url, digest }) => [url, digest]));
    const redirects = this.requests.filter(
      ({ url, redirectTarget }) => redirectTarget !== "" && redirectTarget !== url,
    );
    for (let added = true; added; ) {
      added = false;
      for (const { url, redirectTarget } of redirects) {
        const digest = digests.get(redirectTarget);
        if (digests.has(url) || digest === undefined) continue;
        digests.set(url, digest);
        all.push({ url, digest });
        added = true;
      }
    }
    return all;
  }

  /** The summary that is shown at the end of a step's log; "" without requests. */
  summary(): string {
    if (this.requests.length === 0) return "";
    const lines = this.requests.map(({ method, url, statusCode }) =>
      statusCode === 0 ? `- ${method} ${url}` : `- ${method} ${url} -> ${statusCode}`,
    );
    return `proxy network requests:\n${lines.join("\n")}\n`;
  }
}

/** A URL as it is noted: without its scheme's own port, passwords masked. */
export function captureUrl(url: string): string {
  return redactUrls(
    url.replace(/^(http:\/\/[^/?#]*):80(?=[/?#]|$)|^(https:\/\/[^/?#]*):443(?=[/?#]|$)/, "$1$2"),
  );
}
