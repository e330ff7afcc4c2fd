import assert from "node:assert/strict";
import { test } from "node:test";
import { ctx, layerOf, StoreFixture, treeOf } from "./testing/store-fixture.ts";

const skip = process.geteuid?.() === 0 ? false : "needs root";

test("whiteouts of a layer with nothing below it leave their directory, and no devices", {
  skip,
}, async () => {
  await using t = await StoreFixture.open();
  const layer = await layerOf({ name: "etc/b", content: "2" }, { name: "etc/.wh.a" }, { name: "gone/.wh.x" });
  await using lowest = await t.pull(layer);
  await lowest.extract(ctx);
  assert.deepEqual(await treeOf(lowest), { "etc/": "", "etc/b": "2", "gone/": "" });
});

test("the difference of a deletion has the directory that it was in", { skip }, async () => {
  await using t = await StoreFixture.open();
  await using base = await t.pull(await layerOf({ name: "etc/a", content: "1" }));
  await using top = await t.pull(await layerOf({ name: "etc/.wh.a" }), base);
  await using diff = await t.store.refs.diff(base, top, { description: "diff" });
  await diff.extract(ctx);
  assert.deepEqual(await treeOf(diff), { "etc/": "" });
});
