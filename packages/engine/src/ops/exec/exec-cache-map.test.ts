import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { describe, it } from "node:test";
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import {
  CacheSharingOpt,
  type ExecOp,
  ExecOpSchema,
  MountContentCache,
  MountType,
  NetMode,
  PlatformSchema,
  SecurityMode,
} from "@kiln/api/pb";
import { isBuildError } from "@kiln/base";
import { execCacheDigest, execDeps } from "./exec-cache-map.ts";

function execOp(init: MessageInitShape<typeof ExecOpSchema>): ExecOp {
  return create(ExecOpSchema, init);
}

const ROOT = { input: 0n, dest: "/", output: 0n };
const LINUX = create(PlatformSchema, { OS: "linux", Architecture: "amd64" });

function sha256(text: string): string {
  return `sha256:${createHash("sha256").update(text).digest("hex")}`;
}

const EVERYTHING = {
  meta: {
    args: ["/bin/sh", "-c", "echo <a> && é\u2028"],
    env: ["A=b"],
    cwd: "/w",
    user: "u",
    extraHosts: [{ Host: "h", IP: "1.2.3.4" }],
    hostname: "hn",
    ulimit: [{ Name: "nofile", Soft: 1n, Hard: 2n }],
    cgroupParent: "cg",
    removeMountStubsRecursive: true,
    validExitCodes: [0, 3],
    proxyEnv: { httpProxy: "http://proxy" },
  },
  mounts: [
    { ...ROOT, selector: "/sub" },
    {
      input: -1n,
      dest: "/c",
      output: -1n,
      mountType: MountType.CACHE,
      cacheOpt: { ID: "cache", sharing: CacheSharingOpt.LOCKED },
    },
    { input: -1n, dest: "/d", output: -1n, mountType: MountType.CACHE, cacheOpt: { ID: "/d" } },
    { input: -1n, dest: "/t", output: -1n, mountType: MountType.TMPFS, TmpfsOpt: { size: 64n } },
    {
      input: -1n,
      dest: "/s",
      output: -1n,
      mountType: MountType.SECRET,
      secretOpt: { ID: "x", uid: 1, gid: 2, mode: 0o400, optional: true },
    },
    {
      input: -1n,
      dest: "/ssh",
      output: -1n,
      mountType: MountType.SSH,
      SSHOpt: { ID: "x", uid: 1, gid: 2, mode: 0o400, optional: true },
    },
    {
      input: 1n,
      dest: "/b",
      output: -1n,
      readonly: true,
      resultID: "r",
      contentCache: MountContentCache.ON,
    },
  ],
  network: NetMode.HOST,
  security: SecurityMode.INSECURE,
  secretenv: [{ ID: "i", name: "n", optional: true }],
  cdiDevices: [{ name: "d", optional: true }],
};

describe("execCacheDigest", () => {
  it("is the digest of the text that Go's encoding/json makes", () => {
    const platform = create(PlatformSchema, {
      OS: "linux",
      Architecture: "arm",
      Variant: "v7",
      OSVersion: "1.2",
      OSFeatures: ["f"],
    });
    const digest = execCacheDigest(execOp(EVERYTHING), platform);
    // json.Marshal of BuildKit's own struct with these values
    assert.equal(digest, "sha256:4572960275235bcd3042534da443fd7e2dd1d0976f71dbac9ec27901425ef8ea");
  });

  it("leaves the mount of a plain root out", () => {
    const digest = execCacheDigest(execOp({ meta: { args: ["true"], cwd: "/" }, mounts: [ROOT] }), LINUX);
    const text =
      '{"Type":"buildkit.exec.v0","Exec":{"meta":{"args":["true"],"cwd":"/"}},"OS":"linux","Arch":"amd64"}';
    assert.equal(digest, sha256(text));
  });

  it("depends on every part of the operation that is no input", () => {
    const base = { meta: { args: ["a"], cwd: "/" }, mounts: [ROOT] };
    const variants = [
      base,
      { ...base, meta: { ...base.meta, args: ["b"] } },
      { ...base, meta: { ...base.meta, env: ["A=1"] } },
      { ...base, meta: { ...base.meta, cwd: "/x" } },
      { ...base, meta: { ...base.meta, user: "u" } },
      { ...base, meta: { ...base.meta, hostname: "h" } },
      { ...base, network: NetMode.NONE },
      { ...base, security: SecurityMode.INSECURE },
      { ...base, mounts: [{ ...ROOT, readonly: true }] },
      { ...base, mounts: [ROOT, { input: -1n, dest: "/t", output: -1n, mountType: MountType.TMPFS }] },
    ];
    const digests = new Set(variants.map((variant) => execCacheDigest(execOp(variant), LINUX)));
    assert.equal(digests.size, variants.length);
  });

  it("keeps the id of a default cache mount with a namespace", () => {
    const withId = (ID: string) =>
      execCacheDigest(
        execOp({
          meta: { args: ["a"] },
          mounts: [ROOT, { input: -1n, dest: "/c", output: -1n, mountType: 3, cacheOpt: { ID } }],
        }),
        LINUX,
      );
    assert.notEqual(withId("/c"), withId("ns//c"));
    assert.equal(withId("one"), withId("two"));
  });
});

describe("execDeps", () => {
  const op = (...mounts: MessageInitShape<typeof ExecOpSchema>["mounts"] & object) =>
    execOp({ meta: { args: ["a"] }, mounts });

  it("has no content key for the root, and one for what can't get into the result", () => {
    const deps = execDeps(
      op(
        ROOT,
        { input: 1n, dest: "/ro", output: 1n, selector: "a", readonly: true },
        { input: 2n, dest: "/none", output: -1n, selector: "a/b" },
        { input: 3n, dest: "/rw", output: 2n, selector: "a" },
        { input: 4n, dest: "/whole", output: 3n },
      ),
      5,
    );
    const paths = deps.map(({ selectors }) => selectors?.map(({ path }) => path));
    assert.deepEqual(paths, [undefined, ["/a"], ["/a/b"], undefined, []]);
    assert.equal(deps[2]?.selector, sha256("/a/b"));
  });

  it("hashes all paths that are seen of an input, and covers the outermost ones", () => {
    const [dep] = execDeps(
      op(
        { input: 0n, dest: "/x", output: -1n, selector: "b/c" },
        { input: 0n, dest: "/y", output: -1n, selector: "b" },
        { input: 0n, dest: "/z", output: -1n, selector: "a" },
      ),
      1,
    );
    assert.deepEqual(
      dep?.selectors?.map(({ path }) => path),
      ["/a", "/b"],
    );
    assert.equal(dep?.selector, sha256("/b/c\0/b\0/a"));
  });

  it("refuses an unsafe content key and unknown inputs", () => {
    const unsafe = { input: 0n, dest: "/x", output: 0n, selector: "a", contentCache: MountContentCache.ON };
    assert.throws(
      () => execDeps(op(unsafe), 1),
      (e) => isBuildError(e, "invalid_argument"),
    );
    for (const input of [-2n, 1n, 1n << 40n]) {
      assert.throws(
        () => execDeps(op({ input, dest: "/x", output: -1n }), 1),
        (e) => isBuildError(e, "invalid_argument"),
      );
    }
  });
});
