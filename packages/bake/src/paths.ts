/** `/` paths as Go's `path.Clean`. */
export { cleanPath } from "@kiln/hcl";

import { cleanPath } from "@kiln/hcl";

/** Joins and cleans; empty parts don't count. */
export function joinPath(...parts: readonly string[]): string {
  const given = parts.filter((part) => part !== "");
  return given.length === 0 ? "" : cleanPath(given.join("/"));
}

/** The directory of a path. */
export function dirName(path: string): string {
  return cleanPath(path.slice(0, path.lastIndexOf("/") + 1));
}

/** An absolute form of a path. */
export function absolutePath(path: string, cwd: string): string {
  return path.startsWith("/") ? cleanPath(path) : joinPath(cwd, path);
}

/** The way from one absolute path to another. */
export function relativePath(from: string, to: string): string {
  const a = cleanPath(from).split("/").filter(Boolean);
  const b = cleanPath(to).split("/").filter(Boolean);
  let common = 0;
  while (common < a.length && common < b.length && a[common] === b[common]) common++;
  const up = a.slice(common).map(() => "..");
  return [...up, ...b.slice(common)].join("/") || ".";
}

const SCP = /^[a-zA-Z0-9-_]+@[a-zA-Z0-9-.]+:.*$/;

/** True for HTTP URLs and git references: what isn't a path on this machine. */
export function isRemoteUrl(text: string): boolean {
  if (/^https?:\/\//.test(text)) return true;
  if (text.startsWith("./") || text.startsWith("../")) return false;
  if (text.startsWith("github.com/")) return true;
  const scheme = /^([a-zA-Z0-9]+):\/\//.exec(text)?.[1]?.toLowerCase();
  if (scheme !== undefined) return scheme === "git" || scheme === "ssh";
  return SCP.test(text);
}

/** True for git over ssh. */
export function isGitSsh(text: string): boolean {
  return /^ssh:\/\//i.test(text) || (!/^[a-zA-Z0-9]+:\/\//.test(text) && SCP.test(text));
}
