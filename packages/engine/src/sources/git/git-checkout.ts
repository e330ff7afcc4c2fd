import {
  chmodSync,
  lstatSync,
  lutimesSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  renameSync,
  rmSync,
} from "node:fs";
import { join, relative } from "node:path";
import { wrapError } from "@kiln/base";
import { newId } from "@kiln/formats";
import { redactCredentials } from "../redact.ts";
import { invalid } from "../source-attrs.ts";
import type { GitCli } from "./git-cli.ts";
import type { GitRepository } from "./git-remote.ts";
import type { GitRequest } from "./git-request.ts";
import { isCommitSha } from "./git-url.ts";

/** What to check out where. */
export interface GitCheckout {
  readonly request: GitRequest;
  readonly repository: GitRepository;
  readonly sha256: boolean;
  /** An empty directory. */
  readonly dir: string;
  /** 10 gives files the modes that BuildKit 0.13 gave them. */
  readonly compatibilityVersion: number;
}

/** Fills the directory with the tree (or its sub-directory) and its submodules. */
export async function checkOut(checkout: GitCheckout): Promise<void> {
  const { request, repository, dir } = checkout;
  let ref = repository.ref;
  let refOrCommit = request.fetchByCommit && request.checksum !== "" ? request.checksum : ref;
  if (request.bundle !== undefined && (request.ref === "" || isCommitSha(request.ref))) {
    ref = request.checksum;
    refOrCommit = ref;
  }
  const whole = request.subdir === "";
  let git: GitCli;
  let workTree = dir;
  if (request.keepGitDir && whole) git = await cloneInto(checkout, ref, refOrCommit);
  else {
    if (!whole) workTree = mkdtempSync(join(dir, "checkout"));
    git = repository.git.with({ workTree });
    await named(request, "checkout", git.run("checkout", "--no-overlay", refOrCommit, "--", "."));
  }
  if (!request.skipSubmodules) {
    await naming(
      git.run("submodule", "update", "--init", "--recursive", "--depth=1"),
      `failed to update submodules for ${redactCredentials(request.remote)}`,
    );
  }
  if (!whole) moveUp(workTree, request.subdir, dir);
  if (checkout.compatibilityVersion === 10) widenModes(dir);
  if (request.commitMtime) {
    const seconds = Number(await git.text("log", "-1", "--format=%ct", `${refOrCommit}^{commit}`));
    if (!Number.isSafeInteger(seconds)) throw invalid("failed to parse commit timestamp");
    setTimes(dir, seconds);
  }
}

/** A real repository with its `.git`, whose origin is the remote without credentials. */
async function cloneInto(checkout: GitCheckout, ref: string, refOrCommit: string): Promise<GitCli> {
  const { request, repository, dir, sha256 } = checkout;
  const gitDir = join(dir, ".git");
  const git = repository.git.with({ workTree: dir, gitDir });
  await git.run("init", ...(sha256 ? ["--object-format=sha256"] : []));
  await git.run("remote", "add", "origin", `file://${repository.dir}`);
  const pull = await pullSpec(checkout, ref, refOrCommit);
  await git.run("fetch", "-u", "--depth=1", "--", "origin", pull);
  await named(request, "checkout", git.run("checkout", "FETCH_HEAD"));
  await git.run("remote", "set-url", "origin", redactCredentials(request.remote));
  await git.run("reflog", "expire", "--all", "--expire=now");
  rmSync(join(gitDir, "FETCH_HEAD"), { force: true });
  return git;
}

async function pullSpec(checkout: GitCheckout, ref: string, refOrCommit: string): Promise<string> {
  const { git } = checkout.repository;
  if ((await git.text("cat-file", "-t", refOrCommit)) === "tag") {
    return `${ref}:${ref.startsWith("refs/tags/") ? ref : `refs/tags/${ref}`}`;
  }
  if (checkout.request.fetchByCommit && ref !== refOrCommit) return `${refOrCommit}:${ref}`;
  if (!isCommitSha(ref)) return `${ref}:${ref}`;
  const temporary = `refs/buildkit/${newId()}`;
  await git.run("update-ref", temporary, ref);
  return temporary;
}

/** Replaces the checkout by its sub-directory, which must be reached through directories only (CVE-2026-33748). */
function moveUp(workTree: string, subdir: string, dir: string): void {
  let path = workTree;
  for (const part of subdir.split("/")) {
    path = join(path, part);
    const at = relative(workTree, path);
    const stat = lstatSync(path, { throwIfNoEntry: false });
    if (stat === undefined) {
      throw invalid(
        `invalid subdir ${subdir}: failed to lstat "${at}": statat ${at}: no such file or directory`,
      );
    }
    if (!stat.isDirectory()) {
      throw invalid(`invalid subdir ${subdir}: git subpath "${subdir}" contains non-directory "${at}"`);
    }
  }
  for (const name of readdirSync(path, { encoding: "buffer" })) {
    const target = Buffer.concat([Buffer.from(`${dir}/`), name]);
    renameSync(Buffer.concat([Buffer.from(`${path}/`), name]), target);
  }
  rmSync(workTree, { recursive: true, force: true });
}

function eachEntry(dir: Buffer, visit: (path: Buffer, isDirectory: boolean) => void): void {
  for (const entry of readdirSync(dir, { withFileTypes: true, encoding: "buffer" })) {
    const path = Buffer.concat([dir, Buffer.from("/"), entry.name]);
    if (entry.isDirectory()) eachEntry(path, visit);
    visit(path, entry.isDirectory());
  }
}

/** Files that nobody may execute are writable for all, as they were with BuildKit 0.13. */
function widenModes(dir: string): void {
  eachEntry(Buffer.from(dir), (path, isDirectory) => {
    if (isDirectory) return;
    const stat = lstatSync(path);
    if (stat.isFile() && (stat.mode & 0o111) === 0) chmodSync(path, (stat.mode & 0o7777) | 0o222);
  });
}

function setTimes(dir: string, seconds: number): void {
  eachEntry(Buffer.from(dir), (path) => lutimesSync(path, seconds, seconds));
  lutimesSync(dir, seconds, seconds);
}

function named<T>(request: GitRequest, what: string, work: Promise<T>): Promise<T> {
  return naming(work, `failed to ${what} remote ${redactCredentials(request.remote)}`);
}

async function naming<T>(work: Promise<T>, what: string): Promise<T> {
  try {
    return await work;
  } catch (error) {
    throw wrapError(error, what);
  }
}

/** Makes the directory, for a mount that is one level deeper. */
export function ensureDir(dir: string): void {
  mkdirSync(dir, { recursive: true, mode: 0o711 });
}
