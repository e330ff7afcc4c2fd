import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { type ImmutableRef, keepBytes, type PruneOptions, parseFilters, sortForDeletion } from "./index.ts";
import { ctx, layerOf, StoreFixture } from "./testing/store-fixture.ts";

const root = process.geteuid?.() === 0;

test("filters", () => {
  const fields: Record<string, string> = { id: "x", description: "pulled from a,b", mutable: "" };
  const passes = (...texts: string[]): boolean => parseFilters(texts)(([field]) => fields[field ?? ""]);
  assert.equal(passes(), true);
  assert.equal(passes(""), true);
  assert.equal(passes("id==x"), true);
  assert.equal(passes("id==y", "mutable"), true);
  assert.equal(passes("id==x,immutable"), false);
  assert.equal(passes("id!=y, mutable"), true);
  assert.equal(passes('description=="pulled from a,b"'), true);
  assert.equal(passes("description~=^pulled"), true);
  assert.equal(passes("description~=/a,b$/"), true);
  assert.equal(passes("none!=y"), true);
  assert.equal(passes('"id"=="x"'), true);
  for (const bad of ["id==", "==x", "id==x,", "id~=(", 'id=="x', "id==x y"]) {
    assert.throws(() => parseFilters([bad]), { code: "invalid_argument" }, bad);
  }
});

test("how much a rule keeps", () => {
  const keep = (rule: PruneOptions, free = 0): number => keepBytes(rule, 100, () => free);
  assert.equal(keep({}), 0);
  assert.equal(keep({ maxUsedSpace: 60 }), 60);
  assert.equal(keep({ minFreeSpace: 30 }, 10), 80);
  assert.equal(keep({ minFreeSpace: 30 }, 40), 100);
  assert.equal(keep({ maxUsedSpace: 60, minFreeSpace: 30 }, 10), 60);
  assert.equal(keep({ maxUsedSpace: 90, minFreeSpace: 30 }, 10), 80);
  assert.equal(keep({ reservedSpace: 70, minFreeSpace: 90 }, 10), 70);
});

test("the least valuable goes first", () => {
  const records = [
    { id: "often", lastUsedAt: 10, usageCount: 9 },
    { id: "new", lastUsedAt: 30, usageCount: 1 },
    { id: "never", lastUsedAt: undefined, usageCount: 0 },
    { id: "old", lastUsedAt: 5, usageCount: 1 },
  ];
  assert.deepEqual(
    sortForDeletion(records).map((record) => record.id),
    ["never", "old", "new", "often"],
  );
});

async function chainOf(t: StoreFixture, count: number): Promise<ImmutableRef[]> {
  const chain: ImmutableRef[] = [];
  for (let i = 0; i < count; i++) {
    chain.push(
      await t.build(chain.at(-1), (dir) => writeFileSync(join(dir, `f${i}`), Buffer.alloc(100_000, i))),
    );
  }
  return chain;
}

test("what is held stays, with everything below it", { skip: !root }, async () => {
  await using t = await StoreFixture.open({ snapshotter: "native" });
  const { refs } = t.store;
  const [a, b, c] = (await chainOf(t, 3)) as [ImmutableRef, ImmutableRef, ImmutableRef];
  await a.release();
  await c.release();
  const usage = new Map((await refs.diskUsage()).map((info) => [info.id, info]));
  assert.deepEqual(
    [a, b, c].map((ref) => usage.get(ref.id)?.inUse),
    [true, true, false],
  );
  const removed: string[] = [];
  using _listener = refs.onRemoved((id) => removed.push(id));
  const reported: string[] = [];
  await refs.prune([{ all: true }], (info) => reported.push(info.id));
  assert.deepEqual([removed, reported], [[c.id], [c.id]]);
  await b.release();
  await refs.enforce([{ all: true }]);
  assert.deepEqual(await refs.diskUsage(), []);
  assert.deepEqual([...t.store.snapshotter.walk()], []);
});

test("rules: types, filters, age, size, sharing", { skip: !root }, async () => {
  await using t = await StoreFixture.open({ isShared: (_, digests) => digests.includes("shared") });
  const { refs } = t.store;
  const make = async (recordType: "internal" | "regular" | "source.local"): Promise<string> => {
    const mutable = await refs.newMutable(undefined, { recordType, description: `a ${recordType}` });
    const ref = await mutable.commit();
    await ref.release();
    return ref.id;
  };
  const ids = [await make("internal"), await make("regular"), await make("source.local")];
  const left = async (): Promise<number[]> =>
    (await refs.diskUsage()).map((info) => ids.indexOf(info.id)).sort();
  await refs.prune([{ filters: ["type==source.local,immutable"] }]);
  assert.deepEqual(await left(), [0, 1]);
  await refs.prune([{ keepDurationMs: 60_000 }]);
  assert.deepEqual(await left(), [0, 1]);
  assert.equal((await refs.diskUsage({ ageLimitMs: 60_000 })).length, 0);
  t.now += 120_000;
  await refs.prune([{ keepDurationMs: 60_000 }]);
  assert.deepEqual(await left(), [0]);
  await refs.prune([{ all: true }]);
  assert.deepEqual(await left(), []);
  const chain = await chainOf(t, 5);
  for (const ref of chain) await ref.release();
  const total = (await refs.diskUsage()).reduce((sum, info) => sum + info.sizeBytes, 0);
  await refs.prune([{ maxUsedSpace: total / 2 }]);
  const kept = (await refs.diskUsage()).map((info) => info.id);
  assert.deepEqual(
    kept,
    chain.slice(0, 2).map((ref) => ref.id),
  );
  await assert.rejects(refs.prune([{ filters: ["=="] }]), { code: "invalid_argument" });
});

test("blobs go with the last record and lease that names them", { skip: !root }, async () => {
  await using t = await StoreFixture.open();
  const { refs, content, leases } = t.store;
  const layer = await layerOf({ name: "a", content: "1" });
  const ref = await t.pull(layer);
  await ref.extract(ctx);
  leases.create("image");
  leases.add("image", { kind: "content", id: layer.desc.digest });
  await ref.release();
  await refs.prune([{ all: true }]);
  assert.equal(content.has(layer.desc.digest), true);
  leases.delete("image");
  const manifest = await content.write(Buffer.from("{}"));
  await refs.prune([{ all: true }]);
  assert.equal(content.has(manifest.digest), true);
  t.now += 2 * 60 * 60 * 1000;
  await refs.prune([{ all: true }]);
  assert.deepEqual([...content.walk()], []);
});
