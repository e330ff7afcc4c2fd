import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { test } from "node:test";
import { mountPoints } from "@kiln/sys";
import { openStore, type Store } from "./index.ts";
import { ctx, treeOf } from "./testing/store-fixture.ts";

const KILLS = 6;
const child = join(import.meta.dirname, "testing", "crash-child.ts");

/** Runs the child until it has said `open`, then kills it after a while; what it said. */
async function runAndKill(root: string, afterMs: number): Promise<string[]> {
  const proc = spawn(process.execPath, [child, root], { stdio: ["ignore", "pipe", "inherit"] });
  const said: string[] = [];
  let kill: NodeJS.Timeout | undefined;
  createInterface(proc.stdout).on("line", (line) => {
    said.push(line);
    kill ??= setTimeout(() => proc.kill("SIGKILL"), afterMs);
  });
  const [code, signal] = (await once(proc, "close")) as [number | null, string | null];
  clearTimeout(kill);
  assert.deepEqual([code, signal], [null, "SIGKILL"]);
  return said.slice(1);
}

async function check(store: Store, root: string, ids: readonly string[]): Promise<void> {
  const { refs, content, snapshotter } = store;
  for (const blob of content.walk()) await content.verify(blob.digest);
  const dirs = readdirSync(join(root, "snapshots", snapshotter.name));
  assert.equal(dirs.length, [...snapshotter.walk()].length);
  assert.deepEqual(readdirSync(content.ingestDir), []);
  for (const info of await refs.diskUsage()) {
    if (info.mutable) {
      await using mutable = await refs.getMutable(info.id);
      assert.ok(["", "local"].includes(Object.keys(await treeOf(mutable)).join()));
      continue;
    }
    await using ref = refs.get(info.id);
    await ref.extract(ctx);
    assert.ok(Object.keys(await treeOf(ref)).length > 0);
    assert.ok(await ref.toRemote({ compression: { type: "zstd", level: 1 }, ctx }));
  }
  const left = new Set((await refs.diskUsage()).map((info) => info.id));
  const last = ids.at(-1);
  if (last !== undefined) assert.ok(left.has(last), "a record that was safe is gone");
}

test("the store survives kill -9 at any time", {
  skip: process.geteuid?.() !== 0,
  timeout: 120_000,
}, async () => {
  const root = mkdtempSync(join(tmpdir(), "kiln-crash"));
  mkdirSync(join(root, "registry"));
  try {
    for (let i = 0; i < KILLS; i++) {
      const ids = await runAndKill(root, 30 + Math.random() * 600);
      await using store = await openStore({
        root,
        fetchBlob: async (desc) =>
          (async function* () {
            yield readFileSync(join(root, "registry", desc.digest));
          })(),
      });
      await check(store, root, ids);
    }
    assert.equal(
      mountPoints().some((path) => path.startsWith(root)),
      false,
    );
  } finally {
    rmSync(root, { recursive: true, force: true });
  }
});
