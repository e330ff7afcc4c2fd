/** A URL with `xxxxx` in place of user name and password; other texts as they are. */
export function redactCredentials(text: string): string {
  return text.replace(/^([a-z][a-z0-9+.-]{0,30}:\/\/)([^/?#]*)@/i, (_, scheme: string, userinfo: string) => {
    const colon = userinfo.indexOf(":");
    const user = colon < 0 ? userinfo : userinfo.slice(0, colon);
    const password = colon < 0 ? "" : ":xxxxx";
    return `${scheme}${user === "" ? "" : "xxxxx"}${password}@`;
  });
}
