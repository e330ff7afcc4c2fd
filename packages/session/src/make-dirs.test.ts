import assert from "node:assert/strict";
import { mkdtempSync, rmSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { makeDirs } from "./make-dirs.ts";

test("directories are made with their parents, and what can't be made is told", (t) => {
  const root = mkdtempSync(join(tmpdir(), "kiln-make-dirs-"));
  t.after(() => rmSync(root, { recursive: true }));
  makeDirs(join(root, "a/b/c"));
  makeDirs(join(root, "a/b/c"));
  assert.ok(statSync(join(root, "a/b/c")).isDirectory());
  symlinkSync(join(root, "nowhere"), join(root, "dangling"));
  writeFileSync(join(root, "file"), "");
  assert.throws(() => makeDirs(join(root, "dangling/x")), /mkdir .*dangling/);
  assert.throws(() => makeDirs(join(root, "file/x")), /not a directory|EEXIST/);
  assert.throws(
    () => makeDirs("/proc/kiln/x"),
    /^BuildError: mkdir \/proc\/kiln: no such file or directory$/,
  );
});
