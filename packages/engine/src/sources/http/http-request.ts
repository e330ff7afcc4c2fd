import { createHash } from "node:crypto";
import { type Digest, parseDigest } from "@kiln/oci";
import { goJsonText } from "../../cache-digest/go-json.ts";
import type { SourceRequest } from "../source.ts";
import { type FileAttrs, fileAttrs, invalid } from "../source-attrs.ts";

/** What an `http(s)://` source op says. */
export interface HttpSourceRequest {
  readonly url: URL;
  /** As written; it stands in digests and messages. */
  readonly urlText: string;
  readonly checksum: Digest | undefined;
  readonly file: FileAttrs;
  readonly authHeaderSecret: string;
  /** Sorted by canonical name. */
  readonly headers: readonly { readonly name: string; readonly value: string }[];
  readonly signature: { readonly publicKey: string; readonly signature: string } | undefined;
}

/** The only headers that a user may set, in their canonical spelling. */
const USER_HEADERS: ReadonlyMap<string, string> = new Map([
  ["accept", "Accept"],
  ["user-agent", "User-Agent"],
]);

/** Checks an `http(s)://` source. */
export function parseHttpRequest(request: SourceRequest): HttpSourceRequest {
  const { identifier, attrs } = request;
  if (!URL.canParse(identifier)) throw invalid(`failed to parse ${JSON.stringify(identifier)}: invalid URL`);
  const checksum = attrs.get("http.checksum");
  const headers = [...attrs]
    .filter(([key]) => key.startsWith("http.header."))
    .map(([key, value]) => ({
      name: USER_HEADERS.get(key.slice("http.header.".length).toLowerCase()),
      value,
    }))
    .filter((field): field is { name: string; value: string } => field.name !== undefined)
    .sort((a, b) => (a.name < b.name ? -1 : 1));
  for (const { name, value } of headers)
    if (/[\r\n\0]/.test(value)) throw invalid(`invalid value of header ${name}`);
  const publicKey = attrs.get("http.sig.pubkey") ?? "";
  const signature = attrs.get("http.sig.signature") ?? "";
  if ((publicKey === "") !== (signature === "")) {
    throw invalid("http signature verification requires both pubkey and signature");
  }
  return {
    url: new URL(identifier),
    urlText: identifier,
    checksum: checksum === undefined ? undefined : parseDigest(checksum),
    file: fileAttrs(attrs),
    authHeaderSecret: attrs.get("http.authheadersecret") ?? "",
    headers,
    signature: publicKey === "" ? undefined : { publicKey, signature },
  };
}

/** Index under which downloads of the same request are found again. */
export function urlDigest(request: HttpSourceRequest): Digest {
  const { file } = request;
  return digestOf({
    Filename: Buffer.from(`${request.urlText}\0${file.filename}`),
    Perm: file.perm,
    UID: file.uid,
    GID: file.gid,
    AuthHeaderSecret: request.authHeaderSecret || undefined,
    Header: request.headers.length === 0 ? null : headerFields(request),
  });
}

/** The cache key of a download. */
export function httpCacheKey(
  request: HttpSourceRequest,
  found: { readonly filename: string; readonly digest: Digest; readonly lastModified: number | undefined },
): Digest {
  const { file } = request;
  return digestOf({
    Filename: found.filename,
    Perm: file.perm,
    UID: file.uid,
    GID: file.gid,
    Checksum: found.digest,
    LastModTime: found.lastModified === undefined ? undefined : new Date(found.lastModified).toUTCString(),
    AuthHeaderSecret: request.authHeaderSecret || undefined,
    Header: request.headers.length === 0 ? undefined : headerFields(request),
  });
}

function headerFields(request: HttpSourceRequest): { Name: string; Value: string }[] {
  return request.headers.map(({ name, value }) => ({ Name: name, Value: value }));
}

function digestOf(value: Parameters<typeof goJsonText>[0]): Digest {
  return `sha256:${createHash("sha256").update(goJsonText(value)).digest("hex")}`;
}
