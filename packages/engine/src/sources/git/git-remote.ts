import { createHash } from "node:crypto";
import { lstat, rm } from "node:fs/promises";
import { join } from "node:path";
import { BuildError, DisposableStore, errorMessage, isBuildError, isCanceled, wrapError } from "@kiln/base";
import type { MutableRef, RefManager } from "@kiln/store";
import { localMount } from "@kiln/sys";
import type { OpContext } from "../../op-context.ts";
import { refContext } from "../file-ref.ts";
import type { KeyedLock } from "../keyed-lock.ts";
import { redactCredentials } from "../redact.ts";
import type { SourceSessions } from "../source-sessions.ts";
import { openGit } from "./git-access.ts";
import type { GitCli, GitConfig } from "./git-cli.ts";
import type { GitRequest } from "./git-request.ts";
import { checkGitRef, isCommitSha } from "./git-url.ts";

/** Index of the shared repositories by remote. */
const REMOTE_KEY = "git-remote";

/** The shared bare repository of a remote, locked, with the wanted commit in it. */
export interface GitRepository extends AsyncDisposable {
  readonly git: GitCli;
  readonly dir: string;
  /** The name to check out: the request's, or the default branch. */
  readonly ref: string;
}

/** Services that fetching needs. */
export interface GitFetchServices {
  readonly refs: RefManager;
  readonly sessions: SourceSessions;
  readonly remotes: KeyedLock;
}

/** What to fetch. */
export interface GitFetch {
  readonly request: GitRequest;
  /** Commit that must be there in the end. */
  readonly commit: string;
  readonly sha256: boolean;
  readonly auth: GitConfig;
  /** Instead of the remote: a staged bundle's repository, opened when the commit isn't known yet. */
  readonly bundleUrl: (() => Promise<string>) | undefined;
}

/** Fetches into the remote's shared repository; starts a new one when the old is beyond repair. */
export async function fetchRemote(
  fetch: GitFetch,
  services: GitFetchServices,
  ctx: OpContext,
): Promise<GitRepository> {
  await using opening = new DisposableStore();
  opening.use(await services.remotes.lock(fetch.request.remote, ctx.signal));
  let repository: GitRepository;
  try {
    repository = await tryFetch(fetch, services, { ctx, reset: false });
  } catch (error) {
    if (!needsReset(errorMessage(error))) throw error;
    repository = await tryFetch(fetch, services, { ctx, reset: true });
  }
  opening.use(repository);
  await checkChecksum(fetch.request, repository);
  const owned = opening.move();
  return {
    git: repository.git,
    dir: repository.dir,
    ref: repository.ref,
    [Symbol.asyncDispose]: () => owned[Symbol.asyncDispose](),
  };
}

function needsReset(message: string): boolean {
  if (message.includes("rejected") && message.includes("(would clobber existing tag)")) return true;
  return (
    message.includes("some local refs could not be updated;") &&
    (message.includes("(unable to update local ref)") || message.includes("refname conflict"))
  );
}

async function tryFetch(
  fetch: GitFetch,
  services: GitFetchServices,
  at: { readonly ctx: OpContext; readonly reset: boolean },
): Promise<GitRepository> {
  const { request } = fetch;
  await using opening = new DisposableStore();
  const access = await openGit(request, request.bundle === undefined ? fetch.auth : [], {
    sessions: services.sessions,
    ctx: at.ctx,
  });
  opening.use(access.cleanup);
  const dir = await openShared(fetch, services, { ...at, git: access.git, opening });
  const git = access.git.with({ gitDir: dir });
  let source = "origin";
  let ref = request.ref;
  if (fetch.bundleUrl !== undefined) {
    if (ref === "" || isCommitSha(ref)) ref = request.checksum;
    if (!(await git.succeeds("cat-file", "-e", `${request.checksum}^{commit}`)))
      source = await fetch.bundleUrl();
  }
  if (ref === "") ref = await defaultBranch(git, request.remote);
  await update(git, { ...fetch, ref, source, dir });
  const owned = opening.move();
  return { git, dir, ref, [Symbol.asyncDispose]: () => owned[Symbol.asyncDispose]() };
}

/** Mounts the remote's bare repository; makes one when there is none or it's in use. */
async function openShared(
  fetch: GitFetch,
  services: GitFetchServices,
  at: {
    readonly ctx: OpContext;
    readonly reset: boolean;
    readonly git: GitCli;
    readonly opening: DisposableStore;
  },
): Promise<string> {
  const { remote } = fetch.request;
  const { refs } = services;
  const context = refContext(at.ctx);
  let mutable: MutableRef | undefined;
  const key = remoteKey(remote);
  for (const id of refs.search(`${REMOTE_KEY}::${key}`)) {
    if (at.reset) refs.metadataOf(id)?.delete(REMOTE_KEY);
    else mutable ??= await takeMutable(refs, id);
  }
  const fresh = mutable === undefined;
  mutable ??= await refs.newMutable(undefined, {
    description: `shared git repo for ${redactCredentials(remote)}`,
    cachePolicy: "retain",
    ctx: context,
  });
  const owned = mutable;
  at.opening.defer(() => owned.release());
  const mountable = at.opening.use(await mutable.mount(false, context));
  const { path } = at.opening.use(localMount(mountable.mounts));
  if (!fresh) return path;
  try {
    const git = at.git.with({ gitDir: path });
    await git.run("init", "--bare", ...(fetch.sha256 ? ["--object-format=sha256"] : []));
    await git.run("remote", "add", "origin", remote);
  } catch (error) {
    // A repository that was never finished must not be found again.
    mutable.setCachePolicy("default");
    throw wrapError(error, `failed to init repo at ${path}`);
  }
  mutable.metadata.setString(REMOTE_KEY, key, `${REMOTE_KEY}::${key}`);
  return path;
}

/** What a remote's repository is found by: one with credentials is kept as a hash only. */
function remoteKey(remote: string): string {
  if (redactCredentials(remote) === remote) return remote;
  return createHash("sha256").update(remote).digest("hex");
}

async function takeMutable(refs: RefManager, id: string): Promise<MutableRef | undefined> {
  try {
    return await refs.getMutable(id);
  } catch (error) {
    if (isBuildError(error, "failed_precondition") || isBuildError(error, "not_found")) return undefined;
    throw error;
  }
}

/** The remote's default branch. Its name comes from the server, so it's checked like a user's. */
export async function defaultBranch(git: GitCli, remote: string): Promise<string> {
  let output: string;
  try {
    output = (await git.run("ls-remote", "--symref", "--", remote, "HEAD")).toString();
  } catch (error) {
    throw wrapError(error, `error fetching default branch for repository ${redactCredentials(remote)}`);
  }
  const branch = /^ref: refs\/heads\/(\S+)\tHEAD$/m.exec(output)?.[1];
  if (branch === undefined) {
    throw new BuildError(
      "not_found",
      `could not find default branch for repository: ${redactCredentials(remote)}`,
    );
  }
  return checkGitRef(branch);
}

interface Update extends GitFetch {
  readonly ref: string;
  readonly source: string;
  readonly dir: string;
}

async function update(git: GitCli, at: Update): Promise<void> {
  const { request, ref, commit, dir } = at;
  const fetchRef = request.fetchByCommit && request.checksum !== "" ? request.checksum : ref;
  const byCommit = isCommitSha(fetchRef);
  if (byCommit && (await git.succeeds("cat-file", "-e", `${fetchRef}^{commit}`))) return;
  const target = ref.startsWith("refs/tags/") ? ref : `tags/${ref}`;
  await rm(join(dir, "shallow.lock"), { recursive: true, force: true });
  const shallow = await isShallow(dir);
  const depth =
    request.fetchByCommit || !byCommit
      ? ["--depth=1", "--no-tags"]
      : ["--tags", ...(shallow ? ["--unshallow"] : [])];
  const what = isCommitSha(ref) ? [ref] : ["--force", "--", `${fetchRef}:${target}`];
  await fetching(request, git.run("fetch", ...depth, at.source, ...what));
  if ((await git.text("rev-parse", fetchRef)) === commit) return;
  await toCommit(git, { ...at, target: target.startsWith("refs/") ? target : `refs/${target}` });
}

/** The branch has moved on since it was resolved: gets the commit that was resolved. */
async function toCommit(git: GitCli, at: Update & { readonly target: string }): Promise<void> {
  const { commit, target, request, dir } = at;
  const has = (): Promise<boolean> => git.succeeds("cat-file", "-e", commit);
  if (!(await has())) {
    const shallow = (await isShallow(dir)) ? ["--unshallow"] : [];
    await fetching(request, git.run("fetch", "--tags", ...shallow, at.source, commit));
    await git.run("reflog", "expire", "--all", "--expire=now");
    if (!(await has())) {
      throw new BuildError(
        "failed_precondition",
        `fetched ref ${at.ref} does not match expected commit ${commit} and commit can not be found in the repository`,
      );
    }
  }
  await git.run("update-ref", target, commit, "--no-deref");
}

async function fetching<T>(request: GitRequest, work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (error) {
    if (isCanceled(error)) throw error;
    throw wrapError(error, `failed to fetch remote ${redactCredentials(request.remote)}`);
  }
}

async function isShallow(dir: string): Promise<boolean> {
  try {
    await lstat(join(dir, "shallow"));
    return true;
  } catch {
    return false;
  }
}

async function checkChecksum(request: GitRequest, repository: GitRepository): Promise<void> {
  const { checksum } = request;
  if (checksum === "") return;
  const { git } = repository;
  const ref = request.fetchByCommit ? checksum : repository.ref;
  const found = await git.text("rev-parse", "--verify", "--end-of-options", ref);
  if (found.startsWith(checksum)) return;
  const expected = `expected checksum to match ${checksum}, got ${found}`;
  const commit = (await git.succeeds("rev-parse", "--verify", "--quiet", "--end-of-options", `${ref}^{}`))
    ? await git.text("rev-parse", "--verify", "--end-of-options", `${ref}^{}`)
    : found;
  if (commit.startsWith(checksum)) return;
  throw new BuildError("failed_precondition", commit === found ? expected : `${expected} or ${commit}`);
}
