/** Scheme and authority. */
const AUTHORITY = /^([a-z][a-z0-9+.-]{0,30}:\/\/)([^/?#]*)/i;
const HOST_AND_PORT = /^(?:\[[^\]]*\]|[^:[\]]*)(?::\d*)?$/;

/**
 * A URL with `xxxxx` in place of user name and password; other texts as they are, also those that only look
 * alike: `oci-layout://name@sha256:…`.
 */
export function redactCredentials(text: string): string {
  const [start, scheme = "", authority = ""] = AUTHORITY.exec(text) ?? [];
  const at = authority.lastIndexOf("@");
  if (start === undefined || at < 0 || !HOST_AND_PORT.test(authority.slice(at + 1))) return text;
  const colon = authority.slice(0, at).indexOf(":");
  const user = colon === 0 || at === 0 ? "" : "xxxxx";
  return `${scheme}${user}${colon < 0 ? "" : ":xxxxx"}${authority.slice(at)}${text.slice(start.length)}`;
}
