import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { localMount } from "@kiln/sys";
import {
  Database,
  NativeSnapshotter,
  OverlaySnapshotter,
  type OverlaySupport,
  probeOverlay,
  TreePool,
} from "./index.ts";
import { snapshotterSuite } from "./testing/snapshotter-suite.ts";

const probeDir = mkdtempSync(join(tmpdir(), "kiln-probe"));
const support = probeOverlay(probeDir);
rmSync(probeDir, { recursive: true });
const overlay: OverlaySupport | undefined = "reason" in support ? undefined : support;

if (process.geteuid?.() === 0) snapshotterSuite("native", (env) => new NativeSnapshotter(env));
if (overlay) snapshotterSuite("overlayfs", (env) => new OverlaySnapshotter({ ...env, support: overlay }));

test("a staged layer gets its parent later", { skip: !overlay }, async () => {
  const root = mkdtempSync(join(tmpdir(), "kiln-stage"));
  const db = new Database(":memory:");
  const trees = new TreePool();
  try {
    const s = new OverlaySnapshotter({ root, db, trees, support: overlay as OverlaySupport });
    const [top, base] = [await s.stage(), await s.stage()];
    writeFileSync(join(top.dir, "top"), "");
    writeFileSync(join(base.dir, "base"), "");
    await assert.rejects(s.commitStaged("T", top, "none"), { code: "not_found" });
    await s.commitStaged("B", base);
    await s.commitStaged("T", top, "B");
    using dir = localMount(s.mounts("T"), { forReading: true });
    assert.ok(dir.path);
    assert.equal(s.lowerDirs("T")[0], s.upperDir("B"));
    await s.stage();
    assert.deepEqual(await s.cleanup(), []);
    assert.deepEqual([...s.walk()].map((info) => info.name).sort(), ["B", "T"]);
  } finally {
    await trees[Symbol.asyncDispose]();
    rmSync(root, { recursive: true, force: true });
  }
});
