import assert from "node:assert/strict";
import { test } from "node:test";
import { requireRoot } from "./run-daemon.ts";

test("a user who is root nowhere is told what is needed", () => {
  requireRoot(0);
  assert.throws(() => requireRoot(1000), {
    code: "failed_precondition",
    message: /mapped root in a user namespace/,
  });
});
