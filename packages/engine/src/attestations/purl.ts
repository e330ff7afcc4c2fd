import { familiarName, formatPlatform, normalizePlatform, type Platform, parseReference } from "@kiln/oci";

/** A qualifier of a package URL. */
export type PurlQualifier = readonly [key: string, value: string];

/**
 * Package URL of an image: `pkg:docker/alpine@latest?platform=linux%2Famd64`, in BuildKit's spelling: the
 * qualifiers stand in the order digest, platform, extra ones.
 *
 * @throws BuildError `invalid_argument` for a reference that is none.
 */
export function imagePurl(
  name: string,
  platform: Platform | undefined,
  opts: { readonly type?: "docker" | "oci"; readonly extra?: readonly PurlQualifier[] } = {},
): string {
  const ref = parseReference(name);
  const version = ref.tag ?? (ref.digest === undefined ? "latest" : undefined);
  const qualifiers: PurlQualifier[] = [
    ...(ref.digest === undefined ? [] : [["digest", ref.digest] as const]),
    ...(platform === undefined ? [] : [["platform", formatPlatform(normalizePlatform(platform))] as const]),
    ...(opts.extra ?? []),
  ];
  const path = familiarName(ref).split("/").map(queryEscape).join("/");
  const query = qualifiers.map(([key, value]) => `${key}=${pathEscape(value)}`).join("&");
  return `pkg:${opts.type ?? "docker"}/${path}${version === undefined ? "" : `@${pathEscape(version)}`}${query === "" ? "" : `?${query}`}`;
}

/** Go's `url.QueryEscape`. */
function queryEscape(text: string): string {
  return encodeURIComponent(text)
    .replace(/[!'()*]/g, (c) => `%${c.charCodeAt(0).toString(16).toUpperCase()}`)
    .replaceAll("%20", "+");
}

/** Go's `url.PathEscape`. */
function pathEscape(text: string): string {
  return encodeURIComponent(text)
    .replace(/[!'()*]/g, (c) => `%${c.charCodeAt(0).toString(16).toUpperCase()}`)
    .replace(/%(?:24|26|2B|3A|3D|40)/g, decodeURIComponent);
}
