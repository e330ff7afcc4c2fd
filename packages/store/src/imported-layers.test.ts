import assert from "node:assert/strict";
import { test } from "node:test";
import type { BlobProvider } from "./index.ts";
import { ctx, layerOf, StoreFixture, treeOf } from "./testing/store-fixture.ts";

const root = process.geteuid?.() === 0;

test("layers that only this process knows where to get", { skip: !root }, async () => {
  await using t = await StoreFixture.open({ snapshotter: "native" });
  const layer = await layerOf({ name: "a", content: "1" });
  const { digest } = layer.desc;
  const failing: BlobProvider = () => Promise.reject(new Error("token expired"));
  const working: BlobProvider = async () =>
    (async function* () {
      yield layer.bytes;
    })();
  let id: string;
  {
    const { refs } = t.store;
    await using ref = await refs.getByBlob(layer.desc, undefined, {
      diffId: layer.diffId,
      provider: failing,
    });
    id = ref.id;
    assert.equal(refs.isAvailable(id), true);
    assert.equal(refs.canHaveBlob(id, digest), true);
    assert.equal(refs.canHaveBlob(id, layer.diffId), false);
    await assert.rejects(refs.ensureBlob(id, digest, ctx), /token expired/);
    await assert.rejects(refs.ensureBlob(id, layer.diffId, ctx), { code: "not_found" });
    refs.refreshProvider(layer.diffId, working);
    assert.equal(refs.canHaveBlob(id, layer.diffId), false);
  }
  await t.reopen({ snapshotter: "native" });
  const { refs } = t.store;
  assert.equal(refs.isAvailable(id), false, "nobody knows it after a restart");
  assert.equal(refs.isAvailable("nothing"), false);
  await using again = await refs.getByBlob(layer.desc, undefined, {
    diffId: layer.diffId,
    provider: failing,
  });
  id = again.id;
  refs.refreshProvider(digest, working);
  await refs.ensureBlob(id, digest, ctx);
  assert.equal(t.store.content.has(digest), true);
  assert.deepEqual(await treeOf(again), { a: "1" });
  await using above = await refs.merge([again], {});
  assert.equal(refs.isAvailable(above.id), true);
});
