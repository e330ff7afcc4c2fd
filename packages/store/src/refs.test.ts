import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, test } from "node:test";
import { gunzipSync } from "node:zlib";
import { tarEntries } from "@kiln/archive";
import { chainId, isLocked } from "./index.ts";
import { ctx, digestOf, layerOf, StoreFixture, treeOf, write } from "./testing/store-fixture.ts";

const root = process.geteuid?.() === 0;

for (const snapshotter of ["overlayfs", "native"] as const) {
  describe(`refs on ${snapshotter}`, { skip: !root }, () => {
    const open = (): Promise<StoreFixture> => StoreFixture.open({ snapshotter });

    test("layers are lazy until they are mounted", async () => {
      await using t = await open();
      const one = await layerOf({ name: "etc/", type: "dir", mode: 0o711 }, { name: "etc/a", content: "1" });
      const two = await layerOf({ name: "etc/b", content: "2" }, { name: "etc/.wh.a" });
      await using base = await t.pull(one);
      await using top = await t.pull(two, base);
      assert.equal(top.chainId, chainId(one.diffId, two.diffId));
      assert.equal(top.isExtracted(), false);
      const remote = await top.toRemote({ compression: { type: "gzip" }, ctx });
      assert.deepEqual(
        remote?.descriptors.map((desc) => desc.digest),
        [one.desc.digest, two.desc.digest],
      );
      assert.equal(remote?.descriptors[1]?.annotations?.["containerd.io/uncompressed"], two.diffId);
      assert.equal(remote?.layers[0]?.lazy, true);
      assert.deepEqual(t.fetched, []);
      const progress: string[] = [];
      await Promise.all([
        top.extract({ ...ctx, onProgress: (p) => progress.push(`${p.action} ${p.done}`) }),
        top.extract(ctx),
        base.extract(ctx),
      ]);
      assert.deepEqual([...t.fetched].sort(), [one.desc.digest, two.desc.digest].sort());
      assert.ok(progress.includes("extracting true"));
      assert.deepEqual(await treeOf(top), { "etc/": "", "etc/b": "2" });
      assert.deepEqual(await treeOf(base), { "etc/": "", "etc/a": "1" });
      {
        await using mounted = await top.mount(true, ctx);
        if (snapshotter === "overlayfs") assert.equal(mounted.mounts[0]?.type, "overlay");
      }
      await using again = await t.pull(two, base);
      assert.equal(again.id, top.id);
      const dir = statSync(
        join(t.root, "snapshots", snapshotter, snapshotter === "overlayfs" ? "2/fs/etc" : "2/etc"),
      );
      assert.equal(dir.mode & 0o777, 0o711);
    });

    test("a layer that isn't what it says is refused and not kept", async () => {
      await using t = await open();
      const good = await layerOf({ name: "a", content: "1" });
      const other = await layerOf({ name: "b", content: "2" });
      await using lie = await t.pull({ ...good, diffId: other.diffId });
      await assert.rejects(lie.extract(ctx), { code: "data_loss" });
      assert.equal(lie.isExtracted(), false);
      assert.equal(t.store.content.has(good.desc.digest), false);
      assert.deepEqual([...t.store.snapshotter.walk()], []);
      await using swapped = await t.pull(other);
      t.blobs.set(other.desc.digest, good.bytes);
      await assert.rejects(swapped.extract(ctx), /unexpected/);
      t.blobs.set(other.desc.digest, other.bytes);
      await swapped.extract(ctx);
      await assert.rejects(
        t.store.refs.getByBlob({ ...good.desc, digest: other.diffId }, undefined, {
          diffId: other.diffId.replace(/.$/, "0") as never,
        }),
        {
          code: "not_found",
        },
      );
    });

    test("a large layer is unpacked while it comes", async () => {
      await using t = await open();
      const content = randomBytes(2_000_000).toString("base64");
      const layer = await layerOf({ name: "a", content });
      await using base = await t.pull(layer);
      await base.extract(ctx);
      assert.equal((await treeOf(base)).a, content);
      assert.equal(t.store.content.has(layer.desc.digest), true);
      const other = await layerOf({ name: "b", content });
      await using cut = await t.pull(other);
      t.blobs.set(other.desc.digest, other.bytes.subarray(0, 1_500_000));
      await assert.rejects(cut.extract(ctx), /unexpected size/);
      const flipped = Buffer.from(other.bytes);
      flipped[1_400_000] = (flipped[1_400_000] as number) ^ 1;
      t.blobs.set(other.desc.digest, flipped);
      await assert.rejects(cut.extract(ctx), { code: "data_loss" });
      assert.equal(t.store.content.has(other.desc.digest), false);
      t.blobs.set(other.desc.digest, other.bytes);
      await cut.extract(ctx);
      assert.equal((await treeOf(cut)).b, content);
      assert.equal([...t.store.snapshotter.walk()].length, 2);
    });

    test("a blob damaged on disk is fetched again", async () => {
      await using t = await open();
      const layer = await layerOf({ name: "a", content: "1".repeat(1000) });
      await t.store.content.write(layer.bytes);
      const path = t.store.content.path(layer.desc.digest);
      const bytes = readFileSync(path);
      bytes[40] = (bytes[40] as number) ^ 1;
      writeFileSync(path, bytes);
      await using ref = await t.pull(layer);
      await ref.extract(ctx);
      assert.deepEqual(t.fetched, [layer.desc.digest]);
      assert.deepEqual(Object.keys(await treeOf(ref)), ["a"]);
    });

    test("mutable refs: writing, committing, giving up", async () => {
      await using t = await open();
      await using base = await t.build(undefined, (dir) => {
        mkdirSync(join(dir, "d"));
        writeFileSync(join(dir, "d/x"), "1");
      });
      await using next = await t.build(base, (dir) => {
        rmSync(join(dir, "d/x"));
        writeFileSync(join(dir, "y"), "2");
      });
      assert.deepEqual(await treeOf(next), { "d/": "", y: "2" });
      const dropped = await t.store.refs.newMutable(next, { description: "mount / from exec x" });
      await write(dropped, (dir) => writeFileSync(join(dir, "z"), ""));
      const { id } = dropped;
      await dropped.release();
      await dropped.release();
      assert.throws(() => t.store.refs.get(id), { code: "not_found" });
      assert.equal(t.store.snapshotter.exists(id), false);
      await using parent = next.parent();
      assert.equal(parent?.id, base.id);
      await assert.rejects(async () => next.mount(false, ctx), { code: "invalid_argument" });
    });

    test("a retained tree is taken back, changed and committed again", async () => {
      await using t = await open();
      const { refs } = t.store;
      const local = await refs.newMutable(undefined, { cachePolicy: "retain", recordType: "source.local" });
      local.metadata.setString("local.sharedKey", "k", "local.sharedKey:k");
      await write(local, (dir) => writeFileSync(join(dir, "a"), "1"));
      const first = await local.commit();
      assert.deepEqual(refs.search("local.sharedKey:k"), [local.id]);
      await assert.rejects(refs.getMutable(local.id), isLocked);
      assert.deepEqual(await treeOf(first), { a: "1" });
      assert.deepEqual(
        (await refs.diskUsage()).map((info) => [info.id, info.inUse]),
        [[first.id, true]],
      );
      await first.release();
      assert.deepEqual(
        (await refs.diskUsage()).map((info) => info.id),
        [local.id],
      );
      const taken = await refs.getMutable(local.id);
      assert.throws(() => refs.get(first.id), { code: "not_found" });
      await assert.rejects(refs.getMutable(local.id), isLocked);
      await write(taken, (dir) => writeFileSync(join(dir, "b"), "2"));
      await using second = await taken.commit();
      await using child = await t.build(second, (dir) => writeFileSync(join(dir, "c"), "3"));
      assert.deepEqual(await treeOf(child), { a: "1", b: "2", c: "3" });
      await assert.rejects(refs.getMutable(local.id), { code: "not_found" });
      assert.deepEqual(refs.search("local.sharedKey:k"), []);
    });

    test("trees become blobs, once, and are converted", async () => {
      await using t = await open();
      await using base = await t.build(undefined, (dir) => writeFileSync(join(dir, "a"), "1"));
      await using top = await t.build(base, (dir) => {
        rmSync(join(dir, "a"));
        writeFileSync(join(dir, "b"), "2".repeat(100));
      });
      assert.equal(
        await top.toRemote({ compression: { type: "gzip" }, ctx, createIfNeeded: false }),
        undefined,
      );
      const [one, two] = await Promise.all(
        [0, 1].map(() => top.toRemote({ compression: { type: "gzip" }, ctx })),
      );
      assert.deepEqual(one, two);
      const names: string[] = [];
      for (const desc of one?.descriptors ?? []) {
        const tar = gunzipSync(await t.store.content.readAll(desc.digest));
        for await (const { header } of tarEntries([tar])) names.push(header.name);
      }
      assert.deepEqual(names, ["a", ".wh.a", "b"]);
      assert.ok(top.chainId && top.blobChainId);
      const zstd = await top.toRemote({ compression: { type: "zstd", force: true }, ctx });
      assert.deepEqual(
        zstd?.descriptors.map((desc) => desc.mediaType),
        Array(2).fill("application/vnd.oci.image.layer.v1.tar+zstd"),
      );
      const docker = await top.toRemote({ compression: { type: "gzip", force: true, ociTypes: false }, ctx });
      assert.equal(docker?.descriptors[0]?.mediaType, "application/vnd.docker.image.rootfs.diff.tar.gzip");
      assert.deepEqual(
        docker.descriptors.map((desc) => desc.digest),
        one?.descriptors.map((desc) => desc.digest),
      );
      assert.equal(top.availableRemotes().length, 2);
      const stargz = await top.toRemote({ compression: { type: "estargz", force: true }, ctx });
      for (const [i, desc] of (stargz?.descriptors ?? []).entries()) {
        assert.equal(desc.mediaType, "application/vnd.oci.image.layer.v1.tar+gzip");
        assert.ok(desc.annotations?.["containerd.io/snapshot/stargz/toc.digest"]);
        const { diffId } = stargz?.layers[i] ?? {};
        assert.equal(desc.annotations["containerd.io/uncompressed"], diffId);
        assert.equal(diffId, digestOf(gunzipSync(await t.store.content.readAll(desc.digest))));
        assert.notEqual(diffId, one?.layers[i]?.diffId);
      }
      assert.equal(top.availableRemotes().length, 3);
      await t.store.content.delete(one?.descriptors[0]?.digest ?? "");
      const anew = await top.toRemote({ compression: { type: "gzip" }, ctx });
      assert.equal(anew?.descriptors[0]?.digest, one?.descriptors[0]?.digest);
    });

    test("merges and diffs", async () => {
      await using t = await open();
      const { refs } = t.store;
      await using base = await t.build(undefined, (dir) => {
        mkdirSync(join(dir, "d/e"), { recursive: true });
        for (const name of ["a", "d/x", "d/e/y"]) writeFileSync(join(dir, name), "base");
      });
      await using changed = await t.build(base, (dir) => {
        rmSync(join(dir, "d/x"));
        writeFileSync(join(dir, "d/new"), "changed");
        rmSync(join(dir, "a"));
        mkdirSync(join(dir, "a"));
        writeFileSync(join(dir, "a/f"), "changed");
      });
      await using more = await t.build(changed, (dir) => writeFileSync(join(dir, "more"), "more"));
      await using other = await t.build(undefined, (dir) => {
        mkdirSync(join(dir, "d"));
        writeFileSync(join(dir, "d/x"), "other");
        writeFileSync(join(dir, "o"), "other");
      });
      await using diff = await refs.diff(base, changed, {});
      assert.deepEqual(await treeOf(diff), { "a/": "", "a/f": "changed", "d/": "", "d/new": "changed" });
      assert.deepEqual(
        diff.layers().map((layer) => layer.id),
        [changed.id],
      );
      await using both = await refs.diff(base, more, {});
      assert.deepEqual(Object.keys(await treeOf(both)), ["a/", "a/f", "d/", "d/new", "more"]);
      await using merged = await refs.merge([other, diff], {});
      assert.deepEqual(await treeOf(merged), {
        "a/": "",
        "a/f": "changed",
        "d/": "",
        "d/new": "changed",
        o: "other",
      });
      await using over = await refs.merge([more, other], { description: "merge" });
      assert.deepEqual(await treeOf(over), {
        "a/": "",
        "a/f": "changed",
        "d/": "",
        "d/e/": "",
        "d/e/y": "base",
        "d/new": "changed",
        "d/x": "other",
        more: "more",
        o: "other",
      });
      await using flat = await refs.merge([over, base], {});
      assert.equal(
        (await flat.toRemote({ compression: { type: "uncompressed" }, ctx }))?.descriptors.length,
        5,
      );
      await using on = await t.build(flat, (dir) => writeFileSync(join(dir, "top"), ""));
      assert.equal(
        (await on.toRemote({ compression: { type: "uncompressed" }, ctx }))?.descriptors.length,
        6,
      );
      assert.equal((await treeOf(on)).a, "base");
      await using arbitrary = await refs.diff(other, base, {});
      assert.deepEqual(await treeOf(arbitrary), {
        a: "base",
        "d/": "",
        "d/e/": "",
        "d/e/y": "base",
        "d/x": "base",
      });
      const blob = await arbitrary.toRemote({ compression: { type: "gzip" }, ctx });
      const tar = gunzipSync(await t.store.content.readAll(blob?.descriptors[0]?.digest ?? ""));
      const names: string[] = [];
      for await (const { header } of tarEntries([tar])) names.push(header.name);
      assert.deepEqual(names, ["a", "d/", "d/e/", "d/e/y", "d/x", ".wh.o"]);
      await using deletes = await refs.diff(more, undefined, {});
      assert.deepEqual(await treeOf(deletes), {});
    });

    test("the state survives a restart; what was lost is rebuilt or forgotten", async () => {
      await using t = await open();
      const layer = await layerOf({ name: "a", content: "1" });
      const base = await t.pull(layer);
      await base.extract(ctx);
      const top = await t.build(base, (dir) => writeFileSync(join(dir, "b"), "2"));
      top.metadata.setBytes("sums", Uint8Array.of(1, 2));
      const cache = await t.store.refs.newMutable(undefined, {
        cachePolicy: "retain",
        recordType: "exec.cachemount",
      });
      await write(cache, (dir) => writeFileSync(join(dir, "c"), "3"));
      await cache.release();
      const left = await t.store.refs.newMutable(top, {});
      await top.release();
      await t.reopen({ snapshotter });
      const { refs } = t.store;
      {
        await using again = refs.get(top.id);
        assert.deepEqual(await treeOf(again), { a: "1", b: "2" });
        assert.equal(again.usageCount, 1);
        assert.deepEqual(Buffer.from(again.metadata.getBytes("sums") ?? []), Buffer.of(1, 2));
        await using mutable = await refs.getMutable(cache.id);
        assert.deepEqual(await treeOf(mutable), { c: "3" });
      }
      assert.throws(() => refs.get(left.id), { code: "not_found" });
      rmSync(join(t.root, "snapshots"), { recursive: true });
      await t.reopen({ snapshotter });
      assert.throws(() => t.store.refs.get(top.id), { code: "not_found" });
      await using lazy = t.store.refs.get(base.id);
      assert.equal(lazy.isExtracted(), false);
      assert.deepEqual(await treeOf(lazy), { a: "1" });
    });

    test("a damaged database is put aside", async () => {
      await using t = await open();
      await using ref = await t.build(undefined, () => undefined);
      await t.store[Symbol.asyncDispose]();
      writeFileSync(join(t.root, "kiln.db"), "x".repeat(5000));
      await t.reopen({ snapshotter });
      assert.match(t.warnings.join(), /database was damaged/);
      assert.throws(() => t.store.refs.get(ref.id), { code: "not_found" });
      assert.deepEqual([...t.store.snapshotter.walk()], []);
    });

    test("nobody mounts a writable tree twice; work is shared and cancelled", async () => {
      await using t = await open();
      const layer = await layerOf({ name: "a", content: "1" });
      await using base = await t.pull(layer);
      const mutable = await t.store.refs.newMutable(base, {});
      await using one = await mutable.mount(false, ctx);
      await using two = await mutable.mount(false, ctx);
      assert.deepEqual(one.mounts, two.mounts);
      await using reader = await mutable.mount(true, ctx);
      assert.equal(reader.mounts[0]?.options.includes("ro"), true);
      if (snapshotter === "overlayfs") assert.equal(reader.mounts[0].source, one.mounts[0]?.source);
      await reader.release();
      if (snapshotter === "overlayfs") await assert.rejects(mutable.commit(), /still mounted/);
      await one.release();
      await two.release();
      await mutable.release();
      const other = await layerOf({ name: "b", content: "1" });
      await using ref = await t.pull(other, base);
      const controller = new AbortController();
      t.blobs.delete(other.desc.digest);
      const provider = async (): Promise<AsyncIterable<Uint8Array>> => {
        controller.abort(new Error("gave up"));
        await new Promise((resolve) => setTimeout(resolve, 20));
        return (async function* () {
          yield other.bytes;
        })();
      };
      await using _same = await t.store.refs.getByBlob(other.desc, base, { diffId: other.diffId, provider });
      const [gone, kept] = await Promise.allSettled([
        ref.extract({ signal: controller.signal }),
        ref.extract(ctx),
      ]);
      assert.equal(gone.status, "rejected");
      assert.equal(kept.status, "fulfilled");
    });
  });
}
