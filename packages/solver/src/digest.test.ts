import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import test from "node:test";
import { digestOfText, rootKey } from "./digest.ts";

test("digests of texts of any length", () => {
  for (let n = 0; n < 200; n++) {
    const text = "é".repeat(n % 7) + "x".repeat(n);
    assert.equal(digestOfText(text), `sha256:${createHash("sha256").update(text).digest("hex")}`);
  }
});

test("root keys name digest and output; random ones stay", () => {
  assert.equal(rootKey("sha256:aa", -1), digestOfText("sha256:aa@-1"));
  assert.equal(rootKey("random:abc", 3), "random:abc");
});
