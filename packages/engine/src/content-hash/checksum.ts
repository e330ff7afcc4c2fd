import { createHash } from "node:crypto";
import { BuildError } from "@kiln/base";
import { type MatchInfo, matchPath, PatternMatcher } from "@kiln/patterns";
import { encodePath } from "@kiln/sys";
import type { HashNode, HashTree } from "./hash-tree.ts";

/** Which part of a tree a checksum covers. */
export interface ChecksumOptions {
  /** Follow a link at the end of the path (and of each wildcard match). */
  readonly followLinks: boolean;
  /** The path is a Go `path.Match` pattern. */
  readonly wildcard: boolean;
  /** Only what matches, relative to the path; empty means everything. */
  readonly includePatterns: readonly string[];
  readonly excludePatterns: readonly string[];
  /** Paths that must be among the included ones. */
  readonly requiredPaths: readonly string[];
}

interface Included {
  readonly path: string;
  readonly followLinks: boolean;
  readonly isLink: boolean;
  readonly digest: string;
}

const EMPTY_DIGEST = `sha256:${createHash("sha256").digest("hex")}`;

/**
 * The content digest of `path` in `tree`, as BuildKit makes it, so that cache keys made from it are
 * BuildKit's (`cache/contenthash/checksum.go`).
 *
 * 1. Without wildcard and patterns it is the digest of the file, or of the directory with all below it.
 * 2. Otherwise it covers the list of matching files and directory headers, in bytewise order of their
 *    paths: each path with `/` replaced by NUL, then its digest. A single match that bears the name asked
 *    for counts as itself; no match is the digest of nothing.
 *
 * @throws BuildError `not_found` for a plain path or a required path that doesn't exist.
 */
export function checksum(tree: HashTree, path: string, opts: ChecksumOptions): string {
  if (!opts.wildcard && opts.includePatterns.length === 0 && opts.excludePatterns.length === 0) {
    return plainChecksum(tree, path, opts.followLinks);
  }
  const { prefix, included } = new Selection(tree, path, opts).run();
  const final = included.map((item) => ({
    path: item.path,
    digest: item.followLinks && item.isLink ? plainChecksum(tree, item.path, true) : item.digest,
  }));
  const only = final[0];
  if (only === undefined) return EMPTY_DIGEST;
  if (final.length === 1 && baseName(path) === baseName(only.path)) return only.digest;
  const hash = createHash("sha256");
  for (const item of final) {
    const key = item.path.startsWith(prefix) ? item.path.slice(prefix.length) : item.path;
    hash.update(encodePath(key === "" ? "\0" : key.replaceAll("/", "\0")));
    hash.update(item.digest);
  }
  return `sha256:${hash.digest("hex")}`;
}

function plainChecksum(tree: HashTree, path: string, followLinks: boolean): string {
  const found = tree.find(path, followLinks);
  if (found.node === undefined) {
    throw new BuildError("not_found", `"${cleanPath(path) || "/"}": not found`);
  }
  return tree.treeDigest(found.node, found.path);
}

/** A directory on the way to where the walk is. */
interface OpenDir {
  readonly path: string;
  readonly include: MatchInfo | undefined;
  readonly exclude: MatchInfo | undefined;
  readonly entry: Included;
  listed: boolean;
}

class Selection {
  readonly #tree: HashTree;
  readonly #opts: ChecksumOptions;
  readonly #path: string;
  readonly #endsInSlash: boolean;
  readonly #include: PatternMatcher | undefined;
  readonly #exclude: PatternMatcher | undefined;
  readonly #included: Included[] = [];
  readonly #open: OpenDir[] = [];
  #matched = "";

  constructor(tree: HashTree, path: string, opts: ChecksumOptions) {
    this.#tree = tree;
    this.#opts = opts;
    this.#path = cleanPath(path);
    this.#endsInSlash = path.endsWith("/");
    this.#include = opts.includePatterns.length > 0 ? new PatternMatcher(opts.includePatterns) : undefined;
    this.#exclude = opts.excludePatterns.length > 0 ? new PatternMatcher(opts.excludePatterns) : undefined;
  }

  run(): { prefix: string; included: readonly Included[] } {
    const [fixed, rest] = this.#opts.wildcard ? splitWildcards(this.#path) : [this.#path, ""];
    const prefix = fixed === "/" ? "" : fixed;
    const found = this.#tree.find(prefix, this.#opts.wildcard && rest !== "");
    if (found.node !== undefined) this.#visit(found.node, found.path, prefix);
    for (const required of this.#opts.requiredPaths) {
      if (!this.#included.some((item) => item.path.startsWith(required))) {
        throw new BuildError("not_found", `"${required}": not found`);
      }
    }
    return { prefix, included: this.#included };
  }

  /** `real` is where the node is; `shown` is its path as the caller named it, links unresolved. */
  #visit(node: HashNode, real: string, shown: string): void {
    if (node.kind !== "dir") {
      this.#consider(node, real, shown);
      return;
    }
    const depth = this.#open.length;
    if (!(this.#endsInSlash && shown === this.#path)) this.#consider(node, real, shown);
    if (this.#mayMatchBelow(shown)) {
      for (const [name, child] of this.#tree.children(node, real)) {
        this.#visit(child, `${real}/${name}`, `${shown}/${name}`);
      }
    }
    this.#open.length = depth;
  }

  #consider(node: HashNode, real: string, shown: string): void {
    const candidate = this.#candidate(shown);
    if (candidate === undefined) return;
    const parent = this.#open.at(-1);
    const include = this.#include?.next(candidate, parent?.include);
    let wanted = include?.matched ?? true;
    let exclude: { matched: boolean; info: MatchInfo } | undefined;
    if (wanted) {
      exclude = this.#exclude?.next(candidate, parent?.exclude);
      wanted = !(exclude?.matched ?? false);
    }
    if (!wanted && node.kind !== "dir") return;
    const entry: Included = {
      path: shown,
      followLinks: parent === undefined && this.#opts.followLinks,
      isLink: node.kind === "symlink",
      digest: this.#tree.digest(node, real),
    };
    if (wanted) {
      for (const dir of this.#open) {
        if (!dir.listed) this.#included.push(dir.entry);
        dir.listed = true;
      }
      this.#included.push(entry);
    }
    if (node.kind === "dir") {
      this.#open.push({ path: shown, include: include?.info, exclude: exclude?.info, entry, listed: wanted });
    }
  }

  /** What the patterns are matched against: the path below the source, or below the wildcard's match. */
  #candidate(shown: string): string | undefined {
    let base = this.#path;
    if (this.#opts.wildcard) {
      if (this.#path !== "" && (this.#matched === "" || !shown.startsWith(`${this.#matched}/`))) {
        if (!matchPath(this.#path, shown)) return undefined;
        this.#matched = shown;
      }
      base = this.#matched;
    }
    const full = `${shown}/`;
    const below = full.startsWith(`${base}/`) ? full.slice(base.length + 1) : full;
    return below.endsWith("/") ? below.slice(0, -1) : below;
  }

  /** False when nothing below the directory can match the wildcard. */
  #mayMatchBelow(shown: string): boolean {
    if (!this.#opts.wildcard || this.#path === "") return true;
    if (this.#matched !== "" && (shown === this.#matched || shown.startsWith(`${this.#matched}/`)))
      return true;
    const depth = shown === "" ? 0 : shown.split("/").length - 1;
    const parts = this.#path.split("/");
    if (parts.length - 1 <= depth) return false;
    return depth === 0 || matchPath(parts.slice(0, depth + 1).join("/"), shown);
  }
}

/** Absolute and clean, the root as "". */
function cleanPath(path: string): string {
  const parts: string[] = [];
  for (const part of path.split("/")) {
    if (part === "..") parts.pop();
    else if (part !== "" && part !== ".") parts.push(part);
  }
  return parts.map((part) => `/${part}`).join("");
}

function baseName(path: string): string {
  const trimmed = path.replace(/\/+$/, "");
  if (trimmed === "") return path === "" ? "." : "/";
  return trimmed.slice(trimmed.lastIndexOf("/") + 1);
}

function hasWildcard(part: string): boolean {
  for (let i = 0; i < part.length; i++) {
    const c = part[i];
    if (c === "*" || c === "?" || c === "[") return true;
    if (c === "\\") i++;
  }
  return false;
}

/** Splits a path before its first component with a wildcard. */
function splitWildcards(path: string): [string, string] {
  const parts = path.split("/");
  const at = parts.findIndex(hasWildcard);
  if (at < 0) return [path, ""];
  return [parts.slice(0, at).join("/"), parts.slice(at).join("/")];
}
