import assert from "node:assert/strict";
import { chmodSync, cpSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { CacheSharingOpt, type ExecOpSchema, MountType, OpSchema } from "@kiln/api/pb";
import { BuildError } from "@kiln/base";
import { createOciExecutor, type OciExecutor, startZygote, type Zygote } from "@kiln/executor";
import { makeBusyboxRoot } from "@kiln/executor/testing";
import { type ImmutableRef, type Mountable, openStore, type Store } from "@kiln/store";
import { localMount } from "@kiln/sys";
import { ContentHasher } from "../../content-hash/content-hasher.ts";
import type { LlbVertex, OpContext, OpResult } from "../../op-context.ts";
import { findOpFailure } from "../op-failure.ts";
import { ExecOperation, type ExecOpHost } from "./exec-op.ts";
import { createExecParts } from "./exec-parts.ts";

const SECRETS = new Map([["token", "s3cret"]]);

describe("ExecOperation", () => {
  let dir: string;
  let zygote: Zygote;
  let executor: OciExecutor;
  let store: Store;
  let base: ImmutableRef;
  let host: ExecOpHost;
  const hasher = new ContentHasher();

  before(async () => {
    dir = mkdtempSync(join(tmpdir(), "kiln-exec-op-"));
    zygote = startZygote();
    executor = await createOciExecutor({ root: join(dir, "executor"), zygote });
    const fetchBlob = () => Promise.reject(new Error("no blobs here"));
    store = await openStore({ root: join(dir, "store"), fetchBlob });
    const rootfs = mkdtempSync(join(dir, "rootfs-"));
    makeBusyboxRoot(rootfs);
    base = await commitTree((path) => cpSync(rootfs, path, { recursive: true, verbatimSymlinks: true }));
    const parts = createExecParts({
      refs: store.refs,
      env: {},
      clients: {
        secret: async (id) => {
          const value = SECRETS.get(id);
          if (value === undefined) throw new BuildError("not_found", `secret ${id}: not found`);
          return Buffer.from(value);
        },
        sshSocket: async ({ id }) => {
          throw new BuildError("unknown", `no SSH key "${id}" forwarded from the client`);
        },
      },
    });
    host = { ...parts, refs: store.refs, hasher, executor, acquire: async () => () => undefined };
  });
  after(async () => {
    await base.release();
    await executor[Symbol.asyncDispose]();
    await zygote[Symbol.asyncDispose]();
    await hasher[Symbol.asyncDispose]();
    await store[Symbol.asyncDispose]();
    rmSync(dir, { recursive: true });
  });

  const refContext = () => ({ signal: new AbortController().signal });

  async function commitTree(fill: (path: string) => void): Promise<ImmutableRef> {
    const tree = await store.refs.newMutable(undefined, { description: "test" });
    {
      await using mountable = await tree.mount(false, refContext());
      using mounted = localMount(mountable.mounts);
      fill(mounted.path);
      chmodSync(mounted.path, 0o755);
    }
    return await tree.commit();
  }

  async function mountOf(result: OpResult | undefined): Promise<Mountable> {
    assert.ok(result?.ref);
    return await result.ref.mount(true, refContext());
  }

  async function read(result: OpResult | undefined, path: string): Promise<string> {
    await using mountable = await mountOf(result);
    using mounted = localMount(mountable.mounts);
    return readFileSync(join(mounted.path, path), "utf8");
  }

  function context(signal = new AbortController().signal) {
    const output: string[] = [];
    const cleanups: (() => void | Promise<void>)[] = [];
    const ctx = {
      jobValues: () => [],
      signal,
      vertexDigest: "sha256:x",
      sessions: { ids: () => [] },
      cleanup: (fn: () => void | Promise<void>) => void cleanups.push(fn),
      progress: {
        status: () => undefined,
        warning: () => undefined,
        log: (stream: number, data: Uint8Array) => {
          output.push(`${stream}:${Buffer.from(data).toString()}`);
        },
      },
    } as unknown as OpContext;
    return { ctx, output, cleanups };
  }

  function operation(exec: MessageInitShape<typeof ExecOpSchema>, inputCount = 1): ExecOperation {
    const inputs = Array.from({ length: inputCount }, () => ({}));
    const op = create(OpSchema, {
      op: { case: "exec", value: { mounts: [ROOT], ...exec } as never },
      inputs,
    });
    const vertex = {
      digest: "sha256:x",
      inputs,
      name: "test",
      options: {},
      op: { op },
    } as unknown as LlbVertex;
    assert.equal(op.op.case, "exec");
    return new ExecOperation(op.op.value as never, { vertex, host });
  }

  const shell = (script: string, rest: object = {}) => ({
    args: ["sh", "-c", script],
    env: ["PATH=/bin"],
    cwd: "/",
    ...rest,
  });
  const ROOT = { input: 0n, dest: "/", output: 0n };

  it("commits what was written, and streams what was said", async () => {
    const { ctx, output } = context();
    const op = operation({ meta: shell("echo hello > /out; echo said; echo wrong >&2") });
    const [result] = await op.exec([{ ref: base }], ctx);
    assert.deepEqual(output.sort(), ["1:said\n", "2:wrong\n"]);
    assert.equal(await read(result, "out"), "hello\n");
    assert.match(await read(result, "etc/passwd"), /^root/);
    await result?.ref?.release();
  });

  it("numbers outputs by mount, and passes a read-only input through", async () => {
    const other = await commitTree((path) => cpSync("/etc/hostname", join(path, "file")));
    const { ctx } = context();
    const op = operation(
      {
        meta: shell("echo a > /rw/a; cat /ro/file > /copy; touch /gone/x"),
        mounts: [
          ROOT,
          { input: 1n, dest: "/ro", output: 1n, readonly: true },
          { input: -1n, dest: "/rw", output: 2n },
          { input: 1n, dest: "/gone", output: -1n },
        ],
      },
      2,
    );
    const results = await op.exec([{ ref: base }, { ref: other }], ctx);
    assert.equal(results.length, 3);
    assert.equal(results[1]?.ref?.id, other.id);
    assert.equal(await read(results[2], "a"), "a\n");
    assert.equal(await read(results[0], "copy"), await read({ ref: other }, "file"));
    for (const { ref } of results) await ref?.release();
    await other.release();
  });

  it("fails in BuildKit's words, with the exit code and the trees as they were", async () => {
    const { ctx, output, cleanups } = context();
    const op = operation({ meta: shell('echo left > /left; echo "bye"; exit 7') });
    const error = await op.exec([{ ref: base }], ctx).then(
      () => assert.fail("no error"),
      (reason: unknown) => reason,
    );
    assert.ok(error instanceof Error);
    assert.equal(
      error.message,
      'process "sh -c echo left > /left; echo \\"bye\\"; exit 7" did not complete successfully: exit code: 7',
    );
    const failure = findOpFailure(error);
    assert.equal(Buffer.from(failure?.wire[0]?.value ?? []).toString(), '{"Code":7}');
    assert.equal(failure?.wire[0]?.typeUrl, "github.com/moby/buildkit/gatewayapi.ExitMessage+json");
    assert.equal(failure?.state.inputs[0]?.ref?.id, base.id);
    assert.equal(await read(failure?.state.mounts[0], "left"), "left\n");
    assert.deepEqual(output, ["1:bye\n"]);
    for (const cleanup of cleanups) await cleanup();
    const tree = failure?.state.mounts[0]?.ref?.id ?? "";
    const usage = await store.refs.diskUsage();
    assert.equal(usage.find(({ id }) => id === tree)?.inUse ?? false, false);
  });

  it("takes other exit codes for a success when told so", async () => {
    const { ctx } = context();
    const op = operation({ meta: shell("exit 3", { validExitCodes: [0, 3] }) });
    const [result] = await op.exec([{ ref: base }], ctx);
    await result?.ref?.release();
  });

  it("gives secrets as files and variables, which stay out of the result", async () => {
    const { ctx, output } = context();
    const secret = (ID: string, optional = false) => ({
      input: -1n,
      dest: `/run/secrets/${ID}`,
      output: -1n,
      mountType: MountType.SECRET,
      secretOpt: { ID, mode: 0o400, optional },
    });
    const op = operation({
      meta: shell('cat /run/secrets/token; echo " $TOKEN $NONE."; ls /run/secrets', {
        proxyEnv: { httpProxy: "http://p" },
      }),
      mounts: [ROOT, secret("token"), secret("missing", true)],
      secretenv: [
        { ID: "token", name: "TOKEN" },
        { ID: "missing", name: "NONE", optional: true },
      ],
    });
    const [result] = await op.exec([{ ref: base }], ctx);
    assert.equal(output.map((line) => line.slice(2)).join(""), "s3cret s3cret .\ntoken\n");
    await using mountable = await mountOf(result);
    using mounted = localMount(mountable.mounts);
    assert.deepEqual(readdirSync(join(mounted.path, "run/secrets")), []);
    await result?.ref?.release();
    const missing = operation({ meta: shell("true"), mounts: [ROOT, secret("missing")] });
    await assert.rejects(missing.exec([{ ref: base }], ctx), /secret missing: not found/);
    const ssh = { input: -1n, dest: "/s", output: -1n, mountType: MountType.SSH, SSHOpt: { ID: "default" } };
    const noAgent = operation({ meta: shell("true"), mounts: [ROOT, ssh] });
    await assert.rejects(
      noAgent.exec([{ ref: base }], ctx),
      /no SSH key "default" forwarded from the client/,
    );
  });

  const cache = (ID: string, sharing: CacheSharingOpt, rest: object = {}) => ({
    input: -1n,
    dest: "/cache",
    output: -1n,
    mountType: MountType.CACHE,
    cacheOpt: { ID, sharing },
    ...rest,
  });

  async function runCached(script: string, mount: ReturnType<typeof cache>): Promise<string> {
    const { ctx, output } = context();
    const [result] = await operation({ meta: shell(script), mounts: [ROOT, mount] }, 2).exec(
      [{ ref: base }, { ref: base }],
      ctx,
    );
    await result?.ref?.release();
    return output.map((line) => line.slice(2)).join("");
  }

  it("keeps cache mounts between steps until they are pruned", async () => {
    const shared = cache("one", CacheSharingOpt.SHARED);
    await runCached("echo kept > /cache/file", shared);
    assert.equal(await runCached("cat /cache/file", shared), "kept\n");
    assert.equal(await runCached("ls /cache", cache("two", CacheSharingOpt.SHARED)), "");
    await host.pruneCacheMounts(new Map([["one", false]]));
    assert.equal(await runCached("ls /cache", shared), "");
    const based = cache("one", CacheSharingOpt.SHARED, { input: 1n });
    assert.match(await runCached("ls /cache", based), /bin/);
    const usage = await store.refs.diskUsage();
    const wanted = 'cached mount /cache from exec sh -c ls /cache with id "two"';
    assert.ok(usage.some(({ description }) => description === wanted));
  });

  it("shares a cache mount among steps that run at once, or keeps them apart", async () => {
    const meet =
      "touch /cache/$A; for i in 1 2 3 4 5 6 7 8 9 10; do test -e /cache/$B && break; sleep 0.1; done; ls /cache";
    const pair = (id: string, sharing: CacheSharingOpt): Promise<string[]> =>
      Promise.all([
        runCached(meet.replaceAll("$A", "a").replaceAll("$B", "b"), cache(id, sharing)),
        runCached(meet.replaceAll("$A", "b").replaceAll("$B", "a"), cache(id, sharing)),
      ]);
    assert.deepEqual(await pair("s", CacheSharingOpt.SHARED), ["a\nb\n", "a\nb\n"]);
    assert.deepEqual((await pair("p", CacheSharingOpt.PRIVATE)).sort(), ["a\n", "b\n"]);
    const locked = (await pair("l", CacheSharingOpt.LOCKED)).sort((x, y) => x.length - y.length);
    assert.deepEqual(locked.at(1), "a\nb\n");
    assert.equal(locked[0]?.length, 2);
  });

  it("gives up a locked cache mount's wait when it is cancelled", async () => {
    const controller = new AbortController();
    const slow = runCached("sleep 1", cache("busy", CacheSharingOpt.LOCKED));
    const { ctx } = context(controller.signal);
    setTimeout(() => controller.abort(), 300);
    const op = operation({ meta: shell("true"), mounts: [ROOT, cache("busy", CacheSharingOpt.LOCKED)] });
    await assert.rejects(op.exec([{ ref: base }], ctx), { name: "AbortError" });
    await slow;
  });

  it("refuses what makes no sense", async () => {
    const { ctx } = context();
    const bad = (mounts: object[], message: RegExp) =>
      assert.rejects(
        async () => operation({ meta: shell("true"), mounts: mounts as never }).exec([{ ref: base }], ctx),
        message,
      );
    await bad([{ ...ROOT, mountType: MountType.TMPFS }], /invalid mount type TMPFS for \//);
    await bad([{ ...ROOT, input: 5n }], /invalid input index 5/);
    await bad(
      [ROOT, { input: -1n, dest: "/x", output: -1n, mountType: MountType.SECRET }],
      /invalid secret mount options/,
    );
    await bad(
      [ROOT, { ...ROOT, dest: "/sel", output: -1n, selector: "nope", readonly: true }],
      /nope: no such file/,
    );
    assert.throws(
      () => operation({ meta: shell("true"), mounts: [ROOT], security: 2 as never }),
      /invalid security mode/,
    );
  });

  it("resolves relative destinations and keeps the root clean", async () => {
    const { ctx, output } = context();
    const mounts = [ROOT, { input: -1n, dest: "sub/t", output: -1n, mountType: MountType.TMPFS }];
    const op = operation({ meta: shell("grep -c ' /work/sub/t ' /proc/mounts", { cwd: "/work" }), mounts });
    const [result] = await op.exec([{ ref: base }], ctx);
    assert.deepEqual(output, ["1:1\n"]);
    await using mountable = await mountOf(result);
    using mounted = localMount(mountable.mounts);
    assert.deepEqual(readdirSync(join(mounted.path, "work/sub")), []);
    assert.ok(!existsSync(join(mounted.path, "etc/hosts")));
    await result?.ref?.release();
  });
});
