import assert from "node:assert/strict";
import { test } from "node:test";
import { shareAllocatorArenas, trimMemory } from "./memory.ts";

test("the allocator can be told, whatever it is", () => {
  assert.doesNotThrow(() => {
    shareAllocatorArenas(2);
    trimMemory();
  });
});
