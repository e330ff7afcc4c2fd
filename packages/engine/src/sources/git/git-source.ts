import type { SourceOp } from "@kiln/api/pb";
import { BuildError, isBuildError, wrapError } from "@kiln/base";
import type { ImmutableRef, RefManager } from "@kiln/store";
import type { Capture } from "../../attestations/provenance/capture.ts";
import type { OpContext } from "../../op-context.ts";
import { JOB_COMPATIBILITY } from "../../solve/builder.ts";
import { createTree } from "../file-ref.ts";
import type { OriginServices } from "../image/image-origin.ts";
import { KeyedLock } from "../keyed-lock.ts";
import { redactCredentials } from "../redact.ts";
import type { Source, SourceCacheKey, SourceInstance, SourceRequest } from "../source.ts";
import { invalid } from "../source-attrs.ts";
import type { SourceMetadata, SourceMetadataOptions, SourceMetadataResolver } from "../source-metadata.ts";
import { authConfig, openGit } from "./git-access.ts";
import { type StagedBundle, stageBundle, writeBundle } from "./git-bundle.ts";
import { checkOut } from "./git-checkout.ts";
import type { GitCli, GitConfig } from "./git-cli.ts";
import { type GitMetadata, type GitObjects, verifyGitSignature } from "./git-object.ts";
import { defaultBranch, fetchRemote, type GitRepository } from "./git-remote.ts";
import { canonicalGitIdentifier, type GitRequest, parseGitRequest } from "./git-request.ts";
import { isCommitSha } from "./git-url.ts";

/** Services of the git source. */
export interface GitSourceServices extends OriginServices {
  readonly refs: RefManager;
}

interface Shared extends GitSourceServices {
  readonly remotes: KeyedLock;
  readonly snapshots: KeyedLock;
}

const SNAPSHOT_KEY = "git-snapshot";

/** Git repositories: `git://`, fetched with the machine's git into one shared repository per remote. */
export class GitSource implements Source, SourceMetadataResolver {
  readonly schemes = ["git"];
  readonly #shared: Shared;

  constructor(services: GitSourceServices) {
    this.#shared = { ...services, remotes: new KeyedLock(), snapshots: new KeyedLock() };
  }

  resolve(request: SourceRequest): SourceInstance {
    return new GitInstance(parseGitRequest(request), this.#shared);
  }

  canonical(identifier: string): string {
    return canonicalGitIdentifier(identifier);
  }

  async resolveMetadata(
    source: SourceOp,
    opts: SourceMetadataOptions,
    ctx: OpContext,
  ): Promise<SourceMetadata> {
    const attrs = new Map(Object.entries(source.attrs));
    const request = parseGitRequest({ identifier: source.identifier, attrs, platform: undefined });
    const instance = new GitInstance(request, this.#shared);
    const found = await instance.metadata(opts.git?.returnObject ?? false, ctx);
    return {
      source,
      git: {
        checksum: found.checksum,
        ref: found.ref,
        commitChecksum: found.commitChecksum,
        commitObject: found.commitObject,
        tagObject: found.tagObject,
      },
    };
  }
}

const NO_OBJECTS = { commitObject: new Uint8Array(), tagObject: new Uint8Array() };

class GitInstance implements SourceInstance {
  readonly #request: GitRequest;
  readonly #shared: Shared;
  #commit = "";
  #key = "";

  constructor(request: GitRequest, shared: Shared) {
    this.#request = request;
    this.#shared = shared;
  }

  async metadata(returnObject: boolean, ctx: OpContext): Promise<GitObjects> {
    const found = await this.#resolve(ctx);
    const { signature } = this.#request;
    if (!returnObject && signature === undefined) return { ...found, ...NO_OBJECTS };
    const objects = await this.#objects(found, ctx);
    if (signature !== undefined) await verifyGitSignature(objects, signature, ctx.signal);
    return objects;
  }

  async cacheKey(_index: number, ctx: OpContext): Promise<SourceCacheKey> {
    let found = await this.#resolve(ctx);
    const { signature, keepGitDir } = this.#request;
    if (signature !== undefined) {
      const objects = await this.#objects(found, ctx);
      await verifyGitSignature(objects, signature, ctx.signal);
      found = objects;
    }
    if (isCommitSha(found.ref)) {
      this.#commit = found.ref;
      this.#key = this.#cacheKeyOf(found.ref, found.ref);
      return { key: this.#key, pin: found.ref, done: true };
    }
    const sha = found.commitChecksum !== "" && !keepGitDir ? found.commitChecksum : found.checksum;
    this.#commit = found.checksum;
    this.#key = this.#cacheKeyOf(sha, found.ref);
    return { key: this.#key, pin: found.checksum, done: true };
  }

  capture(into: Capture, pin: string): void {
    const { remote, ref, bundle, authTokenSecret, authHeaderSecret, sshId } = this.#request;
    into.addGit({
      url: ref === "" ? remote : `${remote}#${ref}`,
      commit: pin,
      bundle:
        bundle && `${bundle.from.kind === "layout" ? "oci-layout" : "docker-image"}+blob://${bundle.text}`,
    });
    for (const id of [authTokenSecret, authHeaderSecret]) {
      if (id !== "") into.addSecret({ id, optional: true });
    }
    if (sshId !== "") into.addSsh({ id: sshId, optional: true });
  }

  #cacheKeyOf(sha: string, ref: string): string {
    const request = this.#request;
    let key = sha;
    if (request.keepGitDir) key += ref === "" ? ".git" : `.git#${ref}`;
    if (request.subdir !== "") key += `:${request.subdir}`;
    if (request.skipSubmodules) key += "(skip-submodules)";
    if (request.mtime !== "" && request.mtime !== "checkout") key += `(mtime=${request.mtime})`;
    if (request.checkoutBundle) key += "(bundle)";
    return key;
  }

  async snapshot(ctx: OpContext): Promise<ImmutableRef> {
    if (this.#key === "") await this.cacheKey(0, ctx);
    const { refs, snapshots } = this.#shared;
    const { subdir, remote, ref } = this.#request;
    const key = `${this.#key}:${subdir}`;
    using _turn = await snapshots.lock(key, ctx.signal);
    for (const id of refs.search(`${SNAPSHOT_KEY}::${key}`)) {
      try {
        return refs.get(id);
      } catch (error) {
        if (!isBuildError(error, "not_found")) throw error;
      }
    }
    await using repository = await this.#fetch(ctx);
    const named = `${redactCredentials(remote)}#${ref}`;
    const made = this.#request.checkoutBundle
      ? await createTree(
          refs,
          { description: `git bundle checkout for ${named}`, cachePolicy: "retain" },
          ctx,
          (dir) => this.#bundleInto(dir, repository),
        )
      : await createTree(
          refs,
          { description: `git snapshot for ${named}`, recordType: "source.git.checkout" },
          ctx,
          (dir) => this.#checkOutInto(dir, repository, ctx),
        );
    made.ref.metadata.setString(SNAPSHOT_KEY, key, `${SNAPSHOT_KEY}::${key}`);
    return made.ref;
  }

  #checkOutInto(dir: string, repository: GitRepository, ctx: OpContext): Promise<void> {
    const [version] = ctx.jobValues(JOB_COMPATIBILITY);
    return checkOut({
      request: this.#request,
      repository,
      sha256: this.#commit.length === 64,
      dir,
      compatibilityVersion: typeof version === "number" ? version : 0,
    });
  }

  #bundleInto(dir: string, repository: GitRepository): Promise<void> {
    const { checksum, ref } = this.#request;
    const commit = isCommitSha(checksum) ? checksum : this.#commit;
    return writeBundle(repository.git, {
      repository: repository.dir,
      commit,
      ref: ref || repository.ref,
      checkoutDir: dir,
    });
  }

  /** Finds the commit of the name, once per build. */
  async #resolve(ctx: OpContext): Promise<GitMetadata> {
    const { ref, checksum, bundle, fetchByCommit, remote } = this.#request;
    if (bundle !== undefined) return this.#resolveBundle(ctx);
    if (isCommitSha(ref)) {
      if (!ref.startsWith(checksum)) throw invalid(`expected checksum to match ${checksum}, got ${ref}`);
      return { ref, checksum: ref, commitChecksum: "" };
    }
    if (fetchByCommit) return this.#resolveByCommit();
    using _turn = await this.#shared.remotes.lock(remote, ctx.signal);
    const lock = await ctx.resolverCache.lock(`${remote}#${ref}`, ctx.signal);
    let left: GitMetadata | undefined;
    try {
      const known = lock.values.filter(isGitMetadata).find((value) => value.checksum.startsWith(checksum));
      if (known !== undefined) return known;
      left = await this.#resolveUrl(remote, await this.#auth(ctx), ctx);
      return left;
    } finally {
      lock.release(left);
    }
  }

  #resolveByCommit(): GitMetadata {
    const { ref, checksum } = this.#request;
    if (checksum === "") throw invalid("fetch-by-commit requires a checksum or a commit SHA ref");
    if (!isCommitSha(checksum)) {
      throw invalid(`fetch-by-commit requires a full commit SHA checksum, got ${JSON.stringify(checksum)}`);
    }
    return { ref: fullRef(ref) || checksum, checksum, commitChecksum: "" };
  }

  async #resolveBundle(ctx: OpContext): Promise<GitMetadata> {
    const { ref, checksum } = this.#request;
    if (ref === "" || isCommitSha(ref)) {
      const commit = ref === "" ? checksum : ref;
      if (!commit.startsWith(checksum))
        throw invalid(`expected checksum to match ${checksum}, got ${commit}`);
      return { ref: commit, checksum: commit, commitChecksum: "" };
    }
    const staged = await this.#stage(ctx);
    return this.#resolveUrl(staged.url, [], ctx);
  }

  /** The bundle stays until the build is over: key and snapshot both need it. */
  async #stage(ctx: OpContext): Promise<StagedBundle> {
    const { bundle, checksum } = this.#request;
    if (bundle === undefined) throw invalid("no git.bundle");
    const staged = await stageBundle(bundle, checksum, this.#shared, ctx);
    ctx.cleanup(async () => staged[Symbol.asyncDispose]());
    return staged;
  }

  async #resolveUrl(remote: string, auth: GitConfig, ctx: OpContext): Promise<GitMetadata> {
    const { git, cleanup } = await openGit(this.#request, auth, { sessions: this.#shared.sessions, ctx });
    await using _cleanup = cleanup;
    const ref = this.#request.ref || (await defaultBranch(git, remote));
    const found = pickRef(ref, await listRefs(git, remote, ref));
    const { checksum, keepGitDir } = this.#request;
    if (
      !found.checksum.startsWith(checksum) &&
      !(found.commitChecksum !== "" && found.commitChecksum.startsWith(checksum))
    ) {
      const got =
        found.commitChecksum === "" ? found.checksum : `${found.checksum} or ${found.commitChecksum}`;
      throw new BuildError("failed_precondition", `expected checksum to match ${checksum}, got ${got}`);
    }
    return keepGitDir ? { ...found, commitChecksum: "" } : found;
  }

  #auth(ctx: OpContext): Promise<GitConfig> {
    return authConfig(this.#request, this.#shared.sessions, ctx);
  }

  async #objects(found: GitMetadata, ctx: OpContext): Promise<GitObjects> {
    this.#commit = found.checksum;
    await using repository = await this.#fetch(ctx);
    const { git } = repository;
    const type = await git.text("cat-file", "-t", found.checksum);
    if (type === "commit") {
      const commitObject = await git.run("cat-file", "commit", found.checksum);
      return { ...found, commitChecksum: "", commitObject, tagObject: NO_OBJECTS.tagObject };
    }
    if (type !== "tag") throw invalid(`expected commit or tag object, got ${type}`);
    const commitChecksum =
      found.commitChecksum || (await git.text("rev-parse", `${found.checksum}^{commit}`));
    return {
      ...found,
      commitChecksum,
      tagObject: await git.run("cat-file", "tag", found.checksum),
      commitObject: await git.run("cat-file", "commit", commitChecksum),
    };
  }

  async #fetch(ctx: OpContext): Promise<GitRepository> {
    const { bundle, fetchByCommit, ref, checksum } = this.#request;
    const request = fetchByCommit ? { ...this.#request, ref: fullRef(ref) || checksum } : this.#request;
    const auth = bundle === undefined ? await this.#auth(ctx) : [];
    return fetchRemote(
      {
        request,
        commit: this.#commit,
        sha256: this.#commit.length === 64,
        auth,
        bundleUrl: bundle === undefined ? undefined : async () => (await this.#stage(ctx)).url,
      },
      this.#shared,
      ctx,
    );
  }
}

/** Names that are fetched by commit are branches unless they say otherwise. */
function fullRef(ref: string): string {
  return ref === "" || ref.startsWith("refs/") ? ref : `refs/heads/${ref}`;
}

async function listRefs(git: GitCli, remote: string, ref: string): Promise<ReadonlyMap<string, string>> {
  let output: string;
  try {
    output = (await git.run("ls-remote", "--", remote, ref, `${ref}^{}`)).toString();
  } catch (error) {
    throw wrapError(error, `failed to fetch remote ${redactCredentials(remote)}`);
  }
  const found = new Map<string, string>();
  for (const line of output.split("\n")) {
    const tab = line.indexOf("\t");
    if (tab > 0) found.set(line.slice(tab + 1), line.slice(0, tab));
  }
  return found;
}

/** A full name of another kind first, then a branch, then a tag. */
function pickRef(ref: string, refs: ReadonlyMap<string, string>): GitMetadata {
  const bare = (prefix: string): string => prefix + (ref.startsWith(prefix) ? ref.slice(prefix.length) : ref);
  const tag = bare("refs/tags/");
  const head = bare("refs/heads/");
  const full = bare("refs/");
  const order = full === tag || full === head ? [head, tag] : [full, head, tag];
  const used = order.find((name) => refs.has(name));
  if (used === undefined) {
    const output = [...refs].map(([name, sha]) => `${sha}\t${name}\n`).join("");
    throw new BuildError(
      "not_found",
      `repository does not contain ref ${ref}, output: ${JSON.stringify(output)}`,
    );
  }
  const checksum = refs.get(used)!;
  if (!isCommitSha(checksum)) throw invalid(`invalid commit sha ${JSON.stringify(checksum)}`);
  const commit = used === tag ? (refs.get(`${tag}^{}`) ?? "") : "";
  if (commit !== "" && !isCommitSha(commit)) throw invalid(`invalid commit sha ${JSON.stringify(commit)}`);
  return { ref: used, checksum, commitChecksum: commit };
}

function isGitMetadata(value: unknown): value is GitMetadata {
  return (
    typeof value === "object" && value !== null && "checksum" in value && typeof value.checksum === "string"
  );
}
