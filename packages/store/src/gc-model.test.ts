import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import fc from "fast-check";
import type { ImmutableRef } from "./index.ts";
import { ctx, StoreFixture, treeOf } from "./testing/store-fixture.ts";

/** What a run of the model does. Numbers choose among the handles that are held. */
type Step =
  | {
      readonly kind: "build" | "merge" | "diff" | "blob" | "release";
      readonly at: number;
      readonly with: number;
    }
  | { readonly kind: "prune"; readonly at: number; readonly with: number };

const step: fc.Arbitrary<Step> = fc.record({
  kind: fc.constantFrom("build", "build", "merge", "diff", "blob", "release", "release", "prune"),
  at: fc.nat(100),
  with: fc.nat(100),
});

interface Held {
  readonly ref: ImmutableRef;
  /** Files that must be there. */
  readonly files: readonly string[];
}

const RULES = [{ all: true }, { maxUsedSpace: 1 }, { filters: ["type==regular"] }, { minFreeSpace: 2 ** 60 }];

async function play(t: StoreFixture, steps: readonly Step[]): Promise<Held[]> {
  const held: Held[] = [];
  let count = 0;
  for (const { kind, at, with: other } of steps) {
    const one = held[at % Math.max(held.length, 1)];
    const two = held[other % Math.max(held.length, 1)];
    if (kind === "build") {
      const name = `f${count++}`;
      const ref = await t.build(one?.ref, (dir) => writeFileSync(join(dir, name), name));
      held.push({ ref, files: [...(one?.files ?? []), name] });
    } else if (kind === "prune") {
      await t.store.refs.prune([RULES[at % RULES.length] ?? {}]);
    } else if (one && two && kind === "merge") {
      const ref = await t.store.refs.merge([one.ref, two.ref], {});
      held.push({ ref, files: [...new Set([...one.files, ...two.files])] });
    } else if (one && kind === "diff") {
      held.push({ ref: await t.store.refs.diff(undefined, one.ref, {}), files: one.files });
    } else if (one && kind === "blob") {
      await one.ref.toRemote({ compression: { type: "uncompressed" }, ctx });
    } else if (one && kind === "release") {
      held.splice(held.indexOf(one), 1);
      await one.ref.release();
    }
  }
  return held;
}

test("collection never takes what is held, and takes everything else", {
  skip: process.geteuid?.() !== 0,
}, async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 25 }), async (steps) => {
      await using t = await StoreFixture.open();
      const held = await play(t, steps);
      for (const { ref, files } of held) {
        assert.deepEqual(Object.keys(await treeOf(ref)).sort(), [...files].sort());
        await ref.toRemote({ compression: { type: "uncompressed" }, ctx });
      }
      for (const { ref } of held) await ref.release();
      await t.store.refs.prune([{ all: true }]);
      assert.deepEqual(await t.store.refs.diskUsage(), []);
      assert.deepEqual([...t.store.snapshotter.walk()], []);
      assert.deepEqual([...t.store.content.walk()], []);
    }),
    { numRuns: 12 },
  );
});
