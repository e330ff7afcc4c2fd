import { safeFileName } from "../source-attrs.ts";

const MAX_HEADER_CHARS = 8192;

/** Name of a download: the user's, else the server's (`Content-Disposition`), else the URL's last part. */
export function downloadName(url: URL, wanted: string, contentDisposition: string | undefined): string {
  if (wanted !== "") return safeFileName(wanted);
  const offered = contentDisposition === undefined ? undefined : dispositionName(contentDisposition);
  if (offered !== undefined && offered !== "" && !offered.endsWith("/")) return safeFileName(offered);
  let path = url.pathname;
  try {
    path = decodeURIComponent(path);
  } catch {
    // Malformed escapes stay as they are.
  }
  return safeFileName(path);
}

/** The `filename` parameter; `filename*` (RFC 5987) goes first. Undefined when absent or malformed. */
export function dispositionName(header: string): string | undefined {
  if (header.length > MAX_HEADER_CHARS) return undefined;
  const params = new Map<string, string>();
  const pattern = /;\s*([\w!#$&+.^`|~*-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s;"]+))\s*/y;
  pattern.lastIndex = /^[^;]*/.exec(header)![0].length;
  for (let match = pattern.exec(header); match; match = pattern.exec(header)) {
    params.set(match[1]!.toLowerCase(), match[2]?.replace(/\\(.)/g, "$1") ?? match[3] ?? "");
  }
  const encoded = params.get("filename*");
  const parts = encoded === undefined ? null : /^(utf-8|us-ascii)'[^']*'(.*)$/i.exec(encoded);
  if (parts) {
    try {
      return decodeURIComponent(parts[2]!);
    } catch {
      return undefined;
    }
  }
  return params.get("filename");
}
