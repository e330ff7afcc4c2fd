import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, it } from "node:test";
import { loadProvenanceEnvironment } from "./provenance-environment.ts";

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "kiln-provenance-"));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

it("merges the files of a directory", () => {
  writeFileSync(join(dir, "a.json"), '{"x": 1, "y": {"z": [true]}}');
  writeFileSync(join(dir, "b.json"), '{"x": 2}');
  writeFileSync(join(dir, "c.txt"), "no JSON");
  mkdirSync(join(dir, "d.json"));
  assert.deepEqual({ ...loadProvenanceEnvironment(dir) }, { x: 2, y: { z: [true] } });
  assert.deepEqual({ ...loadProvenanceEnvironment(join(dir, "none")) }, {});
});

it("refuses what is no object or claims the builder's own fields", () => {
  const load = (text: string) => () => {
    writeFileSync(join(dir, "a.json"), text);
    loadProvenanceEnvironment(dir);
  };
  assert.throws(load("{"), { message: /^failed to parse a\.json: / });
  assert.throws(load("[]"), { message: "failed to parse a.json: not a JSON object" });
  assert.throws(load('{"buildConfig": 1}'), { message: /is builtin and not allowed/ });
});
