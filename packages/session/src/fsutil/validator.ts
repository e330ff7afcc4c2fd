import { BuildError } from "@kiln/base";
import { comparePaths } from "@kiln/sys";
import { isGoDir, isGoSymlink } from "./mode.ts";
import { compareWirePaths } from "./order.ts";
import type { Stat } from "./stat.ts";

interface OpenDir {
  readonly path: string;
  last: string;
}

/** Deepest directory that a peer may send. */
const maxDepth = 4096;

/**
 * Checks what a peer sends as a tree: clean relative paths that don't escape, in order, each below a
 * directory that came before, hard links only to files that came before. Throws `invalid_argument`.
 */
export class TreeValidator {
  readonly #open: OpenDir[] = [{ path: "", last: "" }];
  readonly #files = new Set<string>();

  check(stat: Stat): void {
    const { path } = stat;
    checkPath(path);
    const slash = path.lastIndexOf("/");
    const dir = slash < 0 ? "" : path.slice(0, slash);
    const base = path.slice(slash + 1);
    while (this.#open.length > 1 && compareWirePaths(top(this.#open).path, dir) > 0) this.#open.pop();
    while (
      this.#open.length > 1 &&
      top(this.#open).path !== dir &&
      !dir.startsWith(`${top(this.#open).path}/`)
    ) {
      this.#open.pop();
    }
    const parent = top(this.#open);
    if (parent.path !== dir || (parent.last !== "" && comparePaths(parent.last, base) >= 0)) {
      const last = parent.path === "" ? parent.last : `${parent.path}/${parent.last}`;
      throw new BuildError(
        "invalid_argument",
        `changes out of order: ${JSON.stringify(path)} ${JSON.stringify(last)}`,
      );
    }
    parent.last = base;
    if (isGoDir(stat.mode)) {
      if (this.#open.length >= maxDepth)
        throw new BuildError("resource_exhausted", "directories are nested too deep");
      this.#open.push({ path, last: "" });
      return;
    }
    this.#checkLink(stat);
  }

  #checkLink(stat: Stat): void {
    if (isGoSymlink(stat.mode)) return;
    if (stat.linkname === "") this.#files.add(stat.path);
    else if (!this.#files.has(stat.linkname)) {
      throw new BuildError(
        "invalid_argument",
        `invalid link ${stat.path} to unknown path: ${JSON.stringify(stat.linkname)}`,
      );
    }
  }
}

function top(open: readonly OpenDir[]): OpenDir {
  return open[open.length - 1] as OpenDir;
}

/** Refuses paths that are absolute, unclean, or lead out of the root. */
function checkPath(path: string): void {
  const problem = pathProblem(path);
  if (problem !== undefined) {
    throw new BuildError("invalid_argument", `${problem} ${JSON.stringify(path)}: invalid argument`);
  }
}

function pathProblem(path: string): string | undefined {
  if (path === "" || path === ".") return "unclean path";
  if (path.startsWith("/")) return "absolute path";
  if (path.includes("\0")) return "unclean path";
  for (const part of path.split("/")) {
    if (part === "..") return "escape check";
    if (part === "" || part === ".") return "unclean path";
  }
  return undefined;
}
