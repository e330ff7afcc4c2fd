import { createReadStream } from "node:fs";
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { BuildError, wrapError } from "@kiln/base";
import type { OpContext } from "../../op-context.ts";
import { writeFileInto } from "../file-ref.ts";
import { type BlobLocator, openBlob } from "../image/blob-source.ts";
import type { OriginServices } from "../image/image-origin.ts";
import { GitCli } from "./git-cli.ts";
import { isCommitSha } from "./git-url.ts";

/** Name of the file that `git.checkoutbundle` leaves. */
const BUNDLE_NAME = "bundle";
/** A bundle needs a named ref even when only a commit was asked for. */
const FALLBACK_REF = "refs/heads/main";

/** A bundle, downloaded and imported into a repository of its own. */
export interface StagedBundle extends AsyncDisposable {
  /** `file://` URL of the repository. */
  readonly url: string;
  readonly sha256: boolean;
}

/** Downloads a bundle and checks that it has the commit. */
export async function stageBundle(
  bundle: BlobLocator,
  commit: string,
  services: OriginServices,
  ctx: OpContext,
): Promise<StagedBundle> {
  const dir = await mkdtemp(join(tmpdir(), "kiln-bundle-"));
  try {
    const source = await openBlob(bundle, services, { ids: ctx.sessions.ids(), signal: ctx.signal });
    await writeFileInto(dir, { name: "bundle.pack", perm: 0o600, uid: 0, gid: 0, mtimeMs: 0 }, source);
    const file = join(dir, "bundle.pack");
    const repository = join(dir, "repo.git");
    await mkdir(repository, { mode: 0o700 });
    const plain = new GitCli({ signal: ctx.signal, progress: ctx.progress });
    const sha256 = await usesSha256(plain, file);
    const git = plain.with({ gitDir: repository });
    await git.run("init", "--bare", ...(sha256 ? ["--object-format=sha256"] : []));
    try {
      await git.run("fetch", file, "+refs/*:refs/*");
    } catch (error) {
      throw wrapError(error, `failed to import git bundle ${bundle.text} into temp`);
    }
    if (!(await git.succeeds("cat-file", "-e", `${commit}^{commit}`))) {
      throw new BuildError("not_found", `commit ${commit} not found in bundle ${bundle.text}`);
    }
    return {
      url: `file://${repository}`,
      sha256,
      [Symbol.asyncDispose]: () => rm(dir, { recursive: true, force: true }),
    };
  } catch (error) {
    await rm(dir, { recursive: true, force: true });
    throw error;
  }
}

async function usesSha256(git: GitCli, file: string): Promise<boolean> {
  const output = (await git.run("ls-remote", "--", file)).toString();
  const id = output.split("\t", 1)[0] ?? "";
  if (!isCommitSha(id)) {
    throw new BuildError(
      "invalid_argument",
      `failed to inspect git bundle ${file}: invalid object ID ${JSON.stringify(id)}`,
    );
  }
  return id.length === 64;
}

/** Writes a bundle with one commit of `git`'s repository into `checkoutDir`. */
export async function writeBundle(
  git: GitCli,
  at: {
    readonly repository: string;
    readonly commit: string;
    readonly ref: string;
    readonly checkoutDir: string;
  },
): Promise<void> {
  const dir = await mkdtemp(join(tmpdir(), "kiln-bundle-create-"));
  try {
    const repository = join(dir, "repo.git");
    await mkdir(repository, { mode: 0o700 });
    const own = git.with({ gitDir: repository });
    // A branch can't point to a tag object.
    const commit = await git.text("rev-parse", `${at.commit}^{commit}`);
    await own.run("init", "--bare", ...(at.commit.length === 64 ? ["--object-format=sha256"] : []));
    await own.run("fetch", `file://${at.repository}`, "--", commit);
    const target = bundleRef(at.ref);
    await own.run("update-ref", target, commit);
    const file = join(dir, "out.bundle");
    await own.run("bundle", "create", file, target);
    const now = { name: BUNDLE_NAME, perm: 0o644, uid: 0, gid: 0, mtimeMs: Date.now() };
    await writeFileInto(at.checkoutDir, now, createReadStream(file));
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
}

/** Tags stay tags; everything else becomes a branch. */
function bundleRef(ref: string): string {
  if (ref === "" || isCommitSha(ref)) return FALLBACK_REF;
  if (ref.startsWith("refs/tags/")) return ref;
  return `refs/heads/${ref.replace(/^refs\//, "").replace(/^heads\//, "")}`;
}
