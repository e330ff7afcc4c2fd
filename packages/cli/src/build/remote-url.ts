/** True for `http://` and `https://`. */
export function isHttpUrl(text: string): boolean {
  return /^https?:\/\//.test(text);
}

/** True for what BuildKit clones: git and ssh URLs, `user@host:path`, `github.com/…`, http URLs of `.git`. */
export function isGitUrl(text: string): boolean {
  if (/^(git|ssh):\/\//.test(text) || text.startsWith("github.com/")) return true;
  if (/^[a-zA-Z0-9_-]+@[a-zA-Z0-9.-]+:/.test(text)) return true;
  return isHttpUrl(text) && /\.git(?=$|[#?])/.test(text);
}

/** True for contexts that the daemon fetches. */
export function isRemoteUrl(text: string): boolean {
  return isHttpUrl(text) || isGitUrl(text);
}

/** True for a repository that is reached over ssh. */
export function isGitSshUrl(text: string): boolean {
  return text.startsWith("ssh://") || (isGitUrl(text) && !text.includes("://") && text.includes("@"));
}

/** True for a URL with a query (`?ref=…`), which only newer frontends understand for git. */
export function hasQuery(text: string): boolean {
  const end = text.indexOf("#");
  return isRemoteUrl(text) && (end < 0 ? text : text.slice(0, end)).includes("?");
}
