/**
 * Works on the store of argv[2] until it is killed: pulls, builds, merges, exports, prunes. Says every id
 * whose record it believes to be safe, one a line.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { localMount } from "@kiln/sys";
import { type ImmutableRef, isLocked, openStore } from "../index.ts";
import { ctx, layerOf } from "./store-fixture.ts";

const root = process.argv[2] as string;
const say = (line: string): void => void process.stdout.write(`${line}\n`);

const store = await openStore({
  root,
  fetchBlob: async (desc) =>
    (async function* () {
      yield readFileSync(join(root, "registry", desc.digest));
    })(),
});
const { refs } = store;

async function build(parent: ImmutableRef | undefined, text: string): Promise<ImmutableRef> {
  const mutable = await refs.newMutable(parent, { ctx });
  await using mounts = await mutable.mount(false, ctx);
  {
    using dir = localMount(mounts.mounts);
    writeFileSync(join(dir.path, `f-${text}`), text);
  }
  await mounts.release();
  return await mutable.commit();
}

async function syncLocal(text: string): Promise<void> {
  const known = refs.search("local")[0];
  try {
    const mutable = known
      ? await refs.getMutable(known)
      : await refs.newMutable(undefined, { cachePolicy: "retain" });
    mutable.metadata.setString("local", "1", "local");
    {
      await using mounts = await mutable.mount(false, ctx);
      using dir = localMount(mounts.mounts);
      writeFileSync(join(dir.path, "local"), text);
    }
    await (await mutable.commit()).release();
  } catch (error) {
    if (!isLocked(error)) throw error;
  }
}

say("open");
for (let i = 0; ; i++) {
  const text = `${process.pid}-${i}`;
  const layer = await layerOf({ name: "pulled", content: text });
  writeFileSync(join(root, "registry", layer.desc.digest), layer.bytes);
  await using base = await refs.getByBlob(layer.desc, undefined, { diffId: layer.diffId, remotes: ["r"] });
  await using one = await build(base, "one");
  await using two = await build(undefined, "two");
  await using merged = await refs.merge([one, two], {});
  await Promise.all([
    merged.toRemote({ compression: { type: "zstd", level: 1 }, ctx }),
    merged.extract(ctx),
    syncLocal(text),
  ]);
  say(merged.id);
  if (i % 5 === 4) await refs.prune([{ maxUsedSpace: 400_000 }]);
}
