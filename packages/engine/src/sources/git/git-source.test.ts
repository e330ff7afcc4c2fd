import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import {
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { mediaTypes } from "@kiln/oci";
import { Registries } from "@kiln/registry";
import { TestRegistry } from "@kiln/registry/testing";
import { SessionAuthenticators } from "../source-sessions.ts";
import { FakeRefs, fakeContent, fakeContext, fakeSessions } from "../testing/fake-engine.ts";
import { GitServer } from "../testing/git-server.ts";
import { parseGitObject } from "./git-object.ts";
import { GitSource } from "./git-source.ts";
import { parseGitUrl } from "./git-url.ts";

function setup(has: Parameters<typeof fakeSessions>[0] = {}) {
  const fakes = new FakeRefs();
  const sessions = fakeSessions(has);
  const authenticators = new SessionAuthenticators(sessions);
  const source = new GitSource({
    refs: fakes.manager,
    sessions,
    authenticators,
    registries: new Registries(),
    ...fakeContent(),
  });
  return { fakes, source };
}

function commit(
  server: GitServer,
  repository: string,
  files: Record<string, string>,
  ...flags: string[]
): string {
  for (const [name, text] of Object.entries(files)) {
    mkdirSync(join(server.root, repository, name, ".."), { recursive: true });
    writeFileSync(join(server.root, repository, name), text);
  }
  server.git(repository, "add", "-A");
  server.git(repository, "commit", "-q", "-m", "m", ...flags);
  return server.git(repository, "rev-parse", "HEAD");
}

const attrsOf = (
  server: GitServer,
  repository: string,
  attrs: Record<string, string> = {},
): Map<string, string> =>
  new Map(Object.entries({ "git.fullurl": `http://${server.host}/${repository}`, ...attrs }));

test("branches, tags, commits, sub-directories: keys and trees", async () => {
  await using server = await GitServer.start();
  server.init("app");
  const first = commit(server, "app", { a: "1", "sub/b": "2" });
  server.git("app", "tag", "-a", "v1", "-m", "tag");
  const tag = server.git("app", "rev-parse", "v1");
  const second = commit(server, "app", { a: "changed" });
  const { fakes, source } = setup();
  using _fakes = fakes;
  const open = async (fragment: string, attrs: Record<string, string> = {}) => {
    const { ctx, finish } = fakeContext();
    const instance = source.resolve({
      identifier: `git://${server.host}/app${fragment}`,
      attrs: attrsOf(server, "app", attrs),
      platform: undefined,
    });
    const { key, pin } = await instance.cacheKey(0, ctx);
    const ref = await instance.snapshot(ctx);
    await ref!.release();
    await finish();
    return { key, pin, dir: fakes.dir(ref) };
  };
  const head = await open("");
  assert.deepEqual([head.key, head.pin], [second, second]);
  assert.equal(readFileSync(join(head.dir, "a"), "utf8"), "changed");
  assert.deepEqual(readdirSync(head.dir).sort(), ["a", "sub"]);
  const tagged = await open("#v1");
  assert.deepEqual([tagged.key, tagged.pin], [first, tag]);
  assert.equal(readFileSync(join(tagged.dir, "a"), "utf8"), "1");
  assert.equal((await open("#refs/tags/v1")).key, first);
  const sub = await open(`#${first}:sub`);
  assert.deepEqual([sub.key, readdirSync(sub.dir)], [`${first}:sub`, ["b"]]);
  const kept = await open("#v1", { "git.keepgitdir": "true" });
  assert.equal(kept.key, `${tag}.git#refs/tags/v1`);
  assert.equal(
    execFileSync("git", ["-C", kept.dir, "remote", "get-url", "origin"]).toString().trim(),
    `http://${server.host}/app`,
  );
  const mtime = await open("#master", { "git.mtime": "commit", "git.skipsubmodules": "true" });
  assert.equal(mtime.key, `${second}(skip-submodules)(mtime=commit)`);
  assert.equal(lstatSync(join(mtime.dir, "a")).mtimeMs, 1_700_000_000_000);
  const bundle = await open("#v1", { "git.checkoutbundle": "true" });
  assert.equal(bundle.key, `${first}(bundle)`);
  assert.match(
    execFileSync("git", ["bundle", "list-heads", join(bundle.dir, "bundle")]).toString(),
    /refs\/heads\/v1/,
  );
  assert.equal((await open("#master", { "git.checksum": second.slice(0, 8) })).key, second);
  const byCommit = await open("#master", { "git.checksum": first, "git.fetchbycommit": "true" });
  assert.equal(byCommit.key, first);
  await assert.rejects(open("#master", { "git.checksum": first }), /expected checksum to match/);
  await assert.rejects(open("#nope"), /repository does not contain ref nope/);
  assert.equal(fakes.held, 0);
  const shared = [...fakes.records.values()].filter((r) =>
    r.options.description?.startsWith("shared git repo"),
  );
  assert.equal(shared.length, 1);
  // The same again is found, not fetched.
  const before = server.authorizations.length;
  await open(`#${first}:sub`);
  assert.equal(server.authorizations.length, before);
});

test("the branch may move between key and snapshot", async () => {
  await using server = await GitServer.start();
  server.init("app");
  const first = commit(server, "app", { a: "1" });
  const { fakes, source } = setup();
  using _fakes = fakes;
  const { ctx } = fakeContext();
  const instance = source.resolve({
    identifier: `git://${server.host}/app#master`,
    attrs: attrsOf(server, "app"),
    platform: undefined,
  });
  assert.equal((await instance.cacheKey(0, ctx)).key, first);
  commit(server, "app", { a: "2" });
  const ref = await instance.snapshot(ctx);
  assert.equal(readFileSync(join(fakes.dir(ref), "a"), "utf8"), "1");
});

test("hostile names, sub-directories and submodules (V6, V7, V41)", async () => {
  await using server = await GitServer.start();
  server.init("app");
  symlinkSync("/etc", join(server.root, "app", "link"));
  mkdirSync(join(server.root, "app", "dir"));
  symlinkSync("..", join(server.root, "app", "dir", "up"));
  commit(server, "app", { a: "1" });
  const { fakes, source } = setup();
  using _fakes = fakes;
  const { ctx } = fakeContext();
  const snapshot = (fragment: string) =>
    source
      .resolve({
        identifier: `git://${server.host}/app${fragment}`,
        attrs: attrsOf(server, "app"),
        platform: undefined,
      })
      .snapshot(ctx);
  await assert.rejects(snapshot("#master:link"), /contains non-directory/);
  await assert.rejects(snapshot("#master:dir/up"), /contains non-directory/);
  await assert.rejects(snapshot("#master:nope"), /no such file or directory/);
  assert.equal(readFileSync(join(fakes.dir(await snapshot("#master:../../..")), "a"), "utf8"), "1");
  assert.equal(readFileSync(join(fakes.dir(await snapshot("#master:a/..")), "a"), "utf8"), "1");
  for (const fragment of ["#--upload-pack=touch%20x", "#a%0ab", "#-x"]) {
    assert.throws(
      () =>
        source.resolve({
          identifier: `git://${server.host}/app${fragment}`,
          attrs: new Map(),
          platform: undefined,
        }),
      { code: "invalid_argument" },
    );
  }
  for (const identifier of [
    "git://ext::sh -c x",
    "git://file:///etc",
    "git://-oProxyCommand=x/y",
    "git://ext://x/y",
  ]) {
    assert.throws(
      () => source.resolve({ identifier, attrs: new Map(), platform: undefined }),
      { code: "invalid_argument" },
      identifier,
    );
  }
  const other = attrsOf(server, "other");
  assert.throws(
    () => source.resolve({ identifier: `git://${server.host}/app`, attrs: other, platform: undefined }),
    /does not match source identifier/,
  );

  // A default branch whose name is an option.
  server.init("evil");
  commit(server, "evil", { a: "1" });
  writeFileSync(
    join(server.root, "evil/.git/refs/heads/--upload-pack=x"),
    `${server.git("evil", "rev-parse", "HEAD")}\n`,
  );
  writeFileSync(join(server.root, "evil/.git/HEAD"), "ref: refs/heads/--upload-pack=x\n");
  const evil = source.resolve({
    identifier: `git://${server.host}/evil`,
    attrs: attrsOf(server, "evil"),
    platform: undefined,
  });
  await assert.rejects(evil.cacheKey(0, ctx), /invalid git ref|could not find default branch/);

  // A submodule that is a folder of this machine.
  const outside = mkdtempSync(join(tmpdir(), "kiln-outside-"));
  execFileSync("git", ["init", "-q", outside]);
  server.init("sub");
  commit(server, "sub", { ".gitmodules": `[submodule "x"]\n\tpath = x\n\turl = ${outside}\n` });
  const head = server.git("sub", "rev-parse", "HEAD");
  server.git("sub", "update-index", "--add", "--cacheinfo", `160000,${head},x`);
  server.git("sub", "commit", "-q", "-m", "sub");
  const sub = source.resolve({
    identifier: `git://${server.host}/sub`,
    attrs: attrsOf(server, "sub"),
    platform: undefined,
  });
  await assert.rejects(sub.snapshot(ctx), /failed to update submodules[\s\S]*transport 'file' not allowed/);
  rmSync(outside, { recursive: true });
});

test("submodules over the network", async () => {
  await using server = await GitServer.start();
  server.init("lib");
  commit(server, "lib", { l: "lib" });
  server.init("app");
  commit(server, "app", {
    ".gitmodules": `[submodule "lib"]\n\tpath = lib\n\turl = http://${server.host}/lib\n`,
  });
  server.git(
    "app",
    "update-index",
    "--add",
    "--cacheinfo",
    `160000,${server.git("lib", "rev-parse", "HEAD")},lib`,
  );
  server.git("app", "commit", "-q", "-m", "sub");
  const { fakes, source } = setup();
  using _fakes = fakes;
  const { ctx } = fakeContext();
  const instance = source.resolve({
    identifier: `git://${server.host}/app`,
    attrs: attrsOf(server, "app"),
    platform: undefined,
  });
  const ref = await instance.snapshot(ctx);
  assert.equal(readFileSync(join(fakes.dir(ref), "lib/l"), "utf8"), "lib");
});

test("tokens travel in the environment and show nowhere", async () => {
  await using server = await GitServer.start();
  server.init("app");
  commit(server, "app", { a: "1" });
  const { fakes, source } = setup({
    secrets: { [`GIT_AUTH_TOKEN.${server.host}`]: "s3cret", GIT_AUTH_TOKEN: "other" },
  });
  using _fakes = fakes;
  const { ctx, log } = fakeContext();
  const attrs = attrsOf(server, "app", {
    "git.authtokensecret": "GIT_AUTH_TOKEN",
    "git.authheadersecret": "GIT_AUTH_HEADER",
    "git.keepgitdir": "true",
  });
  const instance = source.resolve({ identifier: `git://${server.host}/app`, attrs, platform: undefined });
  const ref = await instance.snapshot(ctx);
  const expected = `basic ${Buffer.from("x-access-token:s3cret").toString("base64")}`;
  assert.ok(server.authorizations.length > 0 && server.authorizations.every((header) => header === expected));
  const found = spawnSync("grep", ["-rlE", "s3cret|x-access-token|extraheader", fakes.dir(ref)]);
  assert.equal(found.stdout.toString(), "");
  assert.ok(!log().includes("s3cret"));
});

test("a bundle in a registry stands in for the remote", async () => {
  await using server = await GitServer.start();
  await using registry = await TestRegistry.start();
  server.init("app");
  const head = commit(server, "app", { a: "1" });
  server.git("app", "bundle", "create", "-q", "out.bundle", "master");
  const blob = registry.addBlob(
    "bundles",
    readFileSync(join(server.root, "app/out.bundle")),
    mediaTypes.octetStream,
  );
  const { fakes, source } = setup();
  using _fakes = fakes;
  const { ctx, finish } = fakeContext();
  const attrs = new Map([
    ["git.bundle", `docker-image+blob://${registry.host}/bundles@${blob.digest}`],
    ["git.checksum", head],
  ]);
  const instance = source.resolve({
    identifier: "git://example.invalid/app#master",
    attrs,
    platform: undefined,
  });
  assert.equal((await instance.cacheKey(0, ctx)).key, head);
  const ref = await instance.snapshot(ctx);
  assert.equal(readFileSync(join(fakes.dir(ref), "a"), "utf8"), "1");
  await finish();
  const wrong = new Map(attrs).set("git.checksum", "0".repeat(40));
  await assert.rejects(
    source
      .resolve({ identifier: "git://example.invalid/app", attrs: wrong, platform: undefined })
      .snapshot(ctx),
    /not found in bundle/,
  );
  for (const extra of [
    ["git.checksum", ""],
    ["git.bundle", "https://x/y"],
  ] as const) {
    const bad = new Map(attrs).set(extra[0], extra[1]);
    assert.throws(
      () => source.resolve({ identifier: "git://example.invalid/app", attrs: bad, platform: undefined }),
      /git.bundle/,
    );
  }
});

test("SSH signatures", async () => {
  await using server = await GitServer.start();
  const dir = mkdtempSync(join(tmpdir(), "kiln-keys-"));
  execFileSync("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-f", join(dir, "key")]);
  execFileSync("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-f", join(dir, "other")]);
  server.init("app");
  server.git("app", "config", "gpg.format", "ssh");
  server.git("app", "config", "user.signingkey", join(dir, "key.pub"));
  const signed = commit(server, "app", { a: "1" }, "-S");
  server.git("app", "tag", "-s", "v1", "-m", "tag");
  commit(server, "app", { a: "2" });
  const { fakes, source } = setup();
  using _fakes = fakes;
  const { ctx } = fakeContext();
  const key = async (fragment: string, attrs: Record<string, string>) =>
    (
      await source
        .resolve({
          identifier: `git://${server.host}/app${fragment}`,
          attrs: attrsOf(server, "app", attrs),
          platform: undefined,
        })
        .cacheKey(0, ctx)
    ).key;
  const pubkey = readFileSync(join(dir, "key.pub"), "utf8");
  const other = readFileSync(join(dir, "other.pub"), "utf8");
  assert.equal(await key(`#${signed}`, { "git.sig.pubkey": pubkey }), signed);
  assert.equal(await key("#v1", { "git.sig.pubkey": pubkey, "git.sig.requiresignedtag": "true" }), signed);
  await assert.rejects(key("#master", { "git.sig.pubkey": pubkey }), /git object is not signed/);
  await assert.rejects(key(`#${signed}`, { "git.sig.pubkey": other }), { code: "permission_denied" });
  await assert.rejects(key("#v1", { "git.sig.pubkey": other }), { code: "permission_denied" });
  await assert.rejects(
    key(`#${signed}`, { "git.sig.pubkey": pubkey, "git.sig.requiresignedtag": "true" }),
    /no signed tag found/,
  );
  const object = parseGitObject(
    execFileSync("git", ["-C", join(server.root, "app"), "cat-file", "commit", signed]),
  );
  assert.match(object.signature, /^-----BEGIN SSH SIGNATURE-----/);
  rmSync(dir, { recursive: true });
  assert.ok(!existsSync(dir));
});

test("URLs", () => {
  const url = parseGitUrl("git@github.com:o/r.git#main:a/../b");
  assert.deepEqual(
    [url.remote, url.ref, url.subdir, url.scheme],
    ["git@github.com:o/r.git", "main", "b", "ssh"],
  );
  assert.equal(parseGitUrl("HTTPS://user:pw@h/p?x#v").remote, "https://user:pw@h/p");
  for (const bad of ["ftp://h/p", "h/p", "https:///p", "https://a b/p"])
    assert.throws(() => parseGitUrl(bad), { code: "invalid_argument" });
});
