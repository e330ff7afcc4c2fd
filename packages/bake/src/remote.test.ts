import assert from "node:assert/strict";
import { test } from "node:test";
import { type BakeOptions, type BakePlan, readBake } from "./read.ts";
import { memoryHost } from "./testing/memory-host.ts";

const DEFINITION = `
target "root" {}
target "app" {
  context = "app"
  contexts = { self = ".", lib = "../lib", here = "cwd://x", image = "docker-image://alpine", up = "target:root" }
}
target "here" { context = BAKE_CMD_CONTEXT }
target "file" { dockerfile = "cwd://Dockerfile.dev" }
`;

function plan(remote: BakeOptions["remote"], targets: string[], env: Record<string, string> = {}): BakePlan {
  const outcome = readBake(
    [{ name: "docker-bake.hcl", data: new TextEncoder().encode(DEFINITION) }],
    memoryHost({ env }),
    { targets, ...(remote === undefined ? {} : { remote }) },
  );
  assert.ok(outcome.ok, outcome.ok ? "" : outcome.failure.message);
  return outcome.value;
}

test("contexts of a repository: its root is the URL, directories are taken from what was fetched", () => {
  const url = "https://example.com/repo.git#v1:sub";
  const [app, file, here, root] = plan({ url, hasFiles: true }, ["root", "app", "here", "file"]).targets;
  assert.equal(root?.context, url);
  assert.equal(root?.remoteContext, undefined);
  assert.equal(root?.dockerfile, "Dockerfile");
  assert.equal(app?.context, "https://example.com/repo.git#v1:sub/app");
  assert.equal(app?.remoteContext, "app");
  assert.equal(app?.dockerfile, "Dockerfile");
  assert.deepEqual(Object.fromEntries(app?.contexts ?? []), {
    self: url,
    lib: "https://example.com/repo.git#v1:lib",
    here: "x",
    image: "docker-image://alpine",
    up: "target:root",
  });
  assert.deepEqual([...(app?.remoteContexts ?? [])], [["lib", "../lib"]]);
  assert.equal(here?.context, ".");
  assert.equal(here?.remoteContext, undefined);
  assert.equal(file?.dockerfile, "/work/case/Dockerfile.dev");
  assert.equal(file?.localDockerfile, true);
});

test("all of an archive is taken from what was fetched; a single file leaves contexts local", () => {
  const [app, root] = plan({ url: "", hasFiles: true }, ["root", "app"]).targets;
  assert.equal(root?.remoteContext, ".");
  assert.equal(app?.remoteContext, "app");
  assert.deepEqual([...(app?.remoteContexts ?? [])].sort(), [
    ["lib", "../lib"],
    ["self", "."],
  ]);
  const [local] = plan({ url: "", hasFiles: false }, ["app"]).targets;
  assert.equal(local?.context, "app");
  assert.equal(local?.dockerfile, "app/Dockerfile");
  assert.equal(local?.remoteContexts.size, 0);
});

test("credentials of the definition's host go to contexts on it, by name only", () => {
  const env = { buildx_bake_git_auth_token: "hidden", BUILDX_BAKE_GIT_AUTH_HEADER: "hidden" };
  const result = plan({ url: "https://example.com/repo.git", hasFiles: true }, ["root", "here"], env);
  const [here, root] = result.targets;
  assert.deepEqual(root?.secrets, [
    { id: "GIT_AUTH_TOKEN.example.com", env: "buildx_bake_git_auth_token" },
    { id: "GIT_AUTH_HEADER.example.com", env: "BUILDX_BAKE_GIT_AUTH_HEADER" },
  ]);
  assert.deepEqual(here?.secrets, []);
  assert.doesNotMatch(result.print(), /hidden|auth/i);
});

test("files of this machine that a remote definition names must be granted", () => {
  const outside = `target "default" {
    context = "app"
    dockerfile = "cwd://../../etc/Dockerfile"
  }`;
  const outcome = readBake(
    [{ name: "docker-bake.hcl", data: new TextEncoder().encode(outside) }],
    memoryHost({}),
    { remote: { url: "https://example.com/repo.git", hasFiles: true } },
  );
  assert.ok(outcome.ok);
  assert.deepEqual(outcome.value.entitlementPrompt?.flags, ["--allow=fs.read=/"]);
});
