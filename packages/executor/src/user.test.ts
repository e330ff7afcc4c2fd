import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { RootDir } from "./root-dir.ts";
import { withHome } from "./user.ts";

test("ids that have no account live in the root directory", () => {
  const dir = mkdtempSync(join(tmpdir(), "kiln-user"));
  try {
    using root = new RootDir(dir);
    assert.deepEqual(withHome(root, ["A=1"], 0), ["A=1", "HOME=/"]);
    mkdirSync(join(dir, "etc"));
    writeFileSync(join(dir, "etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n");
    assert.deepEqual(withHome(root, ["A=1"], 0), ["A=1"]);
    assert.deepEqual(withHome(root, ["A=1"], 12), ["A=1", "HOME=/"]);
    assert.deepEqual(withHome(root, ["HOME=/x"], 12), ["HOME=/x"]);
  } finally {
    rmSync(dir, { recursive: true });
  }
});
