import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import type { GoldenImages } from "./testing/golden-backend.ts";
import { answerFacets } from "./testing/golden-facets.ts";
import { caseOf, compact, type GoldenFile } from "./testing/golden-file.ts";

const testdata = join(import.meta.dirname, "../testdata");
const images = JSON.parse(readFileSync(join(testdata, "images.json"), "utf8")) as GoldenImages;

// Every file holds what BuildKit v0.33.1 answered to the same request.
for (const name of readdirSync(join(testdata, "llb")).sort()) {
  const id = name.replace(/\.json$/, "");
  test(`answers as BuildKit does: ${id}`, async () => {
    const golden = JSON.parse(readFileSync(join(testdata, "llb", name), "utf8")) as GoldenFile;
    assert.deepEqual(compact(await answerFacets(caseOf(id, golden), images)), golden.expected);
  });
}
