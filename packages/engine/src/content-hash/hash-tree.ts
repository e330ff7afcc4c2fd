import { createHash } from "node:crypto";
import { lstatSync, readdirSync, readlinkSync } from "node:fs";
import { BuildError } from "@kiln/base";
import { comparePaths, decodePath, encodePath, fsPath } from "@kiln/sys";
import { hashFile } from "./file-hash.ts";

/** One path of a tree whose digests are worked out on demand. */
export interface HashNode {
  readonly kind: "file" | "symlink" | "dir";
  /** Target of a symlink. */
  readonly linkname: string;
  /** Digest of the file, or of the directory's own header; undefined until it is asked for. */
  digest: string | undefined;
  /** Digest of a directory with all below it; undefined until it is asked for. */
  treeDigest: string | undefined;
  /** Entries of a directory by name, in bytewise order; undefined until it is listed. */
  children: Map<string, HashNode> | undefined;
}

/** A path found in the tree; `path` has no link in it and starts with `/` (the root is ""). */
export interface FoundNode {
  readonly path: string;
  readonly node: HashNode | undefined;
}

/** Links followed before a look-up is given up (Linux's own limit is 40; upstream's is this). */
const MAX_LINKS = 255;

/**
 * The content digests of a directory tree (buildkit `cache/contenthash`): directories are listed and files
 * read when a digest needs them, never before, and everything found is kept.
 *
 * Paths are resolved inside the tree as in a chroot: a link can't lead out of it.
 */
export class HashTree {
  readonly #root: string;
  readonly #top: HashNode;

  /** A tree over the directory `root`, which must not change while the tree is in use. */
  constructor(root: string, top: HashNode = emptyDirNode()) {
    this.#root = root;
    this.#top = top;
    // the header of the root counts for nothing, so that a tree's digest doesn't depend on its mount point
    this.#top.digest = `sha256:${createHash("sha256").digest("hex")}`;
  }

  get top(): HashNode {
    return this.#top;
  }

  /** The same tree, its files now at `root`. */
  movedTo(root: string): HashTree {
    return root === this.#root ? this : new HashTree(root, this.#top);
  }

  /** Entries of the directory `node` at `path`, in bytewise order. */
  children(node: HashNode, path: string): Map<string, HashNode> {
    if (node.children !== undefined) return node.children;
    const children = new Map<string, HashNode>();
    const dir = this.#root + path;
    const entries = readdirSync(fsPath(dir), { withFileTypes: true, encoding: "buffer" }).map((entry) => ({
      name: decodePath(entry.name),
      entry,
    }));
    entries.sort((a, b) => comparePaths(a.name, b.name));
    for (const { name, entry } of entries) {
      const link = entry.isSymbolicLink() ? readLink(`${dir}/${name}`) : undefined;
      children.set(name, entry.isDirectory() ? emptyDirNode() : leafNode(link));
    }
    node.children = children;
    return children;
  }

  /** Digest of a file, a link, or a directory's header. */
  digest(node: HashNode, path: string): string {
    if (node.digest === undefined) {
      const file = this.#root + path;
      node.digest = hashFile(file, lstatSync(fsPath(file), { bigint: true }));
    }
    return node.digest;
  }

  /** Digest of `node` with all that is below it. */
  treeDigest(node: HashNode, path: string): string {
    if (node.kind !== "dir") return this.digest(node, path);
    if (node.treeDigest === undefined) {
      const hash = createHash("sha256");
      hash.update(`\0${this.digest(node, path)}`);
      for (const [name, child] of this.children(node, path)) {
        hash.update(encodePath(`\0${name}`));
        hash.update(this.treeDigest(child, `${path}/${name}`));
      }
      node.treeDigest = `sha256:${hash.digest("hex")}`;
    }
    return node.treeDigest;
  }

  /**
   * Finds `path`, following links in its directories and, with `followLast`, at its end. A path that
   * doesn't exist gives no node.
   *
   * @throws BuildError `invalid_argument` when links go round in a circle.
   */
  find(path: string, followLast: boolean): FoundNode {
    let rest = path.split("/").filter((part) => part !== "" && part !== ".");
    let stack: { path: string; node: HashNode | undefined }[] = [{ path: "", node: this.#top }];
    let links = 0;
    while (rest.length > 0) {
      const part = rest.shift() as string;
      if (part === "..") {
        if (stack.length > 1) stack.pop();
        continue;
      }
      const here = stack[stack.length - 1] as { path: string; node: HashNode | undefined };
      const next = `${here.path}/${part}`;
      const node = here.node?.kind === "dir" ? this.children(here.node, here.path).get(part) : undefined;
      if (node?.kind !== "symlink" || (rest.length === 0 && !followLast)) {
        stack.push({ path: next, node });
        continue;
      }
      if (++links > MAX_LINKS) throw new BuildError("invalid_argument", "too many links");
      const target = node.linkname.split("/").filter((p) => p !== "" && p !== ".");
      if (node.linkname.startsWith("/")) stack = stack.slice(0, 1);
      rest = [...target, ...rest];
    }
    return stack[stack.length - 1] as FoundNode;
  }

  /**
   * A tree over `root` that differs from this one only at `changed` paths (relative, no links followed):
   * what lies beside them keeps its digests. This tree stays as it is.
   */
  derive(root: string, changed: Iterable<string>): HashTree {
    const copied = new Set<HashNode>();
    const copy = (node: HashNode): HashNode => {
      if (copied.has(node)) return node;
      const fresh: HashNode = {
        ...node,
        treeDigest: undefined,
        children: node.children && new Map(node.children),
      };
      copied.add(fresh);
      return fresh;
    };
    const top = copy(this.#top);
    const grown = new Set<HashNode>();
    for (const path of changed) {
      const parent = invalidate(root, top, path, copy);
      if (parent !== undefined) grown.add(parent);
    }
    for (const node of grown) {
      node.children = new Map([...(node.children ?? [])].sort(([a], [b]) => comparePaths(a, b)));
    }
    return new HashTree(root, top);
  }
}

/** Forgets what was known of `path`; returns its directory if that got a new entry (then unsorted). */
function invalidate(
  root: string,
  top: HashNode,
  path: string,
  copy: (node: HashNode) => HashNode,
): HashNode | undefined {
  const parts = path.split("/").filter((part) => part !== "");
  const name = parts.pop();
  if (name === undefined) return undefined;
  let node = top;
  for (const part of parts) {
    const child = node.children?.get(part);
    if (child?.kind !== "dir") return undefined;
    const fresh = copy(child);
    node.children?.set(part, fresh);
    node = fresh;
  }
  if (node.children === undefined) return undefined;
  const file = `${root}/${path}`;
  const stat = lstatSync(fsPath(file), { throwIfNoEntry: false });
  const before = node.children.get(name);
  if (stat === undefined) {
    node.children.delete(name);
    return undefined;
  }
  let after = leafNode(stat.isSymbolicLink() ? readLink(file) : undefined);
  if (stat.isDirectory()) {
    // its entries are named by changes of their own
    after = before?.kind === "dir" ? copy(before) : emptyDirNode();
    after.digest = undefined;
  }
  node.children.set(name, after);
  return before === undefined ? node : undefined;
}

function emptyDirNode(): HashNode {
  return { kind: "dir", linkname: "", digest: undefined, treeDigest: undefined, children: undefined };
}

function leafNode(linkname: string | undefined): HashNode {
  return {
    kind: linkname === undefined ? "file" : "symlink",
    linkname: linkname ?? "",
    digest: undefined,
    treeDigest: undefined,
    children: undefined,
  };
}

function readLink(path: string): string {
  return decodePath(readlinkSync(fsPath(path), "buffer"));
}
