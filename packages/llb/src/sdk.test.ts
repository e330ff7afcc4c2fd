import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { toJson } from "@bufbuild/protobuf";
import { OpMetadataSchema } from "@kiln/api/pb";
import { sha256 } from "@kiln/oci";
import {
  build,
  diff,
  type FileAction,
  git,
  gitFragment,
  http,
  image,
  imageBlob,
  local,
  merge,
  metadataMessage,
  ociLayout,
  ociLayoutBlob,
  passthrough,
  type RunOptions,
  type State,
  scratch,
} from "./index.ts";

/** What BuildKit v0.33.1's Go client makes of the same states. */
const recorded = JSON.parse(
  readFileSync(join(import.meta.dirname, "../testdata/go-client.json"), "utf8"),
) as Record<string, { ops: string[]; meta: Record<string, object> }>;

const EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const amd64 = { os: "linux", architecture: "amd64" };
const arm64 = { os: "linux", architecture: "arm64" };
const bytes = (text: string) => new TextEncoder().encode(text);
const img = image("alpine");

const fileActions: FileAction[] = [
  { kind: "mkdir", path: "d", mode: 0o1755, parents: true, owner: "u:g" },
  {
    kind: "mkfile",
    path: "/x",
    mode: 0o644,
    data: bytes("hi"),
    owner: { uid: 1, gid: 2 },
    timestamp: 5_000_000_007n,
  },
  { kind: "rm", path: "*.tmp", allowNotFound: true, allowWildcard: true },
  { kind: "symlink", target: "a", path: "/b", owner: "root", timestamp: 5_000_000_007n },
];
const files = img.setDir("/w").file(fileActions);

const run: RunOptions = {
  args: ["sh", "-c", "x"],
  mounts: [
    { target: "/z" },
    { target: "/m", source: files, readonly: true, selector: "/s" },
    { target: "/c", cache: { id: "id", sharing: "locked" } },
    { target: "/t", tmpfs: { size: 99 } },
    { target: "/n", source: img, noOutput: true, contentCache: "off" },
  ],
  secrets: [
    { id: "sid", target: "/run/s", uid: 1, gid: 2, mode: 0o444 },
    { id: "e", env: "E", optional: true },
  ],
  ssh: [{ id: "i" }, { target: "/sock", optional: true }],
  security: "insecure",
  proxyEnv: { httpProxy: "p", allProxy: "q" },
  ulimits: [{ name: "nofile", soft: 5, hard: -1 }],
  cgroupParent: "cg",
  validExitCodes: [0, 1, 300],
  devices: [{ name: "v/c=d", optional: true }],
  linuxResources: { memory: 7n },
  progressGroup: { id: "pg", name: "pn", weak: true },
  constraints: ["a==b"],
  description: { k: "v" },
};
const prepared = img
  .setEnv("A", "1")
  .setEnv("B", "2")
  .setEnv("A", "3")
  .setDir("/src")
  .setUser("me")
  .setHostname("h")
  .addHost("x", "1.2.3.4")
  .setNetwork("host");
const executed = prepared.run(run);

const copies: FileAction[] = [
  {
    kind: "copy",
    from: files,
    src: "rel",
    dest: "dst/.",
    mode: "u+x",
    followSymlinks: true,
    contentsOnly: true,
    attemptUnpack: true,
    createDestPath: true,
    allowWildcard: true,
    allowEmptyWildcard: true,
    includePatterns: ["i"],
    excludePatterns: ["e"],
    requiredPaths: ["r"],
    alwaysReplaceExistingDestPaths: true,
  },
  { kind: "copy", from: img, src: "/a/", dest: "/", mode: 0o755, owner: "n", timestamp: 5_000_000_007n },
  { kind: "copy", from: files, src: "/q", dest: "/z/" },
];

const states: Record<string, () => State> = {
  image: () => img,
  "image-opts": () =>
    image("docker.io/library/busybox:1", {
      resolveMode: "pull",
      recordType: "internal",
      platform: arm64,
      name: "n",
      ignoreCache: true,
      exportCache: true,
    }),
  "image-local": () => image("busybox", { resolveMode: "local", exportCache: false }),
  local: () =>
    local("ctx", {
      includePatterns: ["a", "<b>"],
      excludePatterns: ["é&"],
      followPaths: ["c"],
      sharedKeyHint: "k",
      differ: { type: "metadata", required: true },
    }),
  "local-session": () =>
    local("ctx", { sessionId: "s", metadataOnly: { except: ["x"] }, differ: { type: "none" } }),
  git: () =>
    gitFragment("https://github.com/moby/buildkit.git", "v1:sub/../dir", {
      keepGitDir: true,
      authTokenSecret: "tok",
    }),
  "git-short": () => git("github.com/moby/buildkit"),
  "git-ssh": () =>
    git("git@example.invalid:a/b.git", {
      ref: "main",
      knownSshHosts: "kk\n",
      sshSocket: "id",
      skipSubmodules: true,
      mtime: "commit",
      fetchByCommit: true,
      checksum: "abc",
    }),
  "git-bundle": () =>
    git("https://h/r.git", {
      bundle: { locator: "docker-image+blob://x@sha256:00", sessionId: "s", storeId: "t" },
      checkoutBundle: true,
    }),
  http: () =>
    http("https://example.com/a?b=c#d", {
      filename: "f",
      mode: 0o755,
      uid: 1,
      gid: 2,
      checksum: sha256("x"),
      authHeaderSecret: "h",
      header: { accept: "a", userAgent: "u" },
    }),
  oci: () =>
    ociLayout(`docker.io/library/x@sha256:${EMPTY}`, {
      store: { sessionId: "s", storeId: "t" },
      layerLimit: 3,
    }),
  blob: () => imageBlob(`alpine@sha256:${EMPTY}`, { filename: "x", mode: 0o600 }),
  ociblob: () => ociLayoutBlob(`alpine@sha256:${EMPTY}`, { store: { sessionId: "s", storeId: "t" } }),
  file: () => files,
  copy: () => scratch().file(copies),
  exec: () => executed.root,
  "exec-mount": () => executed.mount("/z"),
  "exec-ro": () => prepared.run({ args: ["x"], readonlyRoot: true, mounts: [{ target: "/o" }] }).mount("/o"),
  "exec-default": () => img.run({ args: ["x"] }).root,
  merge: () => merge([img, files, scratch(), executed.root], { name: "m" }),
  diff: () => diff(img, executed.root),
  "diff-empty": () => diff(img, scratch()),
  "diff-scratch": () => diff(scratch(), img),
  pass: () =>
    passthrough("p", [
      { state: img },
      { state: files, output: true },
      { state: scratch(), output: true },
    ])[0]!,
  build: () => build(img, { filename: "f.pb" }),
  build2: () => build(img),
  platform: () =>
    image("alpine")
      .setPlatform({ os: "linux", architecture: "aarch64", variant: "v8" })
      .run({ args: ["x"] }).root,
  scratch: () => scratch(),
  sourcemap: () =>
    img.run({
      args: ["x"],
      location: {
        map: { filename: "f", language: "L", data: bytes("data") },
        ranges: [{ start: { line: 1, character: 0 }, end: { line: 2, character: 3 } }],
      },
    }).root,
};

for (const [name, wanted] of Object.entries(recorded)) {
  test(`the same ops and metadata as BuildKit's Go client: ${name}`, () => {
    const definition = states[name]!().marshal({ platform: amd64, localUniqueId: "uniq" });
    const meta = Object.fromEntries(
      [...definition.metadata].map(([digest, own]) => [
        digest,
        toJson(OpMetadataSchema, metadataMessage(own)),
      ]),
    );
    assert.deepEqual(
      definition.def.map((op) => sha256(op)),
      wanted.ops,
    );
    assert.deepEqual(meta, wanted.meta);
  });
}
