import { isBuildError } from "@kiln/base";
import { quoteGo } from "@kiln/formats";
import { type GitUrl, gitUrlOf, parseGitUrl } from "@kiln/llb";
import { parseBool } from "./go-text.ts";
import { Problem } from "./problem.ts";

/** A git repository as a context, or a source of ADD, names it. */
export interface GitRef {
  readonly remote: string;
  readonly ref: string;
  readonly subdir: string;
  readonly checksum: string;
  readonly keepGitDir: boolean | undefined;
  readonly submodules: boolean | undefined;
  readonly mtime: string;
  readonly fetchByCommit: boolean;
  /** `github.com/x/y`, which could be a path too; taken for a context only. */
  readonly looksLocal: boolean;
}

/** Reads a git reference; undefined for what is none. Throws a problem for a bad query of one. */
export function parseGitRef(text: string): GitRef | undefined {
  if (text.startsWith("./") || text.startsWith("../")) return undefined;
  const looksLocal = text.startsWith("github.com/");
  const url = readUrl(text, looksLocal);
  if (url === undefined) return undefined;
  const isWeb = !looksLocal && (url.scheme === "http" || url.scheme === "https");
  if (isWeb && !url.path.endsWith(".git")) return undefined;
  const remote = looksLocal ? url.remote.replace(/^[^:]*:\/\//, "") : url.remote;
  const empty: Draft = {
    remote,
    ref: url.ref,
    subdir: url.subdir,
    checksum: "",
    keepGitDir: undefined,
    submodules: undefined,
    mtime: "",
    fetchByCommit: false,
    looksLocal,
  };
  return withQuery(empty, url.query);
}

/** True for a git reference, and also for one whose query is wrong. */
export function isGitRef(text: string): boolean {
  try {
    return parseGitRef(text) !== undefined;
  } catch (error) {
    // A query that's wrong makes BuildKit take the text for something else here.
    if (error instanceof Problem) return false;
    throw error;
  }
}

function readUrl(text: string, looksLocal: boolean): GitUrl | undefined {
  try {
    return looksLocal ? gitUrlOf(text, "https") : parseGitUrl(text);
  } catch (error) {
    if (isBuildError(error)) return undefined;
    throw error;
  }
}

type Draft = { -readonly [K in keyof GitRef]: GitRef[K] };

const FLAGS = ["submodules", "keep-git-dir", "fetch-by-commit"];

function withQuery(draft: Draft, query: GitUrl["query"]): GitRef {
  let tag = "";
  let branch = "";
  for (const [key, values] of query) {
    if (values.length > 1) throw new Problem(`query ${quoteGo(key)} has multiple values`);
    const value = values[0] ?? "";
    if (value === "" && !FLAGS.includes(key)) throw new Problem(`query ${quoteGo(key)} has no value`);
    if (key === "tag") tag = value;
    else if (key === "branch") branch = value;
    else setQuery(draft, key, value);
  }
  if (tag !== "") setRef(draft, tag.startsWith("refs/tags/") ? tag : `refs/tags/${tag}`);
  if (branch !== "") {
    if (tag !== "") throw new Problem("branch conflicts with tag");
    setRef(draft, branch.startsWith("refs/heads/") ? branch : `refs/heads/${branch}`);
  }
  return draft;
}

function setRef(draft: Draft, ref: string): void {
  if (draft.ref !== "" && draft.ref !== ref) {
    throw new Problem(`ref conflicts: ${quoteGo(draft.ref)} vs ${quoteGo(ref)}`);
  }
  draft.ref = ref;
}

function setQuery(draft: Draft, key: string, value: string): void {
  switch (key) {
    case "ref":
      setRef(draft, value);
      return;
    case "subdir":
      if (draft.subdir !== "" && draft.subdir !== value) {
        throw new Problem(`subdir conflicts: ${quoteGo(draft.subdir)} vs ${quoteGo(value)}`);
      }
      draft.subdir = value;
      return;
    case "checksum":
    case "commit":
      draft.checksum = value;
      return;
    case "keep-git-dir":
      draft.keepGitDir = flag(key, value);
      return;
    case "submodules":
      draft.submodules = flag(key, value);
      return;
    case "fetch-by-commit":
      draft.fetchByCommit = flag(key, value);
      return;
    case "mtime":
      if (value !== "checkout" && value !== "commit") {
        throw new Problem(`invalid mtime value: ${quoteGo(value)} (must be "checkout" or "commit")`);
      }
      draft.mtime = value;
      return;
    default:
      throw new Problem(`unexpected query ${quoteGo(key)}`);
  }
}

function flag(key: string, value: string): boolean {
  const parsed = value === "" ? true : parseBool(value);
  if (parsed === undefined) throw new Problem(`invalid ${key} value: ${quoteGo(value)}`);
  return parsed;
}
