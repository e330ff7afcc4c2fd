import { createHmac } from "node:crypto";

/** Header with the version of the API; part of what is signed. */
export const AZURE_VERSION = { "x-ms-version": "2021-12-02" } as const;

/**
 * The `authorization` header of Azure Storage's Shared Key scheme.
 *
 * @param request header names in lower case; `content-length` is taken from `sizeBytes`
 */
export function sharedKey(
  request: {
    readonly method: string;
    readonly url: URL;
    readonly headers: Readonly<Record<string, string>>;
    readonly sizeBytes: number;
  },
  account: { readonly name: string; readonly key: Uint8Array },
): string {
  const { method, url, headers, sizeBytes } = request;
  const plain = [
    "content-encoding",
    "content-language",
    "content-length",
    "content-md5",
    "content-type",
    "date",
    "if-modified-since",
    "if-match",
    "if-none-match",
    "if-unmodified-since",
    "range",
  ].map((name) => {
    if (name === "content-length") return sizeBytes === 0 ? "" : String(sizeBytes);
    return headers[name] ?? "";
  });
  const own = Object.entries(headers)
    .filter(([name]) => name.startsWith("x-ms-"))
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([name, value]) => `${name}:${value.trim()}`);
  const query = [...url.searchParams]
    .map(([name, value]) => [name.toLowerCase(), value] as const)
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([name, value]) => `${name}:${value}`);
  const resource = [`/${account.name}${url.pathname}`, ...query].join("\n");
  const text = [method, ...plain, ...own, resource].join("\n");
  const signature = createHmac("sha256", account.key).update(text).digest("base64");
  return `SharedKey ${account.name}:${signature}`;
}
