import { BuildError } from "@kiln/base";
import { type GitRef, parseGitRef as parse } from "./base/git-ref.ts";
import { Problem } from "./base/problem.ts";

export type { GitRef };

/**
 * Reads a git repository as build contexts name it (`https://host/repo.git#ref:dir`, `git@host:repo?tag=x`);
 * undefined for what is none. Throws `invalid_argument` for a query that git contexts don't have.
 */
export function parseGitRef(text: string): GitRef | undefined {
  try {
    return parse(text);
  } catch (error) {
    if (error instanceof Problem) throw new BuildError("invalid_argument", error.message);
    throw error;
  }
}
