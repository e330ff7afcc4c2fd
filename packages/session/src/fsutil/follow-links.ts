import { posix } from "node:path";
import { matchPath } from "@kiln/patterns";
import { comparePaths, isErrno } from "@kiln/sys";
import type { FileTree, TreeEntry } from "./tree.ts";

/** Links that one path may lead through. */
const maxSteps = 100_000;

/**
 * What has to be sent so that `paths` can be read: the paths themselves and every link on the way, with
 * where they lead inside the tree. The last part of a path may have wildcards. Sorted; undefined when
 * everything is needed.
 */
export function followLinks(tree: FileTree, paths: readonly string[]): string[] | undefined {
  const resolver = new LinkResolver(tree);
  for (const path of paths) resolver.add(path);
  return dropCovered([...resolver.resolved].sort(comparePaths));
}

class LinkResolver {
  readonly resolved = new Set<string>();
  readonly #tree: FileTree;
  readonly #lists = new Map<string, readonly TreeEntry[]>();
  #steps = 0;

  constructor(tree: FileTree) {
    this.#tree = tree;
  }

  add(path: string): void {
    const pending = [path];
    for (let next = pending.pop(); next !== undefined; next = pending.pop()) {
      if (++this.#steps > maxSteps) return;
      pending.push(...this.#step(next).reverse());
    }
  }

  /** Goes along one path up to its first link; gives where that leads. */
  #step(path: string): string[] {
    let rest = cleanRelative(path);
    let current = ".";
    for (;;) {
      const slash = rest.indexOf("/");
      current = cleanRelative(`${current}/${slash < 0 ? rest : rest.slice(0, slash)}`);
      const targets = this.#readLink(current, true);
      rest = slash < 0 ? "" : rest.slice(slash + 1);
      if ((rest === "" || targets !== undefined) && this.resolved.has(current)) return [];
      if (targets !== undefined) {
        this.resolved.add(current);
        return targets.map((target) => `${target}/${rest}`);
      }
      if (rest === "") {
        this.resolved.add(current);
        return [];
      }
    }
  }

  #readLink(path: string, allowWildcard: boolean): string[] | undefined {
    const base = posix.basename(path);
    const dir = posix.dirname(path);
    const entries = this.#list(dir === "." ? "" : dir);
    if (allowWildcard && hasWildcard(base)) {
      const out: string[] = [];
      for (const entry of entries) {
        if (!matches(base, posix.basename(entry.path))) continue;
        out.push(...(this.#readLink(entry.path, false) ?? []));
      }
      return out;
    }
    if (path === "." || path === "..") return undefined;
    const entry = entries.find((e) => e.path === path);
    const link = entry?.isSymlink ? entry.stat()?.linkname : undefined;
    if (link === undefined) return undefined;
    return [link.startsWith("/") ? link : posix.join("/", dir, link)];
  }

  #list(dir: string): readonly TreeEntry[] {
    let list = this.#lists.get(dir);
    if (list === undefined) {
      try {
        list = dir.startsWith("..") ? [] : this.#tree.list(dir);
      } catch (error) {
        if (!isErrno(error, "ENOENT", "ENOTDIR")) throw error;
        list = [];
      }
      this.#lists.set(dir, list);
    }
    return list;
  }
}

function cleanRelative(path: string): string {
  return posix
    .join(".", path.startsWith("/") ? posix.join("/", path).slice(1) || "." : path)
    .replace(/(?<=.)\/$/, "");
}

function hasWildcard(name: string): boolean {
  return /^(?:[^\\*?[]|\\.)*[*?[]/s.test(name);
}

function matches(pattern: string, name: string): boolean {
  try {
    return matchPath(pattern, name);
  } catch {
    // A malformed pattern matches nothing, as in the original.
    return false;
  }
}

/** Drops paths below one that stays; undefined (no filter) when the root is among them. Wants a sorted list. */
export function dropCovered(paths: readonly string[]): string[] | undefined {
  const out: string[] = [];
  let last = "";
  for (const path of paths) {
    if (path === ".") return undefined;
    if (path.startsWith(`${last}/`)) continue;
    out.push(path);
    last = path;
  }
  return out;
}
